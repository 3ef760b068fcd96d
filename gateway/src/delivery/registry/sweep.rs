//! The clocks of all sockets, looked at once a second: a socket has no timer of its own.

use shared::{CloseCode, UserId};

use super::{LocalSocket, Registry};
use crate::clock::coarse_s;

/// What the clocks of all sockets ask for.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Users whose presence is to be refreshed.
    pub refresh: Vec<UserId>,
    /// Users whose log is to be checked for events that never arrived.
    pub check: Vec<UserId>,
    /// Pings sent.
    pub pings: u32,
}

/// The clocks that a sweep looks at, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct SweepClocks {
    /// Silence after which a ping is sent.
    pub heartbeat_s: u32,
    /// Further silence that ends the connection.
    pub heartbeat_timeout_s: u32,
    /// A write without progress that ends the connection.
    pub write_timeout_s: u32,
    /// How often presence is refreshed.
    pub refresh_s: u32,
    /// How often the log is checked.
    pub check_s: u32,
}

impl Registry {
    /// Looks at every socket's clocks: pings the silent, closes the dead, the expired and the stuck.
    pub fn sweep(&self, clocks: &SweepClocks) -> Sweep {
        let now_s = coarse_s();
        let mut sweep = Sweep::default();
        for shard in &self.shards {
            for (user, local) in shard.lock().iter_mut() {
                let mut heard_s = 0;
                if local.recent.as_mut().is_some_and(|recent| recent.forget_old(now_s)) {
                    local.recent = None;
                }
                for socket in &mut local.sockets {
                    heard_s = heard_s.max(socket.queue.liveness().heard_s());
                    sweep.pings += u32::from(socket.tick(now_s, clocks));
                }
                if heard_s > local.refreshed_s && now_s.saturating_sub(local.refreshed_s) >= clocks.refresh_s {
                    local.refreshed_s = now_s;
                    sweep.refresh.push(user.clone());
                }
                if !local.healing && local.epoch.is_some() && now_s.saturating_sub(local.checked_s) >= clocks.check_s {
                    local.checked_s = now_s;
                    sweep.check.push(user.clone());
                }
            }
        }
        sweep
    }
}

impl LocalSocket {
    /// Applies the clocks; whether a ping was sent.
    fn tick(&mut self, now_s: u32, clocks: &SweepClocks) -> bool {
        if self
            .queue
            .liveness()
            .stuck_since_s()
            .is_some_and(|since| now_s.saturating_sub(since) >= clocks.write_timeout_s)
        {
            self.queue.abort();
            return false;
        }
        if now_s >= self.expires_s {
            self.queue.close(CloseCode::TokenExpired);
            return false;
        }
        let heard_s = self.queue.liveness().heard_s();
        let silence_s = now_s.saturating_sub(heard_s);
        if silence_s >= clocks.heartbeat_s + clocks.heartbeat_timeout_s {
            self.queue.close(CloseCode::HeartbeatTimeout);
            return false;
        }
        let due = silence_s >= clocks.heartbeat_s && self.pinged_for_s != heard_s;
        if due {
            self.pinged_for_s = heard_s;
            self.queue.request_ping();
        }
        due
    }
}

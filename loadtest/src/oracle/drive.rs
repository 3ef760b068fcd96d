//! The loaded part of a run: sends the workload at its rate, whatever the deployment does. It also causes the faults that
//! need no rig: a herd, and receivers that stall.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::evidence::Attempt;
use super::herd::Herd;
use super::scenario::{Handle, LOOK, Scenario};
use super::workload::{Cast, PlannedSend};
use crate::client::{Order, OutgoingMessage, Recipient};

impl Scenario {
    /// Sends everything, each message when it is due.
    pub(super) async fn drive(&mut self) {
        let workload = Arc::clone(&self.workload);
        let mut sends = workload.sends();
        let total = workload.total();
        let begin = Instant::now();
        self.herd = self.args.herd_at.map(|_| Herd::begin(&self.plan));
        let mut herd_at = self.args.herd_at.map(|seconds| begin + Duration::from_secs(seconds));
        let mut stall_at =
            (self.args.stalled_receivers > 0).then(|| begin + Duration::from_secs(self.args.seconds) / 4);
        let mut sent = 0;
        let mut looked = begin;
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while sent < total {
            tick.tick().await;
            let now = Instant::now();
            if herd_at.take_if(|at| now >= *at).is_some() {
                self.cut_off(now);
            }
            if stall_at.take_if(|at| now >= *at).is_some() {
                let time = Duration::from_secs(self.args.stall_seconds);
                order_all(self.devices().take(self.args.stalled_receivers), || Order::Stall(time));
            }
            let due = workload.due(now - begin);
            while sent < due {
                if let Some(planned) = sends.next() {
                    self.send_planned(&planned, begin);
                }
                sent += 1;
            }
            if now.duration_since(looked) >= LOOK {
                looked = now;
                self.look_at_herd();
                let open = self.unsettled();
                self.progress.show(&format!("sent {sent} of {total}, {open} without an answer"));
            }
        }
    }

    fn send_planned(&mut self, planned: &PlannedSend, begin: Instant) {
        let number = planned.number;
        let to = match planned.to_user.map(|user| self.user(user)) {
            Some(user) => user.map(Recipient::User),
            None => self.ids.get(&planned.conversation).cloned().map(Recipient::Conversation),
        };
        let Some(to) = to else { return };
        let mut content = format!("message {number} ");
        content.extend(std::iter::repeat_n('.', self.args.content_bytes.saturating_sub(content.len())));
        let send = OutgoingMessage { temp_id: format!("{}-{number}", self.run), to, content };
        let at = begin + planned.after;
        if self.args.raced {
            // Neighbours: with two addresses they are on two nodes.
            self.send(planned.sender, (planned.device + 1) % self.args.devices, send.clone(), at);
        }
        self.send(planned.sender, planned.device, send, at);
    }

    /// Hands a send to a device. If thousands wait there already, the send is dropped and doesn't count as attempted.
    pub(super) fn send(&mut self, user: usize, device: usize, send: OutgoingMessage, at: Instant) {
        let Some(handle) = self.handles.get(user).and_then(|devices| devices.get(device)) else { return };
        let attempt = Attempt { temp_id: send.temp_id.clone(), sender: handle.user.clone(), at_us: self.run_us(at) };
        if handle.orders.try_send(Order::Send(send)).is_ok() {
            self.attempts.push(attempt);
        }
    }

    /// The devices that a herd cuts off.
    fn herd(&self) -> impl Iterator<Item = &Handle> {
        let stay = if let Cast::Speakers(speakers) = self.cast { speakers } else { 0 };
        self.handles.iter().skip(stay).flatten()
    }

    /// Cuts the herd off.
    fn cut_off(&mut self, now: Instant) {
        let now_us = self.run_us(now);
        let Some(herd) = &mut self.herd else { return };
        herd.cut(now_us);
        if herd.is_cut_by_resets() {
            order_all(self.herd(), || Order::Drop);
        }
    }

    /// Whether the herd is back; `true` as well if there was none.
    fn look_at_herd(&mut self) -> bool {
        let Some(mut herd) = self.herd.take() else { return true };
        let back = herd.is_back(self.herd().map(|device| &*device.recorder));
        self.herd = Some(herd);
        back
    }

    /// Waits until the herd is back, for the time that a run may take to settle.
    pub(super) async fn await_herd(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(self.args.settle_seconds);
        while !self.look_at_herd() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Microseconds from the run's start to this moment.
    fn run_us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }
}

fn order_all<'a>(devices: impl Iterator<Item = &'a Handle>, order: impl Fn() -> Order) {
    for device in devices {
        // A device with a full inbox is far behind already.
        let _ = device.orders.try_send(order());
    }
}

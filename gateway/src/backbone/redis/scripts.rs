//! The Lua scripts: assembled once with this node's limits, and called by their SHA-1.

use redis::{Cmd, RedisResult, Script, aio::MultiplexedConnection};

use crate::backbone::Settings;

/// All scripts.
pub(super) struct Scripts {
    /// The command that publishes on a user's channel.
    pub(super) publish: &'static str,
    /// Appends events.
    pub(super) append: Script,
    /// Opens a log.
    pub(super) open: Script,
    /// Opens the log of a user who connects.
    pub(super) enter: Script,
    /// Reads a log.
    pub(super) read: Script,
    /// Reads which events a log has.
    pub(super) events: Script,
    /// Makes a user offline.
    pub(super) departed: Script,
    /// Counts a user's subscriptions.
    pub(super) subscribed: Script,
    /// Takes users whose offline check is due.
    pub(super) take_offline: Script,
    /// The end of the same where a user's keys lie on other servers than the list of those who are due.
    pub(super) settle_offline: Script,
    /// Puts back a revocation.
    pub(super) restore_revocation: Script,
    /// Draws on a user's allowance of commands.
    pub(super) draw: Script,
    /// Cuts a log behind what names a user.
    pub(super) cut: Script,
    /// Adds push jobs.
    pub(super) push: Script,
    /// Removes a push job.
    pub(super) push_end: Script,
}

impl Scripts {
    /// In a Cluster users' channels are sharded: what is published there reaches only the server that has the slot.
    pub(super) fn new(settings: &Settings, is_cluster: bool) -> Self {
        let (publish, numsub) = if is_cluster { ("SPUBLISH", "SHARDNUMSUB") } else { ("PUBLISH", "NUMSUB") };
        let limits = format!(
            "local MAXLEN, HOT_MAX, HOT_MS, TTL = {}, {}, {}, '{}'\n\
             local PUBLISH, NUMSUB = '{publish}', '{numsub}'\n",
            settings.resume_events,
            settings.hot_events_max(),
            u64::from(settings.hot_seconds) * 1000,
            settings.resume_seconds
        );
        let script = |parts: &[&str]| Script::new(&format!("{limits}{}", parts.concat()));
        let log = include_str!("lua/log.lua");
        Self {
            publish,
            // What is rare has a function of its own, which sees nothing of what stands before it: then it costs the common
            // append next to nothing.
            append: Script::new(
                &[
                    &format!("local PUBLISH = '{publish}'\n"),
                    "local function rarely()\n",
                    &limits,
                    log,
                    include_str!("lua/redo.lua"),
                    include_str!("lua/trim.lua"),
                    include_str!("lua/append_rarely.lua"),
                    "end\n",
                    include_str!("lua/append.lua"),
                ]
                .concat(),
            ),
            events: script(&[log, include_str!("lua/events.lua")]),
            open: script(&[log, include_str!("lua/open.lua")]),
            enter: script(&[log, include_str!("lua/enter.lua")]),
            read: script(&[log, include_str!("lua/old.lua"), include_str!("lua/read.lua")]),
            departed: script(&[include_str!("lua/departed.lua")]),
            subscribed: script(&[include_str!("lua/subscribed.lua")]),
            take_offline: script(&[include_str!("lua/take_offline.lua")]),
            settle_offline: script(&[include_str!("lua/settle_offline.lua")]),
            restore_revocation: script(&[include_str!("lua/restore_revocation.lua")]),
            draw: script(&[include_str!("lua/draw.lua")]),
            cut: script(&[include_str!("lua/cut.lua")]),
            push: script(&[include_str!("lua/push_shares.lua"), include_str!("lua/push.lua")]),
            push_end: script(&[include_str!("lua/push_shares.lua"), include_str!("lua/push_end.lua")]),
        }
    }

    /// Loads every script, so that none of a pipeline's calls finds it missing.
    pub(super) async fn load(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        for script in self.all() {
            script.load_async(connection).await?;
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Script> {
        let Self { publish: _, append, open, enter, read, events, departed, .. } = self;
        let Self { subscribed, take_offline, settle_offline, restore_revocation, draw, push, push_end, cut, .. } = self;
        let presence = [departed, subscribed, take_offline, settle_offline];
        [append, open, enter, read, events, restore_revocation, draw, push, push_end, cut].into_iter().chain(presence)
    }
}

/// A call of `script` with its keys; arguments follow.
pub(super) fn call(script: &Script, keys: &[impl AsRef<str>]) -> Cmd {
    let mut command = Cmd::with_capacity(16, 512);
    command.arg("EVALSHA").arg(script.get_hash()).arg(keys.len());
    for key in keys {
        command.arg(key.as_ref());
    }
    command
}

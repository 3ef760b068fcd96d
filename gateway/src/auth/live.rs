//! Connections that opened with a session cookie. The session may be deleted while they are open, so it is re-checked.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use shared::UserId;

use crate::backbone::SessionId;
use crate::clock::coarse_s;

/// How often a session is looked for.
const EVERY_S: u32 = 15;

/// All of them on this node.
#[derive(Debug, Default)]
pub struct LiveSessions {
    live: Arc<Mutex<HashMap<u64, Live>>>,
}

#[derive(Debug)]
struct Live {
    session: SessionId,
    user: UserId,
    /// Coarse seconds of the last look; `None` if it is to be looked for now.
    checked_s: Option<u32>,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub struct Guest {
    connection: u64,
    live: Arc<Mutex<HashMap<u64, Live>>>,
}

/// A session to look for.
#[derive(Debug, Clone)]
pub struct Due {
    /// The connection that stands on it.
    pub connection: u64,
    /// The session's user.
    pub user: UserId,
    /// Its session.
    pub session: SessionId,
}

impl LiveSessions {
    /// From now on the connection stands on the session.
    #[must_use]
    pub fn begin(&self, connection: u64, user: &UserId, session: SessionId) -> Guest {
        let live = Live { session, user: user.clone(), checked_s: Some(coarse_s()) };
        self.live.lock().insert(connection, live);
        Guest { connection, live: Arc::clone(&self.live) }
    }

    /// At most `limit` sessions that were not looked for in the last seconds; they count as looked for now.
    pub fn due(&self, limit: usize) -> Vec<Due> {
        let now_s = coarse_s();
        let mut live = self.live.lock();
        let late = live
            .iter_mut()
            .filter(|(_, live)| live.checked_s.is_none_or(|checked_s| now_s.saturating_sub(checked_s) >= EVERY_S));
        late.take(limit)
            .map(|(connection, live)| {
                live.checked_s = Some(now_s);
                Due { connection: *connection, user: live.user.clone(), session: live.session.clone() }
            })
            .collect()
    }

    /// All are to be looked for: deletions may have been missed.
    pub fn doubt_all(&self) {
        self.live.lock().values_mut().for_each(|live| live.checked_s = None);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.live.lock().remove(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_due_again_until_its_connection_ends() {
        let sessions = LiveSessions::default();
        let user = UserId::parse("a").expect("an id");
        let session = SessionId::parse("s").expect("an id");
        let guests: Vec<_> = (1..=3).map(|connection| sessions.begin(connection, &user, session.clone())).collect();
        assert!(sessions.due(10).is_empty(), "it was looked for when they joined");
        sessions.doubt_all();
        assert_eq!((sessions.due(2).len(), sessions.due(2).len(), sessions.due(2).len()), (2, 1, 0));
        drop(guests);
        sessions.doubt_all();
        assert!(sessions.due(10).is_empty());
    }
}

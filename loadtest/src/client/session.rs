//! A client's place in its user's log, over all its connections. Data in, data out; never sees a socket.

use super::wire::{AuthSuccess, Body, Place};

/// A device's place in the log.
///
/// Two places are kept apart: where the open socket stands, and from where the device may resume. They differ while a
/// resync is being fetched: adopting the new place before the fetch is done would lose what it was to bring.
#[derive(Debug, Default, Clone)]
pub struct Session {
    adopted: Option<Place>,
    socket: Option<Place>,
    resyncing: bool,
    must_fetch: bool,
    by_ids: bool,
}

/// The client's action for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing but to take it.
    Go,
    /// Fetch what is missing from the store, then call [`Session::fetched`].
    Fetch,
}

impl Session {
    /// The place of a device that comes back by the `id` of the last event, as `EventSource` does. A `position` frame has
    /// none, so such a device comes back in front of it.
    #[must_use]
    pub fn by_ids() -> Self {
        Self { by_ids: true, ..Self::default() }
    }

    /// The position to resume from.
    #[must_use]
    pub fn resume_from(&self) -> Option<&Place> {
        self.adopted.as_ref()
    }

    /// Where the open socket stands.
    #[must_use]
    pub fn socket(&self) -> Option<&Place> {
        self.socket.as_ref()
    }

    /// Whether a resync is under way.
    #[must_use]
    pub fn is_resyncing(&self) -> bool {
        self.resyncing
    }

    /// Takes `auth_success`. Not resumed although asked: a `resync` follows, and until it is done nothing is adopted.
    pub fn opened(&mut self, auth: &AuthSuccess) -> Step {
        let place = Place { epoch: auth.epoch.clone(), seq: auth.seq };
        self.socket = Some(place.clone());
        self.resyncing = self.must_fetch || (self.adopted.is_some() && !auth.resumed);
        if !self.resyncing {
            self.adopted = Some(place);
        }
        if std::mem::take(&mut self.must_fetch) { Step::Fetch } else { Step::Go }
    }

    /// Takes any later frame: `seq` is the envelope's.
    pub fn frame(&mut self, seq: Option<u64>, body: &Body) -> Step {
        match (body, seq) {
            (Body::Resync { place, .. }, _) => {
                self.socket = Some(place.clone());
                self.resyncing = true;
                return Step::Fetch;
            }
            (Body::Position(place), seq) => {
                self.socket = Some(Place { epoch: place.epoch.clone(), seq: seq.unwrap_or(place.seq) });
                if self.by_ids {
                    return Step::Go;
                }
            }
            (_, Some(seq)) => {
                if let Some(socket) = &mut self.socket {
                    socket.seq = seq;
                }
            }
            (_, None) => return Step::Go,
        }
        if !self.resyncing {
            self.adopted.clone_from(&self.socket);
        }
        Step::Go
    }

    /// The fetch of a resync is complete: the socket's place becomes the device's.
    pub fn fetched(&mut self) {
        if self.resyncing && self.socket.is_some() {
            self.resyncing = false;
            self.adopted.clone_from(&self.socket);
        }
    }

    /// The connection is gone. An unfinished resync stays unfinished: the old position is asked for again.
    pub fn closed(&mut self) {
        if self.resyncing && self.adopted.is_none() {
            self.must_fetch = true;
        }
        self.socket = None;
        self.resyncing = false;
    }

    /// Close code 4301: connect without a position, then fetch everything.
    pub fn position_lost(&mut self) {
        self.adopted = None;
        self.must_fetch = true;
    }
}

#[cfg(test)]
mod tests {
    use shared::Epoch;

    use super::*;

    fn place(epoch: &str, seq: u64) -> Place {
        Place { epoch: Epoch::parse(epoch).expect("an epoch"), seq }
    }

    fn auth(epoch: &str, seq: u64, resumed: bool) -> AuthSuccess {
        AuthSuccess { epoch: Epoch::parse(epoch).expect("an epoch"), seq, resumed, heartbeat_seconds: None }
    }

    fn resync(epoch: &str, seq: u64) -> Body {
        Body::Resync { reason: "epoch".into(), place: place(epoch, seq) }
    }

    #[test]
    fn durable_events_move_the_position_and_companions_do_not() {
        let mut session = Session::default();
        assert_eq!(session.opened(&auth("a", 3, false)), Step::Go);
        session.frame(Some(4), &Body::Other);
        session.frame(None, &Body::Other);
        assert_eq!(session.resume_from(), Some(&place("a", 4)));
        session.closed();
        assert_eq!(session.resume_from(), Some(&place("a", 4)));
        session.opened(&auth("a", 4, true));
        session.frame(Some(5), &Body::Other);
        assert_eq!(session.resume_from(), Some(&place("a", 5)));
    }

    #[test]
    fn a_resync_position_is_adopted_only_when_the_fetch_is_done() {
        let mut session = Session::default();
        session.opened(&auth("a", 3, false));
        session.closed();
        session.opened(&auth("b", 9, false));
        assert_eq!(session.resume_from(), Some(&place("a", 3)));
        assert_eq!(session.frame(None, &resync("b", 9)), Step::Fetch);
        session.frame(Some(10), &Body::Other);
        assert_eq!(session.resume_from(), Some(&place("a", 3)));
        session.fetched();
        assert_eq!(session.resume_from(), Some(&place("b", 10)));
    }

    #[test]
    fn a_connection_lost_during_the_fetch_asks_for_the_old_position_again() {
        let mut session = Session::default();
        session.opened(&auth("a", 3, false));
        session.frame(None, &resync("b", 9));
        session.closed();
        session.fetched();
        assert_eq!(session.resume_from(), Some(&place("a", 3)));
    }

    #[test]
    fn a_position_frame_replaces_an_event_or_names_a_new_epoch() {
        let mut session = Session::default();
        session.opened(&auth("a", 3, false));
        session.frame(Some(4), &Body::Position(place("a", 4)));
        assert_eq!(session.resume_from(), Some(&place("a", 4)));
        session.frame(None, &Body::Position(place("b", 0)));
        assert_eq!(session.resume_from(), Some(&place("b", 0)));
    }

    #[test]
    fn a_device_that_comes_back_by_ids_comes_back_in_front_of_a_position_frame() {
        let mut session = Session::by_ids();
        session.opened(&auth("a", 3, false));
        session.frame(Some(4), &Body::Position(place("a", 4)));
        assert_eq!((session.resume_from(), session.socket()), (Some(&place("a", 3)), Some(&place("a", 4))));
        session.frame(Some(5), &Body::Other);
        assert_eq!(session.resume_from(), Some(&place("a", 5)));
    }

    #[test]
    fn after_position_lost_everything_is_fetched_before_a_position_is_adopted() {
        let mut session = Session::default();
        session.opened(&auth("a", 3, false));
        session.closed();
        session.position_lost();
        assert_eq!(session.opened(&auth("b", 1, false)), Step::Fetch);
        assert_eq!(session.resume_from(), None);
        session.closed();
        assert_eq!(session.opened(&auth("b", 2, false)), Step::Fetch, "the unfinished fetch is owed");
        session.fetched();
        assert_eq!(session.resume_from(), Some(&place("b", 2)));
    }
}

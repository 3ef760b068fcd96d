//! How a socket comes into a large conversation: what it is told, and what it missed. A pure decision.

use shared::Place;
use shared::event::ResyncReason;

use super::history::History;
use super::inlet::Wish;
use super::shown::Shown;

/// What is done with a socket that wishes to come in.
#[derive(Debug)]
pub(super) enum Entrance<'a> {
    /// It waits for the store.
    NotYet,
    /// It is in, and is told nothing.
    Silent,
    /// It is told where the conversation is.
    Told,
    /// It gets what it missed, behind the place that it is told.
    Behind(Option<Place>, Vec<&'a Shown>),
    /// It is told to fetch what it missed.
    Resync(ResyncReason),
}

impl<'a> Entrance<'a> {
    /// `is_large`: what the store said last. `is_read`: whether the store was read since the socket came.
    pub(super) fn of(wish: Wish, history: &'a History, is_large: bool, is_read: bool) -> Self {
        if !is_large && !is_read {
            return Self::NotYet;
        }
        let (place, told) = match wish {
            Wish::From(place) => (place, None),
            Wish::Told(place) => (place, Some(place)),
            // Its events come by the members' own logs.
            Wish::Now | Wish::Unnamed | Wish::Invalid if !is_large => return Self::Silent,
            Wish::Now => return Self::Told,
            Wish::Unnamed => return Self::Resync(ResyncReason::Trimmed),
            Wish::Invalid => return Self::Resync(ResyncReason::Invalid),
        };
        let is_future = place.rev > history.place.rev;
        match history.missed(place) {
            Some(missed) if !is_future => Self::Behind(told, missed),
            _ if !is_read => Self::NotYet,
            Some(_) => Self::Resync(ResyncReason::Future),
            None => Self::Resync(ResyncReason::Trimmed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wish_has_its_answer() {
        let place = |rev, seq| Place { rev, seq };
        let history = History::new(5, place(8, 6), Vec::new());
        let of = |wish, is_large, is_read| match Entrance::of(wish, &history, is_large, is_read) {
            Entrance::NotYet => "not yet".to_owned(),
            Entrance::Silent => "silent".to_owned(),
            Entrance::Told => "told".to_owned(),
            Entrance::Behind(told, missed) => format!("{told:?} {}", missed.len()),
            Entrance::Resync(reason) => format!("{reason:?}"),
        };
        for (wish, read, unread) in [
            (Wish::Now, "told", "told"),
            (Wish::Unnamed, "Trimmed", "Trimmed"),
            (Wish::Invalid, "Invalid", "Invalid"),
            (Wish::From(place(8, 6)), "None 0", "None 0"),
            (Wish::From(place(5, 3)), "None 0", "None 0"),
            (Wish::Told(place(8, 6)), "Some(Place { rev: 8, seq: 6 }) 0", "Some(Place { rev: 8, seq: 6 }) 0"),
            (Wish::From(place(4, 3)), "Trimmed", "not yet"),
            (Wish::From(place(9, 6)), "Future", "not yet"),
        ] {
            assert_eq!((of(wish, true, true), of(wish, true, false)), (read.to_owned(), unread.to_owned()), "{wish:?}");
            assert_eq!(of(wish, false, false), "not yet", "{wish:?}");
        }
        assert_eq!(
            (of(Wish::Now, false, true), of(Wish::From(place(5, 3)), false, true)),
            ("silent".into(), "None 0".into())
        );
    }
}

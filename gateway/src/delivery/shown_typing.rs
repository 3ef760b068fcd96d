//! Who is shown to type to the users of this node. A typing whose end doesn't come ends here by itself: the typist's node may
//! be gone, or the backbone away when the end is due. A table of values: it never pushes anything.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::{ConversationId, Event, UserId};

use super::envelope::lines;

/// How long a typing is shown without being renewed, in seconds. The typist's node ends it after six, and looks once a second.
const SHOWN_S: u32 = 9;
/// Typings that are watched, each once for each user who is shown it; more end only as their typist's node says.
const WATCHED_MAX: usize = 50_000;

/// The typings, until when each is shown, and the typist's name.
#[derive(Debug, Default)]
pub(super) struct ShownTyping {
    shown: Mutex<HashMap<Shown, (u32, Option<String>)>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Shown {
    to: UserId,
    conversation: ConversationId,
    typist: UserId,
}

impl ShownTyping {
    /// Notes what a user is shown: that somebody types, or has ended.
    pub(super) fn note(&self, to: &str, envelopes: &[u8], now_s: u32) {
        let event = lines(envelopes).next().and_then(|line| serde_json::from_slice(line).ok());
        let Some(Event::Typing { conversation_id, user_id, is_typing, username }) = event else { return };
        let Ok(to) = UserId::parse(to) else { return };
        let key = Shown { to, conversation: conversation_id, typist: user_id };
        let mut shown = self.shown.lock();
        if !is_typing {
            shown.remove(&key);
        } else if shown.len() < WATCHED_MAX || shown.contains_key(&key) {
            shown.insert(key, (now_s.saturating_add(SHOWN_S), username));
        }
    }

    /// The ends that are due: to whom, and what they are told.
    pub(super) fn take_due(&self, now_s: u32) -> Vec<(UserId, Event)> {
        let mut shown = self.shown.lock();
        if shown.is_empty() {
            return Vec::new();
        }
        let due: Vec<_> = shown.extract_if(|_, (until_s, _)| *until_s <= now_s).collect();
        if shown.is_empty() {
            shown.shrink_to_fit();
        }
        drop(shown);
        let end = |(key, (_, username))| {
            let Shown { to, conversation: conversation_id, typist: user_id } = key;
            (to, Event::Typing { conversation_id, user_id, is_typing: false, username })
        };
        due.into_iter().map(end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(typist: &str, is_typing: bool) -> Vec<u8> {
        let (conversation_id, user_id) = ("c".parse().expect("an id"), typist.parse().expect("an id"));
        let username = Some(format!("name-of-{typist}"));
        Event::Typing { conversation_id, user_id, is_typing, username }.to_json().into_bytes()
    }

    fn ends(shown: &ShownTyping, now_s: u32) -> Vec<String> {
        let mut ends: Vec<String> =
            shown.take_due(now_s).into_iter().map(|(to, event)| format!("{to} {}", event.to_json())).collect();
        ends.sort();
        ends
    }

    fn end(to: &str, typist: &str) -> String {
        format!("{to} {}", String::from_utf8(envelope(typist, false)).expect("text"))
    }

    #[test]
    fn a_typing_ends_unless_it_is_renewed_or_has_ended() {
        let shown = ShownTyping::default();
        for to in ["a", "b"] {
            shown.note(to, &envelope("x", true), 100);
        }
        shown.note("a", &envelope("y", true), 100);
        shown.note("a", &envelope("z", true), 100);
        shown.note("a", &envelope("y", false), 101);
        shown.note("a", &envelope("z", true), 105);
        for other in [&b"{}"[..], b"", br#"{"type":"user.online","payload":{"userId":"x"}}"#] {
            shown.note("a", other, 100);
        }
        assert!(ends(&shown, 100 + SHOWN_S - 1).is_empty());
        assert_eq!(ends(&shown, 100 + SHOWN_S), [end("a", "x"), end("b", "x")]);
        assert_eq!(ends(&shown, 105 + SHOWN_S), [end("a", "z")]);
        assert!(ends(&shown, u32::MAX).is_empty());
    }

    #[test]
    fn typings_that_are_watched_are_bounded() {
        let shown = ShownTyping::default();
        for n in 0..WATCHED_MAX + 10 {
            shown.note(&format!("u{n}"), &envelope("x", true), 100);
        }
        shown.note("u0", &envelope("x", true), 105);
        assert_eq!(ends(&shown, 100 + SHOWN_S).len(), WATCHED_MAX - 1, "what is watched can be renewed");
        assert_eq!(ends(&shown, 105 + SHOWN_S), [end("u0", "x")]);
    }
}

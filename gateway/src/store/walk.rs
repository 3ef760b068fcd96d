//! A walk over a user's conversations, page by page: newest activity first, each at least once, whatever happens meanwhile.
//! Pages go on behind the last conversation shown, so one that leaves the list moves no other. A message between two pages
//! puts its conversation before the place; the walk's end shows again what became active since its start. No SQL.

use std::fmt;
use std::str::FromStr;

use shared::{Conversation, ConversationId, Timestamp};

/// A walk also shows again what was active so long before its start, in milliseconds: a message's time is taken before its
/// commit shows it, and a commit takes five seconds at the most.
pub(super) const COMMIT_MS_MAX: i64 = 5_000;
/// The latest time that a place can name, in milliseconds since 1970: fourteen digits.
const TIME_MS_MAX: i64 = 99_999_999_999_999;

/// A place in a walk, behind what was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkPlace {
    /// What was active later than this is shown again at the walk's end.
    pub since: Timestamp,
    /// What comes next.
    pub part: WalkPart,
}

/// The two parts of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalkPart {
    /// By activity, the newest first; the conversations behind this one.
    ByActivity {
        /// When it was active last, as it was shown.
        activity: Timestamp,
        /// Its id: of several of one moment the lower one comes first.
        id: ConversationId,
    },
    /// What was active since the walk's start, by id; the conversations behind this one, or all.
    Again(Option<ConversationId>),
}

/// A page of a walk.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationPage {
    /// The conversations, at most as many as were asked for. A page with a `next` may be short.
    pub items: Vec<Conversation>,
    /// Where the walk goes on; `None` at its end.
    pub next: Option<WalkPlace>,
}

/// A conversation's id and when it was active last.
pub(super) type Active = (ConversationId, Timestamp);

/// Where a page ends that was read at `now` by activity, at `place` (`None`: the first one).
pub(super) struct PageEnd<'a> {
    pub(super) place: Option<&'a WalkPlace>,
    pub(super) page: &'a [Active],
    pub(super) limit: u32,
    pub(super) now: Timestamp,
}

impl PageEnd<'_> {
    /// The start of this walk, and early enough.
    pub(super) fn since(&self) -> Timestamp {
        let start = || Timestamp::from_unix_ms(self.now.unix_ms() - COMMIT_MS_MAX);
        self.place.map_or_else(start, |place| place.since)
    }

    /// Where the walk goes on if the page is full.
    pub(super) fn if_full(&self) -> Option<WalkPlace> {
        let (id, activity) = self.page.last()?;
        let is_full = self.page.len() >= usize::try_from(self.limit).unwrap_or(usize::MAX);
        let part = match self.place.map(|place| &place.part) {
            None | Some(WalkPart::ByActivity { .. }) => WalkPart::ByActivity { activity: *activity, id: id.clone() },
            Some(WalkPart::Again(_)) => WalkPart::Again(Some(id.clone())),
        };
        is_full.then(|| WalkPlace { since: self.since(), part })
    }

    /// Whether the part by activity ends with this page, and pages went before: then what was active since has to be shown
    /// again. One page alone shows one moment.
    pub(super) fn may_come_again(&self) -> bool {
        let by_activity = |place: &WalkPlace| matches!(place.part, WalkPart::ByActivity { .. });
        self.if_full().is_none() && self.place.is_some_and(by_activity)
    }

    /// Where the second part begins.
    pub(super) fn again(&self) -> WalkPlace {
        WalkPlace { since: self.since(), part: WalkPart::Again(None) }
    }
}

/// `<since>.<activity>.<id>`, or `<since>..<id>` for the second part, whose id may be empty. What means something in a URL
/// stands for itself as another character, so that a cursor can be pasted into one.
impl fmt::Display for WalkPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |id: &ConversationId| id.as_str().replace('+', "~").replace('|', "!");
        write!(f, "{}.", self.since.unix_ms())?;
        match &self.part {
            WalkPart::ByActivity { activity, id } => write!(f, "{}.{}", activity.unix_ms(), plain(id)),
            WalkPart::Again(id) => write!(f, ".{}", id.as_ref().map(plain).unwrap_or_default()),
        }
    }
}

/// A text that is no place in a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the next of a page")]
pub struct NoWalkPlace;

impl FromStr for WalkPlace {
    type Err = NoWalkPlace;

    fn from_str(text: &str) -> Result<Self, NoWalkPlace> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(NoWalkPlace);
        let (since, activity, id) = (part()?, part()?, part()?);
        let id = (!id.is_empty()).then(|| ConversationId::parse(&id.replace('~', "+").replace('!', "|")));
        let id = id.transpose().map_err(|_| NoWalkPlace)?;
        let part = match activity {
            "" => WalkPart::Again(id),
            activity => WalkPart::ByActivity { activity: time(activity)?, id: id.ok_or(NoWalkPlace)? },
        };
        Ok(Self { since: time(since)?, part })
    }
}

fn time(text: &str) -> Result<Timestamp, NoWalkPlace> {
    let ms = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    ms.filter(|ms| *ms <= TIME_MS_MAX).map(Timestamp::from_unix_ms).ok_or(NoWalkPlace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_its_text_and_nothing_else_is_one() {
        let id = |text| ConversationId::parse(text).expect("an id");
        let at = Timestamp::from_unix_ms;
        for (text, part) in [
            ("7.8.c", WalkPart::ByActivity { activity: at(8), id: id("c") }),
            ("7.8.a.b:c@d~1!-_", WalkPart::ByActivity { activity: at(8), id: id("a.b:c@d+1|-_") }),
            ("7..a.b", WalkPart::Again(Some(id("a.b")))),
            ("7..", WalkPart::Again(None)),
        ] {
            let place = WalkPlace { since: at(7), part };
            assert_eq!((place.to_string().as_str(), text.parse()), (text, Ok(place)));
        }
        for text in
            ["", "7", "7.8", "7.8.", ".8.c", "-7.8.c", "7.+8.c", "7.8.a/b", "100000000000000..", "7.8.c\0", "x..c"]
        {
            assert_eq!(text.parse::<WalkPlace>(), Err(NoWalkPlace), "{text}");
        }
    }
}

//! What a node keeps of a large conversation: its place, and the last events behind it for those who resume. It decides
//! whether an event is the next one, and what somebody at an earlier place missed. It reads nothing and waits for nothing.

use std::collections::VecDeque;

use bytes::Bytes;
use shared::Place;

use super::shown::Shown;
use super::sources::MissedRow;
use crate::delivery::envelope::TopicPayload;

/// Events that are kept.
pub(super) const EVENTS_MAX: usize = 256;
/// Bytes of events that are kept.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// A changed message from the store.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) rev: u64,
    pub(super) seq: u64,
    /// Whether it was published once for all members: otherwise it stands in the log of each.
    pub(super) was_large: bool,
    /// Whether anything happened to it since it was sent.
    pub(super) is_changed: bool,
    pub(super) new: Shown,
    pub(super) changed: Shown,
}

impl Row {
    /// A message as it was read; `None` if it can't be shown.
    pub(super) fn of(row: MissedRow) -> Option<Self> {
        let MissedRow { rev, seq, was_large, is_changed, new, changed } = row;
        let shown = |envelope: &Bytes| Some(Shown::read(TopicPayload::parse(envelope)?, envelope.clone()));
        Some(Self { rev, seq, was_large, is_changed, new: shown(&new)?, changed: shown(&changed)? })
    }

    fn bytes(&self) -> usize {
        self.new.bytes() + self.changed.bytes()
    }

    /// What somebody at a place lacks of it.
    pub(super) fn for_place(&self, place: Place) -> Option<&Shown> {
        if self.rev <= place.rev {
            return None;
        }
        match (self.seq <= place.seq, self.was_large) {
            (true, _) => Some(&self.changed),
            (false, true) => Some(&self.new),
            // The member's own log has the message.
            (false, false) => self.is_changed.then_some(&self.changed),
        }
    }
}

/// A part of what is kept.
#[derive(Debug)]
pub(super) enum Span {
    /// An event that was published.
    Live(Box<Shown>),
    /// What was read in place of events, up to a place.
    Read(Place, Vec<Row>),
}

impl Span {
    fn end(&self) -> u64 {
        match self {
            Self::Live(shown) => shown.rev,
            Self::Read(place, _) => place.rev,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Live(_) => 1,
            Self::Read(_, rows) => rows.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Live(shown) => shown.bytes(),
            Self::Read(_, rows) => rows.iter().map(Row::bytes).sum(),
        }
    }
}

/// What is said of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Next,
    /// It was here before, or what was read in its place.
    Old,
    /// Events before it are missing.
    Gap,
}

/// What a read of the store means for those who are at this node's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMeaning {
    /// Nothing new.
    Nothing,
    /// They lack the rows behind the place where they were.
    Rows,
    /// They lack more than was read: they have to fetch it.
    Trimmed,
}

/// What is kept of one conversation.
#[derive(Debug)]
pub(super) struct History {
    pub(super) place: Place,
    /// The `rev` from which somebody can go on without a hole.
    floor: u64,
    spans: VecDeque<Span>,
    count: usize,
    bytes: usize,
}

impl History {
    /// What was read first: everything behind `floor`, up to `place`.
    pub(super) fn new(floor: u64, place: Place, rows: Vec<Row>) -> Self {
        let (floor, rows) = bounded(floor, rows);
        let mut history = Self { place, floor: floor.min(place.rev), spans: VecDeque::new(), count: 0, bytes: 0 };
        history.push(Span::Read(place, rows));
        history
    }

    /// Whether the event `rev` may go to those who are at this place.
    pub(super) fn judge(&self, rev: u64) -> Verdict {
        if rev <= self.place.rev {
            Verdict::Old
        } else if rev == self.place.rev + 1 {
            Verdict::Next
        } else {
            Verdict::Gap
        }
    }

    /// Takes the next event.
    pub(super) fn pass(&mut self, shown: Shown) {
        self.place = Place { rev: shown.rev, seq: self.place.seq.max(shown.seq.unwrap_or(0)) };
        self.push(Span::Live(Box::new(shown)));
    }

    /// Takes what was read behind `floor`, when the conversation was at `head`. Whoever is at the place of before gets
    /// [`History::latest_for`] it.
    pub(super) fn take_read(&mut self, floor: u64, head: Place, rows: Vec<Row>) -> ReadMeaning {
        let (floor, rows) = bounded(floor, rows);
        let (before, reaches) = (self.place, floor <= self.place.rev);
        let meaning = match (head.rev > before.rev, reaches) {
            (false, _) => ReadMeaning::Nothing,
            (true, true) => ReadMeaning::Rows,
            (true, false) => ReadMeaning::Trimmed,
        };
        let goes_back = floor < self.floor && head.rev >= self.floor;
        if meaning == ReadMeaning::Nothing && !goes_back {
            return meaning;
        }
        if goes_back || meaning == ReadMeaning::Trimmed {
            // It has all that is kept, up to its own place; what came meanwhile stays behind it.
            let behind: Vec<Span> = self.spans.drain(..).filter(|span| span.end() > head.rev).collect();
            (self.count, self.bytes, self.floor) = (0, 0, floor.min(head.rev));
            self.push(Span::Read(head, rows));
            behind.into_iter().for_each(|span| self.push(span));
        } else {
            self.push(Span::Read(head, rows));
        }
        if head.rev > self.place.rev {
            self.place = head;
        }
        meaning
    }

    /// The events of the last part that was taken, for those who were at `before`.
    pub(super) fn latest_for(&self, before: Place) -> Vec<&Shown> {
        match self.spans.back() {
            Some(Span::Live(shown)) => vec![&**shown],
            Some(Span::Read(_, rows)) => rows.iter().filter_map(|row| row.for_place(before)).collect(),
            None => Vec::new(),
        }
    }

    /// Whether everything behind a place is kept.
    pub(super) fn reaches(&self, from: Place) -> bool {
        from.rev >= self.floor
    }

    /// What somebody at `from` missed up to this place; `None` if that reaches back too far.
    pub(super) fn missed(&self, from: Place) -> Option<Vec<&Shown>> {
        if !self.reaches(from) {
            return None;
        }
        let (mut missed, mut at): (Vec<&Shown>, Place) = (Vec::new(), from);
        for span in &self.spans {
            match span {
                Span::Live(shown) if shown.rev > at.rev => {
                    missed.push(shown);
                    at = Place { rev: shown.rev, seq: at.seq.max(shown.seq.unwrap_or(0)) };
                }
                Span::Live(_) => {}
                Span::Read(place, rows) => {
                    missed.extend(rows.iter().filter_map(|row| row.for_place(at)));
                    if place.rev > at.rev {
                        at = *place;
                    }
                }
            }
        }
        Some(missed)
    }

    fn push(&mut self, span: Span) {
        (self.count, self.bytes) = (self.count + span.count(), self.bytes + span.bytes());
        self.spans.push_back(span);
        while (self.count > EVENTS_MAX || self.bytes > BYTES_MAX || self.spans.len() > EVENTS_MAX)
            && self.spans.len() > 1
            && let Some(first) = self.spans.pop_front()
        {
            (self.count, self.bytes) = (self.count - first.count(), self.bytes - first.bytes());
            self.floor = first.end();
        }
    }
}

/// As many of the newest as may be kept, and the `rev` behind which none is left out.
fn bounded(mut floor: u64, mut rows: Vec<Row>) -> (u64, Vec<Row>) {
    let mut bytes: usize = rows.iter().map(Row::bytes).sum();
    let mut left_out = 0;
    while bytes > BYTES_MAX
        && let Some(row) = rows.get(left_out)
    {
        (bytes, floor, left_out) = (bytes - row.bytes(), row.rev, left_out + 1);
    }
    rows.drain(..left_out);
    (floor, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rev: u64, seq: Option<u64>) -> Shown {
        let text = match seq {
            Some(seq) => format!(
                r#"{{"rev":{rev},"type":"message.new","payload":{{"message":{{"seq":{seq},"senderId":"u","createdAt":"2025-11-21T13:00:00.000Z"}}}}}}"#
            ),
            None => format!(r#"{{"rev":{rev},"type":"message.edited","payload":{{}}}}"#),
        };
        let envelope = Bytes::from(text);
        Shown::read(TopicPayload::parse(&envelope).expect("an event"), envelope.clone())
    }

    fn row(rev: u64, seq: u64) -> Row {
        let (new, changed) = (shown(rev, Some(seq)), shown(rev, None));
        Row { rev, seq, was_large: true, is_changed: false, new, changed }
    }

    fn place(rev: u64, seq: u64) -> Place {
        Place { rev, seq }
    }

    /// What somebody lacks: each `rev`, and whether it is new to them.
    fn lacks(history: &History, from: Place) -> Option<Vec<(u64, bool)>> {
        history.missed(from).map(|missed| missed.iter().map(|shown| (shown.rev, shown.seq.is_some())).collect())
    }

    #[test]
    fn exactly_the_next_event_passes() {
        let mut history = History::new(5, place(5, 3), Vec::new());
        assert_eq!(
            [4, 5, 6, 7].map(|rev| history.judge(rev)),
            [Verdict::Old, Verdict::Old, Verdict::Next, Verdict::Gap]
        );
        history.pass(shown(6, Some(4)));
        history.pass(shown(7, None));
        assert_eq!((history.place, history.judge(7)), (place(7, 4), Verdict::Old));
        assert_eq!(lacks(&history, place(5, 3)), Some(vec![(6, true), (7, false)]));
        assert_eq!(lacks(&history, place(6, 4)), Some(vec![(7, false)]));
        assert_eq!((lacks(&history, place(7, 4)), lacks(&history, place(4, 2))), (Some(vec![]), None));
    }

    #[test]
    fn a_gap_is_filled_by_what_is_left_of_it() {
        let mut history = History::new(5, place(5, 3), Vec::new());
        // Between 5 and 9: message 4 was sent (6) and edited (8), message 2 edited (7), message 5 sent (9).
        let rows = vec![row(7, 2), row(8, 4), row(9, 5)];
        assert_eq!(history.take_read(5, place(9, 5), rows), ReadMeaning::Rows);
        assert_eq!(lacks(&history, place(5, 3)), Some(vec![(7, false), (8, true), (9, true)]));
        // Who saw message 4 as it was at first is told of its edit.
        assert_eq!(lacks(&history, place(6, 4)), Some(vec![(7, false), (8, false), (9, true)]));
        assert_eq!(history.judge(9), Verdict::Old, "a late publication of what was read");
        assert_eq!(history.take_read(9, place(9, 5), Vec::new()), ReadMeaning::Nothing);
    }

    #[test]
    fn a_read_for_those_who_were_away_longer_serves_all_of_them() {
        let mut history = History::new(5, place(5, 3), Vec::new());
        history.pass(shown(6, Some(4)));
        let rows = vec![row(3, 2), row(4, 1), row(5, 3), row(6, 4)];
        assert_eq!(history.take_read(2, place(6, 4), rows), ReadMeaning::Nothing, "for those who are here");
        assert_eq!(lacks(&history, place(2, 1)), Some(vec![(3, true), (4, false), (5, true), (6, true)]));
        assert_eq!(lacks(&history, place(1, 1)), None);
        // What passed while the store was read stays.
        let mut history = History::new(5, place(5, 3), Vec::new());
        history.pass(shown(6, Some(4)));
        history.pass(shown(7, Some(5)));
        assert_eq!(history.take_read(2, place(6, 4), vec![row(4, 3), row(6, 4)]), ReadMeaning::Nothing);
        assert_eq!(history.place, place(7, 5));
        assert_eq!(lacks(&history, place(2, 2)), Some(vec![(4, true), (6, true), (7, true)]));
    }

    #[test]
    fn who_lacks_too_much_is_told_so() {
        let mut history = History::new(5, place(5, 3), Vec::new());
        assert_eq!(history.take_read(400, place(700, 500), vec![row(401, 300)]), ReadMeaning::Trimmed);
        assert_eq!((history.place, lacks(&history, place(5, 3))), (place(700, 500), None));
        assert_eq!(lacks(&history, place(700, 500)), Some(vec![]));
        for rev in 701..=1100 {
            history.pass(shown(rev, None));
        }
        assert!(history.spans.len() <= EVENTS_MAX && history.missed(place(700, 500)).is_none());
        assert_eq!(lacks(&history, place(1099, 500)), Some(vec![(1100, false)]));
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let large = |rev: u64| {
            let text =
                format!(r#"{{"rev":{rev},"type":"message.edited","payload":{{"x":"{}"}}}}"#, "x".repeat(BYTES_MAX / 4));
            let shown = || {
                let envelope = Bytes::from(text.clone());
                Shown::read(TopicPayload::parse(&envelope).expect("an event"), envelope.clone())
            };
            Row { rev, seq: rev, was_large: true, is_changed: true, new: shown(), changed: shown() }
        };
        let history = History::new(2, place(5, 5), (3..=5).map(large).collect());
        assert!(!history.reaches(place(3, 3)) && history.reaches(place(4, 4)));
        assert_eq!(lacks(&history, place(4, 4)), Some(vec![(5, false)]));
    }

    #[test]
    fn a_message_of_a_small_time_is_left_to_the_logs() {
        let mut small = row(6, 4);
        small.was_large = false;
        assert!(small.for_place(place(5, 3)).is_none());
        small.is_changed = true;
        assert!(small.for_place(place(5, 3)).is_some_and(|shown| shown.seq.is_none()));
        assert!(small.for_place(place(6, 4)).is_none());
    }
}

//! Messages of conversations that another transaction holds: in order, line by line, while everybody else's go on.
//!
//! It is a table of values: it never asks the store. A line may have several names, because a direct conversation is called
//! by its id and by its two users.

use std::collections::{HashMap, VecDeque};

/// Messages that may wait, over all lines; more are refused.
const ITEMS_MAX: usize = 4_096;
/// The bytes that may wait, as items count themselves.
const BYTES_MAX: usize = 16 << 20;
/// The most messages of a line that make one batch.
const BATCH_ITEMS_MAX: usize = 256;

/// A line, as the table numbers it.
pub(super) type LineId = u64;

/// The lines.
pub(super) struct BusyLines<T> {
    lines: HashMap<LineId, Line<T>>,
    names: HashMap<String, LineId>,
    /// Lines of which nothing is under way; the first has the next turn.
    turns: VecDeque<LineId>,
    next_line: LineId,
    items: usize,
    bytes: usize,
    /// How many bytes an item counts.
    weigh: fn(&T) -> usize,
}

struct Line<T> {
    names: Vec<String>,
    waiting: VecDeque<T>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { names: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<T> BusyLines<T> {
    /// No lines, of items that count so many bytes.
    pub(super) fn new(weigh: fn(&T) -> usize) -> Self {
        let (lines, names, turns) = Default::default();
        Self { lines, names, turns, next_line: 0, items: 0, bytes: 0, weigh }
    }

    /// The names of all lines.
    pub(super) fn held(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Puts an item behind those that wait under any of its names, which are all those of one conversation. If nothing does, it
    /// begins a line. Gives the item back if too much waits.
    pub(super) fn wait(&mut self, names: Vec<String>, item: T) -> Result<(), T> {
        let bytes = (self.weigh)(&item);
        if self.items >= ITEMS_MAX || self.bytes + bytes > BYTES_MAX {
            return Err(item);
        }
        let known = names.iter().find_map(|name| self.names.get(name)).copied();
        let line = known.unwrap_or_else(|| {
            self.next_line += 1;
            self.turns.push_back(self.next_line);
            self.next_line
        });
        let of_line = self.lines.entry(line).or_default();
        for name in names {
            if !self.names.contains_key(&name) {
                self.names.insert(name.clone(), line);
                of_line.names.push(name);
            }
        }
        of_line.waiting.push_back(item);
        self.items += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// The line that has the next turn, and its first items. It has no other turn until [`BusyLines::give_back`].
    pub(super) fn take(&mut self) -> Option<(LineId, Vec<T>)> {
        let line = self.turns.pop_front()?;
        let waiting = &mut self.lines.get_mut(&line)?.waiting;
        let taken: Vec<T> = waiting.drain(..waiting.len().min(BATCH_ITEMS_MAX)).collect();
        self.items -= taken.len();
        self.bytes -= taken.iter().map(self.weigh).sum::<usize>();
        Some((line, taken))
    }

    /// Ends a line's turn: `rest` still waits, in front of the others. A line of which nothing is left ends.
    pub(super) fn give_back(&mut self, line: LineId, rest: Vec<T>) {
        self.items += rest.len();
        self.bytes += rest.iter().map(self.weigh).sum::<usize>();
        let Some(of_line) = self.lines.get_mut(&line) else { return };
        for item in rest.into_iter().rev() {
            of_line.waiting.push_front(item);
        }
        if !of_line.waiting.is_empty() {
            return self.turns.push_back(line);
        }
        for name in &of_line.names {
            self.names.remove(name);
        }
        self.lines.remove(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_line_keeps_its_order_under_all_its_names() {
        let mut lines: BusyLines<&str> = BusyLines::new(|item| item.len());
        for (of, item) in [(["c", "a/b"], "1"), (["d", "d"], "x"), (["a/b", "e"], "2"), (["e", "e"], "3")] {
            assert_eq!(lines.wait(names(&of), item), Ok(()));
        }
        let (line, taken) = lines.take().expect("a turn");
        assert_eq!(taken, ["1", "2", "3"]);
        assert_eq!(lines.wait(names(&["c"]), "4"), Ok(()), "behind those under way");
        let (other, taken) = lines.take().expect("another's turn");
        assert_eq!(taken, ["x"]);
        assert!(lines.take().is_none());
        lines.give_back(line, vec!["2", "3"]);
        lines.give_back(other, Vec::new());
        let mut held = lines.held();
        held.sort();
        assert_eq!(held, ["a/b", "c", "e"], "that line has ended");
        let (line, taken) = lines.take().expect("a turn");
        assert_eq!(taken, ["2", "3", "4"]);
        lines.give_back(line, Vec::new());
        assert!(lines.lines.is_empty() && lines.held().is_empty() && lines.items == 0 && lines.bytes == 0);
    }

    #[test]
    fn it_is_bounded_in_number_and_in_bytes() {
        let mut lines: BusyLines<usize> = BusyLines::new(|bytes| *bytes);
        let refused = (0..=ITEMS_MAX).filter(|_| lines.wait(names(&["c"]), 1).is_err());
        assert_eq!(refused.count(), 1);
        let mut lines: BusyLines<usize> = BusyLines::new(|bytes| *bytes);
        assert_eq!(lines.wait(names(&["c"]), BYTES_MAX), Ok(()));
        assert_eq!(lines.wait(names(&["d"]), 1), Err(1));
        assert_eq!(lines.held(), ["c"]);
    }
}

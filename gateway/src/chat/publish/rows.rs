//! Rows of which not everything is published yet: each counts its parts, and one part that failed leaves the whole row to the
//! sweep, which publishes again what the logs don't know.

use std::collections::HashMap;
use std::time::Instant;

/// The rows.
#[derive(Default)]
pub(super) struct OpenRows(HashMap<u64, OpenRow>);

struct OpenRow {
    begun: Instant,
    parts: usize,
    has_failed: bool,
}

/// What has become of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowState {
    /// Parts of it are still to be published.
    Open,
    /// All of it is published.
    Published,
    /// Some of it could not be published.
    Failed,
}

impl OpenRows {
    /// A row of one part, whose commit was begun at that time.
    pub(super) fn open(&mut self, row: u64, begun: Instant) {
        self.0.insert(row, OpenRow { begun, parts: 1, has_failed: false });
    }

    /// The row has one part more.
    pub(super) fn expect(&mut self, row: u64) {
        if let Some(open) = self.0.get_mut(&row) {
            open.parts += 1;
        }
    }

    /// A part can't be published.
    pub(super) fn fail(&mut self, row: u64) {
        if let Some(open) = self.0.get_mut(&row) {
            open.has_failed = true;
        }
    }

    /// When the row's commit was begun.
    pub(super) fn begun(&self, row: u64) -> Option<Instant> {
        self.0.get(&row).map(|open| open.begun)
    }

    /// A part is done with.
    pub(super) fn end_part(&mut self, row: u64) -> RowState {
        let Some(open) = self.0.get_mut(&row) else { return RowState::Open };
        open.parts -= 1;
        if open.parts > 0 {
            return RowState::Open;
        }
        let has_failed = open.has_failed;
        self.0.remove(&row);
        if has_failed { RowState::Failed } else { RowState::Published }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_published_with_its_last_part_and_failed_by_any() {
        let mut rows = OpenRows::default();
        for (fails, ends) in [(false, RowState::Published), (true, RowState::Failed)] {
            rows.open(1, Instant::now());
            rows.expect(1);
            assert!(rows.begun(1).is_some());
            assert_eq!(rows.end_part(1), RowState::Open);
            if fails {
                rows.fail(1);
            }
            assert_eq!(rows.end_part(1), ends);
            assert_eq!((rows.begun(1), rows.end_part(1)), (None, RowState::Open), "it is forgotten");
        }
    }
}

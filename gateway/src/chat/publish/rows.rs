//! Rows of which not everything is published yet: each counts its parts, and one part that failed leaves the whole row to the
//! sweep, which publishes again what the logs don't know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// The rows.
#[derive(Default)]
pub(super) struct OpenRows(HashMap<u64, OpenRow>);

struct OpenRow {
    begun: Instant,
    parts: usize,
    has_failed: bool,
    /// The backbone server under which its parts were published so far.
    server: Option<Arc<str>>,
}

/// What has become of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowState {
    /// Parts of it are still to be published.
    Open,
    /// All of it is published, under this backbone server.
    Published(Arc<str>),
    /// Some of it could not be published.
    Failed,
}

impl OpenRows {
    /// A row of one part, whose commit was begun at that time.
    pub(super) fn open(&mut self, row: u64, begun: Instant) {
        self.0.insert(row, OpenRow { begun, parts: 1, has_failed: false, server: None });
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

    /// Something of the row is about to be published under `server`. A row that is published under two isn't published under
    /// either.
    pub(super) fn publishes_under(&mut self, row: u64, server: Option<&Arc<str>>) {
        if let Some(open) = self.0.get_mut(&row) {
            let is_same = open.server.as_ref().is_none_or(|known| Some(known) == server);
            open.has_failed |= server.is_none() || !is_same;
            open.server = server.cloned();
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
        let published = open.server.take().filter(|_| !open.has_failed);
        self.0.remove(&row);
        published.map_or(RowState::Failed, RowState::Published)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_published_with_its_last_part_and_failed_by_any() {
        let mut rows = OpenRows::default();
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        for (fails, servers, ends) in [
            (false, [Some(&one), Some(&one)], RowState::Published(Arc::clone(&one))),
            (true, [Some(&one), Some(&one)], RowState::Failed),
            (false, [Some(&one), Some(&two)], RowState::Failed),
            (false, [None, Some(&one)], RowState::Failed),
        ] {
            rows.open(1, Instant::now());
            rows.expect(1);
            servers.into_iter().for_each(|server| rows.publishes_under(1, server));
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

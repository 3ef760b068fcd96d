//! Rows that are published and have to be marked so in the store, each with the backbone server that was asked about before its
//! publication: under which server a row counts as published must not depend on when it is marked (NOLOSS.md, C3).
//!
//! Marks never hold up a publication. One that can't be made stays here until it can, or until there are too many; a row
//! without a mark is published again by a sweep, which finds its events in the logs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::{Store, StoreError};

/// Rows that wait to be marked. More are left to the sweep.
const MARKS_MAX: usize = 16_384;

/// The rows, by server.
#[derive(Default)]
pub(super) struct Marks {
    waiting: HashMap<Arc<str>, Vec<u64>>,
    count: usize,
}

/// Rows that were taken to be marked, and the outcome for each server.
pub(super) struct Marked {
    rows: Vec<u64>,
    server: Arc<str>,
    result: Result<(), StoreError>,
}

impl Marks {
    /// The row was published under `server`. Whether there is room for its mark.
    pub(super) fn push(&mut self, row: u64, server: Arc<str>) -> bool {
        if self.count >= MARKS_MAX {
            return false;
        }
        self.count += 1;
        self.waiting.entry(server).or_default().push(row);
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Marks all that wait, in a future of its own.
    pub(super) fn mark_all(&mut self, store: &Arc<dyn Store>) -> impl Future<Output = Vec<Marked>> + Send + use<> {
        let (taken, store) = (std::mem::take(&mut self.waiting), Arc::clone(store));
        self.count = 0;
        async move {
            let mut marked = Vec::with_capacity(taken.len());
            for (server, rows) in taken {
                let result = store.mark_published(&rows, &server).await;
                marked.push(Marked { rows, server, result });
            }
            marked
        }
    }

    /// Takes an outcome: the rows that are done with. Those of a mark that failed wait again.
    pub(super) fn settle(&mut self, Marked { rows, server, result }: Marked) -> Vec<u64> {
        match result {
            Ok(()) => rows,
            Err(error) => {
                tracing::debug!(%error, "rows could not be marked as published");
                rows.into_iter().filter(|row| !self.push(*row, Arc::clone(&server))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_wait_by_server_and_are_bounded() {
        let mut marks = Marks::default();
        let server = |name: &str| -> Arc<str> { name.into() };
        assert!(marks.push(1, server("one")) && marks.push(2, server("two")) && marks.push(3, server("one")));
        assert_eq!((&marks.waiting["one"], &marks.waiting["two"]), (&vec![1, 3], &vec![2]));
        let failed = |rows: Vec<u64>| Marked {
            rows,
            server: server("one"),
            result: Err(StoreError::Unavailable("away".into())),
        };
        assert!(marks.settle(failed(vec![4])).is_empty());
        assert_eq!(marks.waiting["one"], [1, 3, 4]);
        let rest = MARKS_MAX as u64 - 4;
        assert_eq!(marks.settle(failed((10..11 + rest).collect())), [10 + rest], "left to the sweep");
        assert_eq!(marks.settle(Marked { rows: vec![7], server: server("one"), result: Ok(()) }), [7]);
    }
}

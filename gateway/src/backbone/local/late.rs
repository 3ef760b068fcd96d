//! Late messages, in this process.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::LocalBackbone;
use crate::backbone::BackboneError;
use crate::backbone::late::{LATE_MAX, Late, LateId};

/// The kept messages.
#[derive(Default)]
pub(super) struct LateStream {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: VecDeque<(u64, Bytes)>,
    count: u64,
}

#[async_trait]
impl Late for LocalBackbone {
    async fn keep_late(&self, entry: Bytes) -> Result<bool, BackboneError> {
        let mut state = self.late.state.lock();
        if state.entries.len() >= LATE_MAX {
            return Ok(false);
        }
        state.count += 1;
        let id = state.count;
        state.entries.push_back((id, entry));
        Ok(true)
    }

    async fn late_count(&self) -> Result<u64, BackboneError> {
        Ok(u64::try_from(self.late.state.lock().entries.len()).unwrap_or(u64::MAX))
    }

    async fn read_late(&self, limit: u32) -> Result<Vec<(LateId, Bytes)>, BackboneError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let state = self.late.state.lock();
        Ok(state.entries.iter().take(limit).map(|(id, entry)| (LateId(id.to_string()), entry.clone())).collect())
    }

    async fn drop_late(&self, ids: &[LateId]) -> Result<(), BackboneError> {
        let mut state = self.late.state.lock();
        state.entries.retain(|(id, _)| !ids.iter().any(|LateId(gone)| *gone == id.to_string()));
        Ok(())
    }

    /// There is no other node.
    async fn lease_late(&self, _lease_ms: u32) -> Result<bool, BackboneError> {
        Ok(true)
    }
}

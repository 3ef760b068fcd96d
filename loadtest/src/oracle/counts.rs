//! The unread counts that devices hold when traffic rests, beside those of the store.

use super::evidence::{DeviceEvidence, Evidence};
use super::verdict::{Verdict, ViolationKind};
use crate::client::{HeldCounts, UnreadCounts};

/// Each device holds the counts of the store, and their sum.
pub(super) fn check_counts(evidence: &Evidence, verdict: &mut Verdict) {
    let nothing = UnreadCounts::new();
    for device in &evidence.devices {
        let stored = evidence.unread.get(&device.user).unwrap_or(&nothing);
        verdict.counts.unread_stored += stored.values().sum::<u64>();
        if holds(&device.log.unread, stored) {
            verdict.counts.right_counts += 1;
        } else {
            verdict.fault(ViolationKind::WrongCount, || differences(device, stored));
        }
    }
}

/// Whether a device holds exactly these counts.
pub(super) fn holds(held: &HeldCounts, stored: &UnreadCounts) -> bool {
    held.unread() == stored && held.total() == stored.values().sum::<u64>()
}

/// The counts that differ, for people.
fn differences(device: &DeviceEvidence, stored: &UnreadCounts) -> String {
    let held = &device.log.unread;
    let all = held.unread().keys().chain(stored.keys().filter(|id| !held.unread().contains_key(*id)));
    let count = |of: &UnreadCounts, id| of.get(id).copied().unwrap_or(0);
    let differences = all
        .map(|id| (id, count(held.unread(), id), count(stored, id)))
        .filter(|(_, held, stored)| held != stored)
        .map(|(id, held, stored)| format!("{id}: {held}, not {stored}; "));
    let (total, sum) = (held.total(), stored.values().sum::<u64>());
    format!(
        "{} (device {}) holds {}total {total}, of {sum}",
        device.user,
        device.number,
        differences.collect::<String>()
    )
}

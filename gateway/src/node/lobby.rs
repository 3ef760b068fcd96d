//! Sockets without a user yet. Each has a deadline for its `auth` frame, and those of one address are counted.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use shared::CloseCode;

use crate::clock::coarse_s;
use crate::delivery::send_queue::SendQueue;
use crate::limits::AddressKey;

/// Sockets that haven't authenticated yet.
#[derive(Debug)]
pub struct Lobby {
    waiting: Seats,
    deadline_s: u32,
}

type Seats = Arc<Mutex<SeatsTaken>>;

#[derive(Debug, Default)]
struct SeatsTaken {
    /// Queues by connection, with the coarse second of their deadline.
    queues: HashMap<u64, (Arc<SendQueue>, u32)>,
    /// How many are of one address; one with none isn't here.
    by_address: HashMap<AddressKey, usize>,
}

/// A place in the lobby, given up when dropped.
#[derive(Debug)]
pub struct Seat {
    connection: u64,
    from: AddressKey,
    waiting: Seats,
}

impl Lobby {
    /// A lobby where one may sit for `deadline_s` seconds.
    #[must_use]
    pub fn new(deadline_s: u32) -> Self {
        Self { waiting: Arc::default(), deadline_s }
    }

    /// Takes a seat.
    #[must_use]
    pub fn sit(&self, connection: u64, queue: &Arc<SendQueue>, from: AddressKey) -> Seat {
        let until_s = coarse_s() + self.deadline_s;
        let mut waiting = self.waiting.lock();
        waiting.queues.insert(connection, (Arc::clone(queue), until_s));
        *waiting.by_address.entry(from).or_insert(0) += 1;
        Seat { connection, from, waiting: Arc::clone(&self.waiting) }
    }

    /// How many sockets of this address sit here.
    #[must_use]
    pub fn waiting_from(&self, from: AddressKey) -> usize {
        self.waiting.lock().by_address.get(&from).copied().unwrap_or_default()
    }

    /// Closes the sockets whose time is up; returns how many.
    pub fn sweep(&self) -> usize {
        let now_s = coarse_s();
        let waiting = self.waiting.lock();
        let late = waiting.queues.values().filter(|(_, until_s)| now_s >= *until_s);
        late.map(|(queue, _)| queue.close(CloseCode::AuthTimeout)).count()
    }

    /// Closes everybody.
    pub fn close_all(&self, code: CloseCode) {
        self.waiting.lock().queues.values().for_each(|(queue, _)| queue.close(code));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        waiting.queues.remove(&self.connection);
        if let Some(own) = waiting.by_address.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                waiting.by_address.remove(&self.from);
            }
        }
    }
}

//! Sockets without a user yet. Each has a deadline for its `auth` frame.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use shared::CloseCode;

use crate::clock::coarse_s;
use crate::delivery::send_queue::SendQueue;

/// Sockets that haven't authenticated yet.
#[derive(Debug)]
pub struct Lobby {
    waiting: Seats,
    deadline_s: u32,
}

/// Queues by connection, with the coarse second of their deadline.
type Seats = Arc<Mutex<HashMap<u64, (Arc<SendQueue>, u32)>>>;

/// A place in the lobby, given up when dropped.
#[derive(Debug)]
pub struct Seat {
    connection: u64,
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
    pub fn sit(&self, connection: u64, queue: &Arc<SendQueue>) -> Seat {
        let until_s = coarse_s() + self.deadline_s;
        self.waiting.lock().insert(connection, (Arc::clone(queue), until_s));
        Seat { connection, waiting: Arc::clone(&self.waiting) }
    }

    /// Closes the sockets whose time is up; returns how many.
    pub fn sweep(&self) -> usize {
        let now_s = coarse_s();
        let waiting = self.waiting.lock();
        let late = waiting.values().filter(|(_, until_s)| now_s >= *until_s);
        late.map(|(queue, _)| queue.close(CloseCode::AuthTimeout)).count()
    }

    /// Closes everybody.
    pub fn close_all(&self, code: CloseCode) {
        self.waiting.lock().values().for_each(|(queue, _)| queue.close(code));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.connection);
    }
}

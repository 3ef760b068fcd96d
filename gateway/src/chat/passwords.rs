//! Passwords of conversations: hashed with Argon2id, off the threads that serve sockets, and never more of them than one core
//! can take. Guessing has a rate for each user and conversation.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use shared::{ConversationId, ErrorCode, ProtocolError, UserId};
use tokio::sync::Semaphore;

use crate::clock::now_us;
use crate::limits::{Rate, Slots};
use crate::overload::{HEAD_WAIT_MAX, Kind, Queue};

/// Hashes computed at the same time; each takes 19 MiB and some 20 ms of a core.
static HASHING: Semaphore = Semaphore::const_new(1);
/// Hashes that may be computed or wait for it: the last of them waits less than a second.
const HASHES_MAX: usize = 32;
static PLACES: Semaphore = Semaphore::const_new(HASHES_MAX);
static QUEUE: LazyLock<Arc<Queue>> = LazyLock::new(|| Queue::new(Kind::Passwords));
/// Attempts of one user at one conversation: five at once, and five a minute.
const ATTEMPTS: Rate = Rate::new(12_000_000, 60_000_000);

/// How often users have tried passwords, on this node.
pub(super) struct Attempts(Slots);

impl Default for Attempts {
    fn default() -> Self {
        Self(Slots::new(ATTEMPTS))
    }
}

impl Attempts {
    /// Counts an attempt.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next one.
    pub(super) fn count(&self, user: &UserId, conversation: &ConversationId) -> Result<(), ProtocolError> {
        self.0.take(&(user, conversation), now_us()).map_err(|wait_us| {
            let error = ProtocolError::new(ErrorCode::RateLimited, "too many passwords were tried; wait a little");
            error.retry_after_ms(wait_us.div_ceil(1000))
        })
    }
}

/// A hash of the password, with its salt and parameters.
pub(super) async fn hash(password: String) -> Result<String, ProtocolError> {
    off_thread(move || {
        let salt = SaltString::generate(&mut OsRng);
        hasher().hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()).map_err(|_| fault())
    })
    .await
}

/// Whether the password is the one that was hashed.
pub(super) async fn verify(password: String, hash: String) -> Result<bool, ProtocolError> {
    off_thread(move || {
        let hash = PasswordHash::new(&hash).map_err(|_| fault())?;
        Ok(hasher().verify_password(password.as_bytes(), &hash).is_ok())
    })
    .await
}

/// The parameters that OWASP's password storage page recommends for Argon2id.
fn hasher() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProtocolError> + Send + 'static,
) -> Result<T, ProtocolError> {
    let refuse = || ProtocolError::from(QUEUE.refuse());
    let _place = PLACES.try_acquire().ok().filter(|_| !QUEUE.is_late()).ok_or_else(refuse)?;
    let _waiting = QUEUE.wait(Instant::now());
    let permit = tokio::time::timeout(HEAD_WAIT_MAX, HASHING.acquire()).await.map_err(|_| refuse())?;
    let _permit = permit.map_err(|_| fault())?;
    tokio::task::spawn_blocking(work).await.map_err(|_| fault())?
}

fn fault() -> ProtocolError {
    ProtocolError::new(ErrorCode::InternalError, "the password could not be checked")
}

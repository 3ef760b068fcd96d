//! Passwords of conversations: hashed with Argon2id, off the threads that serve sockets.

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use shared::{ErrorCode, ProtocolError};
use tokio::sync::Semaphore;

/// Hashes computed at the same time; each takes 19 MiB and some 20 ms of a core.
static HASHING: Semaphore = Semaphore::const_new(2);

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
    let _permit = HASHING.acquire().await.map_err(|_| fault())?;
    tokio::task::spawn_blocking(work).await.map_err(|_| fault())?
}

fn fault() -> ProtocolError {
    ProtocolError::new(ErrorCode::InternalError, "the password could not be checked")
}

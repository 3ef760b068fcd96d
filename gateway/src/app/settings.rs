//! What a node reads besides the settings themselves, before it connects to anything: files that they name, and the parts
//! of URLs that only their users understand. A wrong setting is told as that, whatever is away.

use anyhow::Context;

use crate::auth::Authenticator;
use crate::backbone::redis::RedisBackbone;
use crate::config::Config;
use crate::store;

/// Checks what [`Config::load`] could not.
///
/// # Errors
/// Names the first setting that can't be used, and why.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    Authenticator::check(&config.auth)?;
    if let Some(url) = &config.redis_url {
        RedisBackbone::check((&**url, config.redis_ca_file.as_deref())).context("REDIS_URL can't be used")?;
    }
    store::check(&config.database_url)?;
    Ok(())
}

//! Erasure in this process.

use async_trait::async_trait;
use shared::UserId;

use super::LocalBackbone;
use crate::backbone::BackboneError;
use crate::backbone::erasure::{Erasures, naming};

#[async_trait]
impl Erasures for LocalBackbone {
    async fn cut_logs(&self, users: &[UserId], erased: &UserId) -> Result<(), BackboneError> {
        let text = naming(erased);
        let mut state = self.shared.state.lock();
        users.iter().for_each(|user| state.cut_log(user, text.as_bytes()));
        Ok(())
    }

    async fn forget_user(&self, user: &UserId) -> Result<(), BackboneError> {
        let mut state = self.shared.state.lock();
        state.forget(user);
        state.online.forget(user);
        Ok(())
    }
}

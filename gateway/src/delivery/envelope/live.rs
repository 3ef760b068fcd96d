//! Messages that are delivered before they are stored.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The event in an envelope of the type [`MESSAGE_LIVE`](crate::backbone::late::MESSAGE_LIVE).
#[must_use]
pub fn live_event(envelope: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Live<'a> {
        #[serde(borrow)]
        payload: LivePayload<'a>,
    }
    #[derive(Deserialize)]
    struct LivePayload<'a> {
        #[serde(borrow)]
        event: &'a RawValue,
    }
    serde_json::from_slice::<Live<'_>>(envelope).ok().map(|live| live.payload.event)
}

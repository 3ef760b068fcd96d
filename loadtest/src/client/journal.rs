//! The frames that the checker needs, as it needs them.

use super::wire::{Body, ServerFrame, Unread};
use crate::oracle::{Entry, Recorder, Sighting};

/// Writes down what the checker needs of a frame.
pub(super) fn write_down(recorder: &Recorder, frame: &ServerFrame) {
    let message = match &frame.body {
        Body::New(message) => Some(message),
        Body::Sent { message, duplicate, .. } if !duplicate || frame.seq.is_some() => Some(message),
        Body::Position(place) => {
            return recorder.record(Entry::Position { place: place.clone(), stands_for: frame.seq });
        }
        Body::Resync { place, .. } => {
            // A marker takes a place in the log.
            if let Some(seq) = frame.seq {
                recorder.record(Entry::Durable { seq, message: None });
            }
            return recorder.record(Entry::Resync { place: place.clone(), is_marker: frame.seq.is_some() });
        }
        Body::Unread(Unread { conversation_id, unread, total_unread }) => {
            return recorder.with(|log| log.unread.told(conversation_id, *unread, *total_unread));
        }
        Body::Sent { .. }
        | Body::AuthSuccess(_)
        | Body::AuthFailed
        | Body::Goaway { .. }
        | Body::Error { .. }
        | Body::Pong
        | Body::Other => None,
    };
    match (frame.seq, message) {
        (Some(seq), message) => recorder.record(Entry::Durable { seq, message: message.map(Sighting::from) }),
        (None, Some(message)) => recorder.record(Entry::Direct(Sighting::from(message))),
        (None, None) => {}
    }
}

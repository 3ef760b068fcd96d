//! Reads text frames into commands: JSON is parsed here, and its fields are read by the dialect.

use simd_json::tape::{Tape, Value};
use simd_json::{Buffers, prelude::*};

use super::fields::Fields;
use super::{Dialect, chat, surrogates};
use crate::command::SendMessage;
use crate::{Command, ErrorCode, ProtocolError};

/// A decoded frame: the command or what is wrong with it, and the client's `ref` as JSON text.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedFrame {
    /// The command, or the error to answer.
    pub command: Result<Command, ProtocolError>,
    /// The client's reference, for the answer.
    pub reference: Option<String>,
}

/// Reads frames into commands; keeps its buffers from one frame to the next.
pub struct Decoder {
    buffers: Buffers,
    tape: Tape<'static>,
    content_chars_max: usize,
}

impl Decoder {
    /// A decoder that allows `content_chars_max` characters of content.
    #[must_use]
    pub fn new(content_chars_max: usize) -> Self {
        Self { buffers: Buffers::new(1024), tape: Tape::null(), content_chars_max }
    }

    /// Reads one text frame of a dialect. The bytes are changed in place (escapes are resolved).
    pub fn decode_as(&mut self, dialect: Dialect, frame: &mut [u8]) -> DecodedFrame {
        match surrogates::find(frame) {
            None => self.decode_whole(dialect, frame),
            // The rest of the frame says whether it is JSON, and what its `ref` is.
            Some(mut halved) => match self.decode_whole(dialect, &mut halved.mended) {
                DecodedFrame { command: Err(error), reference } if error.code == ErrorCode::InvalidMessage => {
                    DecodedFrame { command: Err(error), reference }
                }
                DecodedFrame { reference, .. } => {
                    let reference = reference.filter(|_| halved.error.field.as_deref() != Some("ref"));
                    DecodedFrame { command: Err(halved.error), reference }
                }
            },
        }
    }

    fn decode_whole(&mut self, dialect: Dialect, frame: &mut [u8]) -> DecodedFrame {
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let decoded = match simd_json::fill_tape(frame, &mut self.buffers, &mut tape) {
            Ok(()) => self.decode_value(dialect, tape.as_value()),
            Err(_) => refused(ErrorCode::InvalidMessage, "the frame is not valid JSON"),
        };
        self.tape = tape.reset();
        decoded
    }

    /// Reads one text frame of `chat.v1`.
    pub fn decode(&mut self, frame: &mut [u8]) -> DecodedFrame {
        self.decode_as(Dialect::Chat, frame)
    }

    /// Reads the body of `message.send` alone, as it comes over REST.
    pub fn decode_send(&mut self, body: &mut [u8]) -> Result<SendMessage, ProtocolError> {
        match surrogates::find(body) {
            None => self.decode_whole_send(body),
            Some(mut halved) => match self.decode_whole_send(&mut halved.mended) {
                Err(error) if error.code == ErrorCode::InvalidMessage => Err(error),
                Ok(_) | Err(_) => Err(halved.error),
            },
        }
    }

    fn decode_whole_send(&mut self, body: &mut [u8]) -> Result<SendMessage, ProtocolError> {
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let decoded = match simd_json::fill_tape(body, &mut self.buffers, &mut tape) {
            Ok(()) => match tape.as_value().as_object() {
                Some(fields) => chat::send(&Fields::new(fields), self.content_chars_max),
                None => Err(ProtocolError::new(ErrorCode::InvalidMessage, "the body is not a JSON object")),
            },
            Err(_) => Err(ProtocolError::new(ErrorCode::InvalidMessage, "the body is not valid JSON")),
        };
        self.tape = tape.reset();
        decoded
    }

    fn decode_value(&self, dialect: Dialect, value: Value<'_, '_>) -> DecodedFrame {
        let Some(frame) = value.as_object().map(Fields::new) else {
            return refused(ErrorCode::InvalidMessage, "the frame is not a JSON object");
        };
        let reference = match frame.scalar("ref") {
            Ok(reference) => reference,
            Err(error) => return DecodedFrame { command: Err(error), reference: None },
        };
        let command = match frame.get("type").map(|kind| kind.into_string()) {
            Some(Some(kind)) => (dialect.row().decode)(kind, &frame, self.content_chars_max),
            Some(None) => Err(ProtocolError::field("type", "must be a string")),
            None => Err(ProtocolError {
                field: Some("type".into()),
                ..ProtocolError::new(ErrorCode::InvalidMessage, "the frame has no type")
            }),
        };
        DecodedFrame { command, reference }
    }
}

/// Why a JSON text can't be read that a parser refused: it holds half of a character. `None` if it doesn't, or if something
/// else is wrong with it too.
#[must_use]
pub fn half_of_a_character(json: &[u8]) -> Option<ProtocolError> {
    let halved = surrogates::find(json)?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&halved.mended).ok().map(|_| halved.error)
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("content_chars_max", &self.content_chars_max).finish_non_exhaustive()
    }
}

fn refused(code: ErrorCode, message: &'static str) -> DecodedFrame {
    DecodedFrame { command: Err(ProtocolError::new(code, message)), reference: None }
}

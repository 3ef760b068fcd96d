//! The dialect `chat.v1`: canonical frames. Decoding checks every field; encoding is [`Event::to_json`].
//!
//! [`Event::to_json`]: crate::Event::to_json

use simd_json::tape::{Object, Tape, Value};
use simd_json::{Buffers, prelude::*};

use crate::command::{
    EMOJI_BYTES_MAX, KIND_BYTES_MAX, KIND_TEXT, PASSWORD_BYTES_MAX, PRESENCE_QUERY_USERS_MAX, Resume, SendMessage,
    TEMP_ID_BYTES_MAX, Target, UserRef,
};
use crate::dialect::{channels, listings, social};
use crate::{Command, Dialect, ErrorCode, Position, ProtocolError};

/// The subprotocol that names this dialect.
pub const SUBPROTOCOL: &str = "chat.v1";

/// The longest `ref`, in bytes of JSON.
const REF_BYTES_MAX: usize = 128;
/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The longest user name, in bytes.
const USERNAME_BYTES_MAX: usize = 128;

/// A decoded frame: the command or what is wrong with it, and the client's `ref` as JSON text.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedFrame {
    /// The command, or the error to answer.
    pub command: Result<Command, ProtocolError>,
    /// What the client wants back in the answer.
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
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let decoded = match simd_json::fill_tape(body, &mut self.buffers, &mut tape) {
            Ok(()) => match tape.as_value().as_object() {
                Some(fields) => Fields(Some(fields)).send(self.content_chars_max),
                None => Err(ProtocolError::new(ErrorCode::InvalidMessage, "the body is not a JSON object")),
            },
            Err(_) => Err(ProtocolError::new(ErrorCode::InvalidMessage, "the body is not valid JSON")),
        };
        self.tape = tape.reset();
        decoded
    }

    fn decode_value(&self, dialect: Dialect, value: Value<'_, '_>) -> DecodedFrame {
        let Some(envelope) = value.as_object() else {
            return refused(ErrorCode::InvalidMessage, "the frame is not a JSON object");
        };
        let reference = match reference(&envelope) {
            Ok(reference) => reference,
            Err(error) => return DecodedFrame { command: Err(error), reference: None },
        };
        let command = match envelope.get("type").map(|kind| kind.into_string()) {
            Some(Some(kind)) => self.decode_kind(dialect, kind, envelope),
            Some(None) => Err(ProtocolError::field("type", "must be a string")),
            None => Err(ProtocolError {
                field: Some("type".into()),
                ..ProtocolError::new(ErrorCode::InvalidMessage, "the frame has no type")
            }),
        };
        DecodedFrame { command, reference }
    }

    /// Flat dialects have the fields beside the `type`.
    fn decode_kind(&self, dialect: Dialect, kind: &str, frame: Object<'_, '_>) -> Result<Command, ProtocolError> {
        match dialect {
            Dialect::Chat => self.decode_command(kind, &frame),
            Dialect::Listings => listings::decode(kind, &Fields(Some(frame)), self.content_chars_max),
            Dialect::Social => social::decode(kind, &Fields(Some(frame)), self.content_chars_max),
            Dialect::Channels => channels::decode(kind, &Fields(Some(frame)), self.content_chars_max),
        }
    }

    fn decode_command(&self, kind: &str, envelope: &Object<'_, '_>) -> Result<Command, ProtocolError> {
        let payload = Fields::of(envelope)?;
        match kind {
            "auth" => Ok(Command::Auth { token: payload.token()?, resume: payload.resume()? }),
            "ping" => Ok(Command::Ping { timestamp: payload.timestamp()? }),
            "message.send" => payload.send(self.content_chars_max).map(Command::Send),
            "message.read" => {
                Ok(Command::Read { conversation: payload.required_id("conversationId")?, up_to: payload.id("upTo")? })
            }
            "message.delivered" => Ok(Command::Delivered {
                conversation: payload.required_id("conversationId")?,
                up_to: payload.required_id("upTo")?,
            }),
            "message.edit" => Ok(Command::Edit {
                message: payload.required_id("messageId")?,
                content: payload.content(self.content_chars_max)?,
            }),
            "message.delete" => Ok(Command::Delete { message: payload.required_id("messageId")? }),
            "reaction.add" => {
                Ok(Command::ReactionAdd { message: payload.required_id("messageId")?, emoji: payload.emoji()? })
            }
            "reaction.remove" => {
                Ok(Command::ReactionRemove { message: payload.required_id("messageId")?, emoji: payload.emoji()? })
            }
            "typing" => Ok(Command::Typing {
                conversation: payload.required_id("conversationId")?,
                is_typing: payload.required_bool("isTyping")?,
            }),
            "block.add" => Ok(Command::BlockAdd(payload.user_ref()?)),
            "block.remove" => Ok(Command::BlockRemove(payload.user_ref()?)),
            "conversation.join" => Ok(Command::Join {
                conversation: payload.required_id("conversationId")?,
                password: payload.text("password", PASSWORD_BYTES_MAX)?.map(str::to_owned),
            }),
            "conversation.leave" => Ok(Command::Leave { conversation: payload.required_id("conversationId")? }),
            "presence.query" => Ok(Command::PresenceQuery { users: payload.user_ids()? }),
            _ => Err(ProtocolError {
                field: Some("type".into()),
                ..ProtocolError::new(ErrorCode::UnknownEvent, "there is no command of this type")
            }),
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("content_chars_max", &self.content_chars_max).finish_non_exhaustive()
    }
}

fn refused(code: ErrorCode, message: &'static str) -> DecodedFrame {
    DecodedFrame { command: Err(ProtocolError::new(code, message)), reference: None }
}

/// The `ref` as JSON text: a string or a number.
fn reference(envelope: &Object<'_, '_>) -> Result<Option<String>, ProtocolError> {
    let Some(value) = present(envelope.get("ref")) else { return Ok(None) };
    scalar_json(value)
        .filter(|text| text.len() <= REF_BYTES_MAX)
        .map(Some)
        .ok_or_else(|| ProtocolError::field("ref", "must be a string or a number of at most 128 bytes"))
}

/// A string or number as JSON text; `None` for everything else.
fn scalar_json(value: Value<'_, '_>) -> Option<String> {
    if let Some(text) = value.as_str() {
        return serde_json::to_string(text).ok();
    }
    if let Some(number) = value.as_u64() {
        return Some(number.to_string());
    }
    if let Some(number) = value.as_i64() {
        return Some(number.to_string());
    }
    value.as_f64().and_then(|number| serde_json::to_string(&number).ok())
}

/// `null` counts as absent.
fn present<'t, 'i>(value: Option<Value<'t, 'i>>) -> Option<Value<'t, 'i>> {
    value.filter(|value| !value.is_null())
}

/// The fields of a payload, each read with its check.
pub(crate) struct Fields<'t, 'i>(Option<Object<'t, 'i>>);

impl<'t, 'i> Fields<'t, 'i> {
    fn of(envelope: &Object<'t, 'i>) -> Result<Self, ProtocolError> {
        match present(envelope.get("payload")) {
            None => Ok(Self(None)),
            Some(payload) => payload
                .as_object()
                .map(|fields| Self(Some(fields)))
                .ok_or_else(|| ProtocolError::field("payload", "must be an object")),
        }
    }

    pub(crate) fn get(&self, field: &str) -> Option<Value<'t, 'i>> {
        present(self.0.as_ref().and_then(|fields| fields.get(field)))
    }

    /// An optional string of 1 to `bytes_max` bytes without U+0000.
    pub(crate) fn text(&self, field: &'static str, bytes_max: usize) -> Result<Option<&'i str>, ProtocolError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let text = value.into_string().ok_or_else(|| ProtocolError::field(field, "must be a string"))?;
        match text.len() {
            0 => Err(ProtocolError::field(field, "is empty")),
            length if length > bytes_max => {
                Err(ProtocolError::field(field, format_args!("is longer than {bytes_max} bytes")))
            }
            _ if text.contains('\0') => Err(ProtocolError::field(field, "holds U+0000")),
            _ => Ok(Some(text)),
        }
    }

    pub(crate) fn id<T: std::str::FromStr<Err = crate::id::InvalidId>>(
        &self,
        field: &'static str,
    ) -> Result<Option<T>, ProtocolError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| ProtocolError::field(field, "must be a string"))?;
        text.parse().map(Some).map_err(|fault| ProtocolError::field(field, fault))
    }

    pub(crate) fn required_id<T: std::str::FromStr<Err = crate::id::InvalidId>>(
        &self,
        field: &'static str,
    ) -> Result<T, ProtocolError> {
        self.id(field)?.ok_or_else(|| ProtocolError::field(field, "is required"))
    }

    pub(crate) fn required_bool(&self, field: &'static str) -> Result<bool, ProtocolError> {
        let value = self.get(field).ok_or_else(|| ProtocolError::field(field, "is required"))?;
        value.as_bool().ok_or_else(|| ProtocolError::field(field, "must be true or false"))
    }

    pub(crate) fn token(&self) -> Result<String, ProtocolError> {
        self.text("token", TOKEN_BYTES_MAX)?
            .map(str::to_owned)
            .ok_or_else(|| ProtocolError::field("token", "is required"))
    }

    fn resume(&self) -> Result<Option<Resume>, ProtocolError> {
        let Some(value) = self.get("resume") else { return Ok(None) };
        let fields = value.as_object().ok_or_else(|| ProtocolError::field("resume", "must be an object"))?;
        let epoch = fields.get("epoch").and_then(|epoch| epoch.into_string()).and_then(crate::Epoch::parse);
        let seq = fields.get("seq").and_then(|seq| seq.as_u64());
        Ok(Some(match (epoch, seq) {
            (Some(epoch), Some(seq)) => Resume::From(Position { epoch, seq }),
            _ => Resume::Invalid,
        }))
    }

    fn timestamp(&self) -> Result<Option<String>, ProtocolError> {
        let Some(value) = self.get("timestamp") else { return Ok(None) };
        scalar_json(value)
            .filter(|text| text.len() <= REF_BYTES_MAX)
            .map(Some)
            .ok_or_else(|| ProtocolError::field("timestamp", "must be a string or a number of at most 128 bytes"))
    }

    fn send(&self, content_chars_max: usize) -> Result<SendMessage, ProtocolError> {
        Ok(SendMessage {
            target: self.target()?,
            content: self.content(content_chars_max)?,
            temp_id: self.text("tempId", TEMP_ID_BYTES_MAX)?.map(str::to_owned),
            kind: self.text("kind", KIND_BYTES_MAX)?.unwrap_or(KIND_TEXT).to_owned(),
            reply_to: self.id("replyTo")?,
        })
    }

    fn target(&self) -> Result<Target, ProtocolError> {
        match (self.id("conversationId")?, self.id("to")?) {
            (Some(conversation), None) => Ok(Target::Conversation(conversation)),
            (None, Some(user)) => Ok(Target::User(user)),
            (Some(_), Some(_)) => Err(ProtocolError::field("to", "can't stand beside conversationId")),
            (None, None) => Err(ProtocolError::field("conversationId", "is required (or to)")),
        }
    }

    pub(crate) fn content(&self, chars_max: usize) -> Result<String, ProtocolError> {
        let value = self.get("content").ok_or_else(|| ProtocolError::field("content", "is required"))?;
        let text = value.as_str().ok_or_else(|| ProtocolError::field("content", "must be a string"))?;
        check_content(text, chars_max)?;
        Ok(text.to_owned())
    }

    fn emoji(&self) -> Result<String, ProtocolError> {
        let emoji = self.text("emoji", EMOJI_BYTES_MAX)?.ok_or_else(|| ProtocolError::field("emoji", "is required"))?;
        check_emoji(emoji)?;
        Ok(emoji.to_owned())
    }

    fn user_ref(&self) -> Result<UserRef, ProtocolError> {
        match (self.id("userId")?, self.text("username", USERNAME_BYTES_MAX)?) {
            (Some(user), None) => Ok(UserRef::Id(user)),
            (None, Some(name)) => Ok(UserRef::Username(name.to_owned())),
            (Some(_), Some(_)) => Err(ProtocolError::field("username", "can't stand beside userId")),
            (None, None) => Err(ProtocolError::field("userId", "is required (or username)")),
        }
    }

    fn user_ids(&self) -> Result<Vec<crate::UserId>, ProtocolError> {
        let value = self.get("userIds").ok_or_else(|| ProtocolError::field("userIds", "is required"))?;
        let list = value.as_array().ok_or_else(|| ProtocolError::field("userIds", "must be an array"))?;
        if list.len() > PRESENCE_QUERY_USERS_MAX {
            return Err(ProtocolError::field("userIds", "holds more than 500 ids"));
        }
        list.iter()
            .map(|id| {
                let text = id.as_str().ok_or_else(|| ProtocolError::field("userIds", "must hold strings"))?;
                crate::UserId::parse(text).map_err(|fault| ProtocolError::field("userIds", fault))
            })
            .collect()
    }
}

/// Checks a message's content: 1 to `chars_max` characters, no U+0000 (PostgreSQL can't hold it).
pub fn check_content(text: &str, chars_max: usize) -> Result<(), ProtocolError> {
    if text.is_empty() {
        return Err(ProtocolError::field("content", "is empty"));
    }
    if text.len() > chars_max && text.chars().count() > chars_max {
        return Err(ProtocolError::field("content", format_args!("is longer than {chars_max} characters")));
    }
    if text.contains('\0') {
        return Err(ProtocolError::field("content", "holds U+0000"));
    }
    Ok(())
}

/// Checks what somebody reacts with: 1 to 64 bytes without white space and control characters. An emoji, or an
/// application's own name for a picture.
pub fn check_emoji(text: &str) -> Result<(), ProtocolError> {
    if text.is_empty() || text.len() > EMOJI_BYTES_MAX || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(ProtocolError::field("emoji", "must have 1 to 64 bytes, without white space"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> DecodedFrame {
        Decoder::new(10).decode(&mut text.as_bytes().to_vec())
    }

    fn error(text: &str) -> (ErrorCode, Option<String>) {
        let error = decode(text).command.expect_err(text);
        (error.code, error.field.map(Into::into))
    }

    #[test]
    fn a_send_with_every_field() {
        let decoded = decode(
            r#"{"type":"message.send","ref":7,"payload":{"conversationId":"c1","content":"Hi \u00fc\n","tempId":"temp-1","kind":"image","replyTo":"12"}}"#,
        );
        assert_eq!(decoded.reference.as_deref(), Some("7"));
        let Ok(Command::Send(send)) = decoded.command else { panic!("{decoded:?}") };
        assert_eq!(send.content, "Hi ü\n");
        assert_eq!((send.temp_id.as_deref(), send.kind.as_str()), (Some("temp-1"), "image"));
        assert_eq!(send.reply_to.map(crate::MessageId::get), Some(12));
    }

    #[test]
    fn each_fault_names_its_code_and_field() {
        use ErrorCode::{InvalidMessage, UnknownEvent, ValidationError};
        let long = "x".repeat(129);
        for (frame, code, field) in [
            ("", InvalidMessage, None),
            ("nonsense", InvalidMessage, None),
            ("[]", InvalidMessage, None),
            ("{\"type\":", InvalidMessage, None),
            ("{}", InvalidMessage, Some("type")),
            (r#"{"type":7}"#, ValidationError, Some("type")),
            (r#"{"type":"nope"}"#, UnknownEvent, Some("type")),
            (r#"{"type":"typing","payload":[]}"#, ValidationError, Some("payload")),
            (r#"{"type":"typing","ref":{}}"#, ValidationError, Some("ref")),
            (r#"{"type":"typing","payload":{"isTyping":true}}"#, ValidationError, Some("conversationId")),
            (r#"{"type":"typing","payload":{"conversationId":"c","isTyping":1}}"#, ValidationError, Some("isTyping")),
            (r#"{"type":"message.send","payload":{"content":"x"}}"#, ValidationError, Some("conversationId")),
            (
                r#"{"type":"message.send","payload":{"to":"u","conversationId":"c","content":"x"}}"#,
                ValidationError,
                Some("to"),
            ),
            (r#"{"type":"message.send","payload":{"to":"a b","content":"x"}}"#, ValidationError, Some("to")),
            (r#"{"type":"message.send","payload":{"to":"u"}}"#, ValidationError, Some("content")),
            (r#"{"type":"message.send","payload":{"to":"u","content":""}}"#, ValidationError, Some("content")),
            (r#"{"type":"message.send","payload":{"to":"u","content":7}}"#, ValidationError, Some("content")),
            (
                r#"{"type":"message.send","payload":{"to":"u","content":"12345678901"}}"#,
                ValidationError,
                Some("content"),
            ),
            (r#"{"type":"message.send","payload":{"to":"u","content":"a\u0000b"}}"#, ValidationError, Some("content")),
            (
                &format!(r#"{{"type":"message.send","payload":{{"to":"u","content":"x","tempId":"{long}"}}}}"#),
                ValidationError,
                Some("tempId"),
            ),
            (r#"{"type":"message.edit","payload":{"content":"x"}}"#, ValidationError, Some("messageId")),
            (r#"{"type":"message.edit","payload":{"messageId":"7"}}"#, ValidationError, Some("content")),
            (r#"{"type":"message.delete","payload":{"messageId":"07"}}"#, ValidationError, Some("messageId")),
            (r#"{"type":"reaction.add","payload":{"messageId":"7"}}"#, ValidationError, Some("emoji")),
            (r#"{"type":"reaction.add","payload":{"messageId":"7","emoji":" "}}"#, ValidationError, Some("emoji")),
            (r#"{"type":"block.add","payload":{}}"#, ValidationError, Some("userId")),
            (r#"{"type":"presence.query","payload":{"userIds":"u"}}"#, ValidationError, Some("userIds")),
            (r#"{"type":"auth"}"#, ValidationError, Some("token")),
        ] {
            assert_eq!(error(frame), (code, field.map(str::to_owned)), "{frame}");
        }
    }

    #[test]
    fn the_ref_comes_back_even_with_an_error() {
        let decoded = decode(r#"{"type":"nope","ref":"a\"b"}"#);
        assert_eq!(decoded.reference.as_deref(), Some(r#""a\"b""#));
        let answer = crate::Event::Error(decoded.command.expect_err("unknown"));
        let text = answer.to_json_with_ref(decoded.reference.as_deref());
        let json: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(json["ref"], "a\"b");
        assert_eq!(json["payload"]["code"], "UNKNOWN_EVENT");
    }

    #[test]
    fn a_number_beyond_every_integer_is_still_json() {
        let decoded =
            decode(r#"{"type":"typing","payload":{"conversationId":"c","isTyping":true,"n":-209188205542471827456}}"#);
        assert!(decoded.command.is_ok(), "{decoded:?}");
    }

    #[test]
    fn a_resume_that_is_no_position_is_kept_as_such() {
        let decoded = decode(r#"{"type":"auth","payload":{"token":"t","resume":{"epoch":"e","seq":-1}}}"#);
        assert_eq!(decoded.command, Ok(Command::Auth { token: "t".into(), resume: Some(Resume::Invalid) }));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = Decoder::new(10).decode(&mut bytes.clone());
            let _ = Decoder::new(10).decode_send(&mut bytes.clone());
        }

        #[test]
        fn no_json_panics(
            kind in "auth|ping|message\\.send|message\\.read|message\\.edit|reaction\\.add|typing|block\\.add|presence\\.query|x",
            field in "conversationId|messageId|emoji|to|content|tempId|upTo|userIds|resume|timestamp",
            value in "null|true|-1|1e400|\"[\\x00-\\x7f]{0,5}\"|\\[[0-9,]{0,5}\\]|\\{\\}|[0-9]{1,25}",
        ) {
            let frame = format!("{{\"type\":\"{kind}\",\"ref\":{value},\"payload\":{{\"{field}\":{value}}}}}");
            let _ = Decoder::new(10).decode(&mut frame.into_bytes());
        }
    }

    #[test]
    fn ten_characters_of_four_bytes_are_ten_characters() {
        let text = "🦜".repeat(10);
        assert!(check_content(&text, 10).is_ok());
        assert!(check_content(&text, 9).is_err());
    }
}

//! The dialect `chat.v1`: canonical envelopes, whose fields stand in a `payload`. Its encoding is [`Event::to_json`].

use simd_json::prelude::*;
use simd_json::tape::{Array, Value};

use super::fields::{Fields, unknown_type};
use crate::command::{
    KIND_BYTES_MAX, KIND_TEXT, PASSWORD_BYTES_MAX, PRESENCE_QUERY_USERS_MAX, Resume, SendMessage, TEMP_ID_BYTES_MAX,
    Target, UserRef, check_kind,
};
use crate::emoji::{EMOJI_BYTES_MAX, check_emoji};
use crate::position::PLACES_MAX;
use crate::title::{TITLE_CHARS_MAX, cleaned_name};
use crate::{Command, ConversationId, Event, Place, Places, Position, ProtocolError, TempId};

/// The longest user name, in bytes: all its characters have four.
const USERNAME_BYTES_MAX: usize = 4 * TITLE_CHARS_MAX;

/// Reads a frame whose `type` is `kind`.
pub(crate) fn decode(kind: &str, frame: &Fields<'_, '_>, content_chars_max: usize) -> Result<Command, ProtocolError> {
    let payload = frame.object("payload")?;
    match kind {
        "auth" => Ok(Command::Auth { token: payload.token()?, resume: payload.resume()? }),
        "ping" => Ok(Command::Ping { timestamp: payload.scalar("timestamp")? }),
        "message.send" => send(&payload, content_chars_max).map(Command::Send),
        "message.read" => {
            Ok(Command::Read { conversation: payload.required_id("conversationId")?, up_to: payload.id("upTo")? })
        }
        "message.delivered" => Ok(Command::Delivered {
            conversation: payload.required_id("conversationId")?,
            up_to: payload.required_id("upTo")?,
        }),
        "message.edit" => Ok(Command::Edit {
            message: payload.required_id("messageId")?,
            content: payload.content(content_chars_max)?,
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
        _ => Err(unknown_type()),
    }
}

/// Reads the body of `message.send`.
pub(crate) fn send(fields: &Fields<'_, '_>, content_chars_max: usize) -> Result<SendMessage, ProtocolError> {
    Ok(SendMessage {
        target: fields.target()?,
        content: fields.content(content_chars_max)?,
        temp_id: fields.text("tempId", TEMP_ID_BYTES_MAX)?.map(TempId::from),
        kind: fields.kind()?,
        reply_to: fields.id("replyTo")?,
        data: fields.data()?,
    })
}

/// The envelope of an event, with its `seq` in front if it is durable.
pub(crate) fn encode(event: &Event, seq: Option<u64>) -> String {
    let text = event.to_json();
    match (seq, text.strip_prefix('{')) {
        (Some(seq), Some(rest)) => format!("{{\"seq\":{seq},{rest}"),
        _ => text,
    }
}

/// The places in large conversations that a client names: `{<id>: [rev, seq]}`. Names that are no ids are left out.
fn places(value: Option<Value<'_, '_>>) -> Option<Places> {
    let Some(object) = value?.as_object() else { return Some(Places::new()) };
    let number = |pair: &Array<'_, '_>, place: usize| pair.get(place).and_then(|number| number.as_u64());
    let named = object.iter().filter_map(|(id, value)| {
        let pair = value.as_array();
        let place = pair.and_then(|pair| Some(Place { rev: number(&pair, 0)?, seq: number(&pair, 1)? }));
        Some((ConversationId::parse(id).ok()?, place))
    });
    Some(named.take(PLACES_MAX).collect())
}

impl Fields<'_, '_> {
    fn resume(&self) -> Result<Option<Resume>, ProtocolError> {
        let Some(value) = self.get("resume") else { return Ok(None) };
        let fields = value.as_object().ok_or_else(|| ProtocolError::field("resume", "must be an object"))?;
        let epoch = fields.get("epoch").and_then(|epoch| epoch.into_string()).and_then(crate::Epoch::parse);
        let seq = fields.get("seq").and_then(|seq| seq.as_u64());
        Ok(Some(match (epoch, seq) {
            (Some(epoch), Some(seq)) => Resume::From(Position { epoch, seq }, places(fields.get("conversations"))),
            _ => Resume::Invalid,
        }))
    }

    fn target(&self) -> Result<Target, ProtocolError> {
        match (self.id("conversationId")?, self.id("to")?) {
            (Some(conversation), None) => Ok(Target::Conversation(conversation)),
            (None, Some(user)) => Ok(Target::User(user)),
            (Some(_), Some(_)) => Err(ProtocolError::field("to", "can't stand beside conversationId")),
            (None, None) => Err(ProtocolError::field("conversationId", "is required (or to)")),
        }
    }

    fn kind(&self) -> Result<String, ProtocolError> {
        let kind = self.text("kind", KIND_BYTES_MAX)?.unwrap_or(KIND_TEXT);
        check_kind(kind)?;
        Ok(kind.to_owned())
    }

    fn emoji(&self) -> Result<String, ProtocolError> {
        let emoji = self.text("emoji", EMOJI_BYTES_MAX)?.ok_or_else(|| ProtocolError::field("emoji", "is required"))?;
        check_emoji(emoji)?;
        Ok(emoji.to_owned())
    }

    fn user_ref(&self) -> Result<UserRef, ProtocolError> {
        match (self.id("userId")?, self.text("username", USERNAME_BYTES_MAX)?) {
            (Some(user), None) => Ok(UserRef::Id(user)),
            // As it was cleaned when it came with its user.
            (None, Some(name)) if name.chars().count() <= TITLE_CHARS_MAX => match cleaned_name(name) {
                Some(name) => Ok(UserRef::Username(name)),
                None => Err(ProtocolError::field("username", "is empty")),
            },
            (None, Some(_)) => Err(ProtocolError::field("username", "is longer than 200 characters")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{DecodedFrame, Decoder};
    use crate::{ErrorCode, MessageData};

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
            r#"{"type":"message.send","ref":7,"payload":{"conversationId":"c1","content":"Hi \u00fc\n","tempId":"temp-1","kind":"image","replyTo":"12","data":{ "a": [1] }}}"#,
        );
        assert_eq!(decoded.reference.as_deref(), Some("7"));
        let Ok(Command::Send(send)) = decoded.command else { panic!("{decoded:?}") };
        assert_eq!(send.content, "Hi ü\n");
        assert_eq!((send.temp_id.as_deref(), send.kind.as_str()), (Some("temp-1"), "image"));
        assert_eq!(send.reply_to.map(crate::MessageId::get), Some(12));
        assert_eq!(send.data.as_ref().map(MessageData::as_str), Some(r#"{"a":[1]}"#));
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
            (r#"{"type":"reaction.remove","payload":{"messageId":"7","emoji":"<b>"}}"#, ValidationError, Some("emoji")),
            (
                r#"{"type":"message.send","payload":{"to":"u","content":"x","kind":"Image"}}"#,
                ValidationError,
                Some("kind"),
            ),
            (r#"{"type":"message.send","payload":{"to":"u","content":"x","kind":""}}"#, ValidationError, Some("kind")),
            (r#"{"type":"message.send","payload":{"to":"u","content":"x","kind":7}}"#, ValidationError, Some("kind")),
            (r#"{"type":"message.send","payload":{"to":"u","content":"x","data":[]}}"#, ValidationError, Some("data")),
            (
                r#"{"type":"message.send","payload":{"to":"u","content":"x","data":{"mentions":[""]}}}"#,
                ValidationError,
                Some("data"),
            ),
            (r#"{"type":"block.add","payload":{}}"#, ValidationError, Some("userId")),
            (r#"{"type":"presence.query","payload":{"userIds":"u"}}"#, ValidationError, Some("userIds")),
            (r#"{"type":"auth"}"#, ValidationError, Some("token")),
        ] {
            assert_eq!(error(frame), (code, field.map(str::to_owned)), "{frame}");
        }
    }

    #[test]
    fn a_user_is_named_as_the_name_is_kept() {
        let block = |name: &str| {
            let payload = serde_json::json!({ "username": name });
            decode(&serde_json::json!({ "type": "block.add", "payload": payload }).to_string()).command
        };
        let longest = "🦜".repeat(200);
        for (name, kept) in [("An\u{202e}n", "Ann"), ("A\nnn", "Ann"), (&longest, &longest)] {
            assert_eq!(block(name), Ok(Command::BlockAdd(UserRef::Username(kept.to_owned()))), "{name:?}");
        }
        for bad in ["", "\u{202e}", &format!("{longest}x")] {
            assert!(block(bad).is_err_and(|error| error.field.as_deref() == Some("username")), "{bad:?}");
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
    fn places_are_read_from_a_resume() {
        let read = |conversations: &str| {
            let frame = format!(
                r#"{{"type":"auth","payload":{{"token":"t","resume":{{"epoch":"e","seq":1{conversations}}}}}}}"#
            );
            match decode(&frame).command {
                Ok(Command::Auth { resume: Some(Resume::From(_, places)), .. }) => places,
                other => panic!("{other:?}"),
            }
        };
        let named = |text: &str, place| (ConversationId::parse(text).expect("an id"), place);
        assert_eq!(read(""), None);
        assert_eq!(read(r#","conversations":{}"#), Some(Places::new()));
        assert_eq!(read(r#","conversations":7"#), Some(Places::new()));
        let places = read(r#","conversations":{"g":[12,7],"h":["x",1],"a b":[1,1]}"#);
        let expected = [named("g", Some(Place { rev: 12, seq: 7 })), named("h", None)];
        assert_eq!(places, Some(expected.into()));
        let many: Vec<String> = (0..200).map(|n| format!(r#""c{n}":[1,1]"#)).collect();
        let places = read(&format!(r#","conversations":{{{}}}"#, many.join(",")));
        assert_eq!(places.map(|places| places.len()), Some(PLACES_MAX));
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
}

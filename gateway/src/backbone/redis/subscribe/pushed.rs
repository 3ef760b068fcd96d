//! Parses pushed messages, nearly everything that a subscribing connection receives, in place in the buffer. Other
//! replies, and pushes that are incomplete, are left to the crate's parser.

/// A message on a channel.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::backbone::redis) struct Message<'a> {
    pub(in crate::backbone::redis) channel: &'a [u8],
    pub(in crate::backbone::redis) payload: &'a [u8],
    /// The rest of the buffer.
    pub(in crate::backbone::redis) rest: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message with which `bytes` begin, if they begin with a whole one.
    pub(in crate::backbone::redis) fn first(bytes: &'a [u8]) -> Option<Self> {
        let push = bytes.strip_prefix(b">3\r\n")?;
        let rest = push.strip_prefix(b"$7\r\nmessage\r\n").or_else(|| push.strip_prefix(b"$8\r\nsmessage\r\n"))?;
        let (channel, rest) = bulk(rest)?;
        let (payload, rest) = bulk(rest)?;
        Some(Self { channel, payload, rest })
    }
}

/// The string with which `bytes` begin, and what stands behind it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    /// Of a length; Redis keeps no string of ten digits.
    const DIGITS_MAX: usize = 9;
    let bytes = bytes.strip_prefix(b"$")?;
    let digits = bytes.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    let (length, bytes) = bytes.split_at_checked(digits).filter(|_| (1..=DIGITS_MAX).contains(&digits))?;
    let length = length.iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    let (string, rest) = bytes.strip_prefix(b"\r\n")?.split_at_checked(length)?;
    Some((string, rest.strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use redis::{PushKind, Value, ValueCodec};
    use tokio_util::codec::Decoder;

    use super::*;

    #[test]
    fn a_message_is_read_where_it_stands() {
        for kind in ["$7\r\nmessage", "$8\r\nsmessage"] {
            let text = format!(">3\r\n{kind}\r\n$3\r\na\r\n\r\n$0\r\n\r\n>");
            let message = Message { channel: b"a\r\n", payload: b"", rest: b">" };
            assert_eq!(Message::first(text.as_bytes()), Some(message));
            for end in 0..text.len() - 1 {
                assert_eq!(Message::first(&text.as_bytes()[..end]), None, "{end}");
            }
        }
    }

    #[test]
    fn everything_else_is_left_to_the_crate() {
        for text in [
            "+OK\r\n",
            ">4\r\n$8\r\npmessage\r\n$1\r\na\r\n$1\r\na\r\n$1\r\nb\r\n",
            ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
            ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n:1\r\n",
            ">3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\nb\r\n",
            ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$\r\n",
            ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$99999999999999999999\r\nb\r\n",
            ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nbb\r\n",
        ] {
            assert_eq!(Message::first(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest::proptest! {
        /// It and the crate agree on each message, and on its end.
        #[test]
        fn it_reads_as_the_crate_does(
            parts in proptest::collection::vec(r"[>$:][0-9]{1,2}|\r\n|message|smessage|[a-z]{0,3}", 0..12),
            kind in r"(>3\r\n\$(7\r\nmessage|8\r\nsmessage)\r\n\$1\r\na\r\n\$0?[0-3]\r\n)?",
        ) {
            let text = format!("{kind}{}", parts.concat());
            if let Some(message) = Message::first(text.as_bytes()) {
                let mut buffer = BytesMut::from(text.as_bytes());
                let value = ValueCodec::default().decode(&mut buffer).expect("no fault").expect("a whole value");
                let data = vec![Value::BulkString(message.channel.to_vec()), Value::BulkString(message.payload.to_vec())];
                let kind = if text.starts_with(">3\r\n$8") { PushKind::SMessage } else { PushKind::Message };
                proptest::prop_assert_eq!(value, Value::Push { kind, data });
                proptest::prop_assert_eq!(&buffer[..], message.rest);
            }
        }
    }
}

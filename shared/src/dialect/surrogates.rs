//! Halves of characters in JSON: an escape like `\ud83d` without its other half. Programs that cut text by UTF-16 units
//! send them. Such JSON is no text, and parsers refuse it as a whole; here the field at fault is found.

use std::borrow::Cow;
use std::ops::Range;

use crate::{ErrorCode, ProtocolError};

/// The field of chat.v1 in which the other fields stand.
const PAYLOAD: &[u8] = b"payload";

/// A JSON text with halves of characters.
pub(crate) struct Halved {
    /// The same text, with U+FFFD for each half.
    pub(crate) mended: Vec<u8>,
    /// The answer, which names the field of the first half where its name can be told.
    pub(crate) error: ProtocolError,
}

/// Finds halves of characters in a text that may be JSON; `None` if it has none. It recognises strings and levels, and
/// leaves all else to a parser.
pub(crate) fn find(text: &[u8]) -> Option<Halved> {
    // Most texts have no escape, and most of the others none of half a character.
    memchr::memchr_iter(b'\\', text).find(|at| matches!(text.get(at + 1..at + 3), Some([b'u', b'd' | b'D'])))?;
    let mut scan = Scan { text, at: 0, depth: 0, keys: [0..0, 0..0], halves: Vec::new(), field: None };
    scan.run();
    let field = scan.field?;
    let mut mended = text.to_vec();
    for half in &scan.halves {
        if let Some(escape) = mended.get_mut(*half..*half + 6) {
            escape.copy_from_slice(br"\ufffd");
        }
    }
    Some(Halved { mended, error: error(field) })
}

fn error(field: Option<&str>) -> ProtocolError {
    let message = format!("{} holds half of a character (a lone surrogate)", field.unwrap_or("a name"));
    let field = field.map(|field| Cow::Owned(field.to_owned()));
    ProtocolError { field, ..ProtocolError::new(ErrorCode::ValidationError, message) }
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    depth: usize,
    /// The last string that can be a key, at the first level and at the second.
    keys: [Range<usize>; 2],
    /// Where the escapes of halves stand.
    halves: Vec<usize>,
    /// The field of the first half, once one was found.
    field: Option<Option<&'t str>>,
}

impl<'t> Scan<'t> {
    fn run(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b'"' => self.string(),
                _ => {}
            }
        }
    }

    /// Reads a string, of which the first quote was taken.
    fn string(&mut self) {
        let (start, halves) = (self.at, self.halves.len());
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => break,
                b'\\' => self.escape(),
                _ => self.at += 1,
            }
        }
        let end = self.at;
        self.at += 1;
        let behind = self.text.get(self.at..).unwrap_or_default();
        let is_key = behind.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        if self.halves.len() > halves && self.field.is_none() {
            self.field = Some(if is_key { None } else { self.name() });
        }
        if is_key && let Some(key) = self.depth.checked_sub(1).and_then(|level| self.keys.get_mut(level)) {
            *key = start..end;
        }
    }

    /// Passes over an escape, or over the two of a pair; notes one of half a character.
    fn escape(&mut self) {
        let length = match (self.unit(self.at), self.unit(self.at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                self.halves.push(self.at);
                6
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        self.at += length;
    }

    /// The UTF-16 unit whose escape stands here.
    fn unit(&self, at: usize) -> Option<u16> {
        let digits = self.text.get(at..at + 6)?.strip_prefix(br"\u")?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u16::from_str_radix(digits, 16).ok()
    }

    /// The name of the field that is being read: of a frame's `payload` the field in it.
    fn name(&self) -> Option<&'t str> {
        let [first, second] = &self.keys;
        let key = |range: &Range<usize>| self.text.get(range.clone()).filter(|key| !key.is_empty());
        let first = key(first)?;
        let name = if first == PAYLOAD && self.depth > 1 { key(second)? } else { first };
        std::str::from_utf8(name).ok().filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(Option<String>, String)> {
        let Halved { mended, error } = find(text.as_bytes())?;
        Some((error.field.map(Cow::into_owned), String::from_utf8(mended).expect("text")))
    }

    #[test]
    fn the_field_of_the_first_half_is_named() {
        for (text, field, mended) in [
            (r#"{"a":"x\ud83d"}"#, Some("a"), r#"{"a":"x\ufffd"}"#),
            (r#"{"a":"\uDE00\ud83D\uDe00\ud83dx"}"#, Some("a"), r#"{"a":"\ufffd\ud83D\uDe00\ufffdx"}"#),
            (
                r#"{"t":"\\","payload" : {"b":{"c":["\ud83d\ud83d"]}}}"#,
                Some("b"),
                r#"{"t":"\\","payload" : {"b":{"c":["\ufffd\ufffd"]}}}"#,
            ),
            (r#"{"b":{"c":"\ud83d\n"},"d":"\udc00"}"#, Some("b"), r#"{"b":{"c":"\ufffd\n"},"d":"\ufffd"}"#),
            (r#"{"payload":"\ud83d"}"#, Some("payload"), r#"{"payload":"\ufffd"}"#),
            (r#"{"\ud83d":1}"#, None, r#"{"\ufffd":1}"#),
            (r#"["\ud83d"]"#, None, r#"["\ufffd"]"#),
        ] {
            assert_eq!(found(text), Some((field.map(str::to_owned), mended.to_owned())), "{text}");
        }
    }

    #[test]
    fn whole_characters_are_left_alone() {
        for text in [
            "",
            r#"{"a":"😀\n"}"#,
            r#"{"a":"\ud83d\ude00"}"#,
            r#"{"a":"\\ud83d"}"#,
            r#"{"a":"\\\\ud83d"}"#,
            r#"{"a":"\ud7ff"}"#,
            r#"{"a":"\ud83"#,
            r"\",
            r#""\"#,
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    proptest::proptest! {
        /// What parses is left alone, and what is mended parses if nothing else is wrong with it.
        #[test]
        fn what_is_mended_is_text(parts in proptest::collection::vec(r#"\\u[dD][89a-fA-F0][0-9a-f]{2}|\\[n"\\]|x|ü|\\u00e4"#, 0..8)) {
            let text = format!(r#"{{"a":"{}"}}"#, parts.concat());
            let parses = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).is_ok();
            match find(text.as_bytes()) {
                None => proptest::prop_assert!(parses(text.as_bytes()), "{}", text),
                Some(halved) => proptest::prop_assert!(!parses(text.as_bytes()) && parses(&halved.mended), "{}", text),
            }
        }
    }
}

//! Recognises JSON objects as programs write them: without white space, and not too deep. It answers "valid" or "unknown",
//! and serde decides the unknown ones. Parsing with serde used to be most of a node's work per event.

/// Objects and arrays inside of each other that it follows.
const DEPTH_MAX: u32 = 64;

/// Objects and arrays inside of each other that are passed on. Parsers have such a limit too: serde's is this one, and what
/// backends publish over REST is held to that.
const LEVELS_MAX: u32 = 128;

/// Whether strings may hold all of these bytes as they are, but for quotes and backslashes: UTF-8 without controls.
pub(super) fn is_plain(text: &[u8]) -> bool {
    let is_ascii = !any(text, |byte| byte.wrapping_sub(0x20) >= 0x60);
    is_ascii || (!any(text, |byte| byte < 0x20) && std::str::from_utf8(text).is_ok())
}

/// Without an early end, which would keep it from looking at many bytes at once.
fn any(text: &[u8], is: impl Fn(u8) -> bool) -> bool {
    text.iter().fold(false, |any, byte| any | is(*byte))
}

/// Whether objects and arrays stand inside of each other at most [`LEVELS_MAX`] times in a text that may be JSON. It counts,
/// so that no depth can exhaust the stack.
pub(super) fn is_shallow(text: &[u8]) -> bool {
    let (mut rest, mut depth) = (text, 0u32);
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'"' => match behind_string(behind) {
                Some(behind) => rest = behind,
                // It is no JSON, as serde will find.
                None => return true,
            },
            b'{' | b'[' if depth == LEVELS_MAX => return false,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// What stands behind the object with which a plain text begins; `None` if it doesn't certainly begin with one.
pub(super) fn behind_object(text: &[u8]) -> Option<&[u8]> {
    if text.first() != Some(&b'{') {
        return None;
    }
    let mut rest = text;
    // What is open, innermost last: a bit each, set for an array.
    let (mut open, mut depth): (u64, u32) = (0, 0);
    loop {
        let (first, behind) = rest.split_first()?;
        rest = match first {
            b'{' | b'[' if depth == DEPTH_MAX => return None,
            b'{' => {
                (open, depth) = (open << 1, depth + 1);
                if behind.first() != Some(&b'}') {
                    rest = behind_key(behind)?;
                    continue;
                }
                behind
            }
            b'[' => {
                (open, depth) = (open << 1 | 1, depth + 1);
                if behind.first() != Some(&b']') {
                    rest = behind;
                    continue;
                }
                behind
            }
            b'"' => behind_string(behind)?,
            b'-' => behind_integer(behind)?,
            b'0'..=b'9' => behind_integer(rest)?,
            b't' => behind.strip_prefix(b"rue")?,
            b'f' => behind.strip_prefix(b"alse")?,
            b'n' => behind.strip_prefix(b"ull")?,
            _ => return None,
        };
        // The ends of what ends with this value, then what comes before the next one.
        loop {
            if depth == 0 {
                return Some(rest);
            }
            let (first, behind) = rest.split_first()?;
            let in_array = open & 1 == 1;
            rest = behind;
            match (first, in_array) {
                (b'}', false) | (b']', true) => (open, depth) = (open >> 1, depth - 1),
                (b',', false) => {
                    rest = behind_key(rest)?;
                    break;
                }
                (b',', true) => break,
                _ => return None,
            }
        }
    }
}

fn behind_key(text: &[u8]) -> Option<&[u8]> {
    behind_string(text.strip_prefix(b"\"")?)?.strip_prefix(b":")
}

/// Behind the quote that ends a string, of which the first one was taken.
pub(super) fn behind_string(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        let end = quote_or_backslash(text)?;
        let (special, behind) = text.get(end..)?.split_first()?;
        if *special == b'"' {
            return Some(behind);
        }
        let (escaped, behind) = behind.split_first()?;
        text = match escaped {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => behind,
            b'u' => {
                let (digits, behind) = behind.split_first_chunk::<4>()?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(behind)?
            }
            _ => return None,
        };
    }
}

/// The place of the first quote or backslash. Most strings are too short for the vectors of `memchr`.
fn quote_or_backslash(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, rest) = text.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = has_zero(word ^ (ONES * u64::from(b'"'))) | has_zero(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            // Below the first zero there is no false one.
            return usize::try_from(found.trailing_zeros() / 8).ok().map(|byte| place * 8 + byte);
        }
    }
    let place = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(text.len() - rest.len() + place)
}

/// Behind an integer; other numbers are left to serde.
fn behind_integer(text: &[u8]) -> Option<&[u8]> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (integer, behind) = text.split_at_checked(digits)?;
    let is_written = digits == 1 || (digits > 1 && integer.first() != Some(&b'0'));
    let goes_on = matches!(behind.first(), Some(b'.' | b'e' | b'E'));
    (is_written && !goes_on).then_some(behind)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    /// The length of the object that `text` begins with, if that is certain.
    fn known(text: &str) -> Option<usize> {
        behind_object(text.as_bytes()).filter(|_| is_plain(text.as_bytes())).map(|rest| text.len() - rest.len())
    }

    #[test]
    fn objects_as_programs_write_them_are_known() {
        for text in [
            r#"{}"#,
            r#"{"a":{},"b":[],"c":[[],{}],"d":[1,-2,{"e":"f"}],"g":true,"h":false,"i":null}"#,
            r#"{"a long key with \"quotes\"":"\\\/\b\f\n\r\t\u00fc, ü and 🦜","x":0}"#,
        ] {
            assert_eq!(known(text), Some(text.len()), "{text}");
            assert_eq!(known(&format!("{text}}} and more")), Some(text.len()), "{text}");
        }
        let deep = |depth: usize| format!("{}{}", "{\"a\":".repeat(depth - 1) + "{", "}".repeat(depth));
        assert_eq!((known(&deep(64)).is_some(), known(&deep(65))), (true, None));
    }

    #[test]
    fn what_is_too_deep_is_found_without_a_stack() {
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        for (text, shallow) in [
            (deep(128), true),
            (deep(129), false),
            (deep(100_000), false),
            ("{\"a\":".repeat(100_000), false),
            (format!(r#"{{"a":"{}"}}"#, deep(1_000)), true),
            (format!(r#"{{"a":"\"{}"}}"#, deep(1_000)), true),
            ("[]".repeat(1_000), true),
        ] {
            assert_eq!(is_shallow(text.as_bytes()), shallow, "{} bytes", text.len());
        }
    }

    #[test]
    fn what_is_no_object_or_is_written_otherwise_is_not_known() {
        for text in [
            "",
            "{",
            "}",
            "[]",
            "1",
            "\"",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[}]"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.5}"#,
            r#"{"a":1e9}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            r#"{"a":"}"#,
            r#"{a:1}"#,
            r#"{ }"#,
            "{\"a\":\"\n\"}",
            r#"{"a":1]"#,
            r#"{"a":[1}"#,
            r#"{"a":[,1]}"#,
            r#"{"a":1 }"#,
        ] {
            assert_eq!(known(text), None, "{text}");
        }
        assert!(!is_plain(b"{\"a\":\"\xff\"}"));
    }

    proptest::proptest! {
        /// Whatever it takes for an object, serde does too.
        #[test]
        fn it_knows_nothing_that_serde_does_not(
            parts in proptest::collection::vec(
                r#"[{}\[\],:"]|\\|"[a-z"\\]{0,9}"|"a":|\\[u"nx]|-?[0-9]{1,3}|[.e ]|true|null|ü"#, 0..14),
            open in "(\\{\"a\":)?",
        ) {
            let text = format!("{open}{}", parts.concat());
            if let Some(end) = known(&text) {
                let object = serde_json::from_str::<&RawValue>(&text[..end]);
                proptest::prop_assert!(object.is_ok_and(|object| object.get() == &text[..end]), "{}", text);
            }
        }

        #[test]
        fn quotes_and_backslashes_are_found_where_they_are(text in "[!-#\\[-\\]\\x00-\\x7f]{0,30}") {
            let expected = text.bytes().position(|byte| matches!(byte, b'"' | b'\\'));
            proptest::prop_assert_eq!(quote_or_backslash(text.as_bytes()), expected);
        }
    }
}

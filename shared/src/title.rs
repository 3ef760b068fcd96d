//! Titles of conversations and names of users: one line that looks on every screen as it was meant.

use crate::ProtocolError;

/// The longest title or name, in characters.
pub const TITLE_CHARS_MAX: usize = 200;

/// A pattern of the contract documents: no control characters, and one character that stays.
pub const TITLE_PATTERN: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*",
    r"[^\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]",
    r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
);

/// Whether the character turns the direction of the text around it, and so can make a name look like another.
fn is_bidi_override(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether the character controls a terminal or a printer, or ends a line.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A title as it is kept: without bidirectional overrides. One with control characters is refused, and so is one that has
/// not 1 to 200 characters.
pub fn checked_title(field: &'static str, text: &str) -> Result<String, ProtocolError> {
    if text.chars().any(is_control) {
        return Err(ProtocolError::field(field, "holds control characters"));
    }
    let title: String = text.chars().filter(|c| !is_bidi_override(*c)).collect();
    if title.is_empty() || title.chars().count() > TITLE_CHARS_MAX {
        return Err(ProtocolError::field(field, format_args!("must have 1 to {TITLE_CHARS_MAX} characters")));
    }
    Ok(title)
}

/// A user's name as it is kept: what a title must not have is left out, and what is too long is cut. Whoever has a name has
/// it from elsewhere and can't be refused for it. `None` if nothing is left.
#[must_use]
pub fn cleaned_name(text: &str) -> Option<String> {
    let name: String =
        text.chars().filter(|c| !is_control(*c) && !is_bidi_override(*c)).take(TITLE_CHARS_MAX).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_refused_in_titles_and_left_out_of_names() {
        for (text, title, name) in [
            ("Team ü 🦜", Some("Team ü 🦜"), Some("Team ü 🦜")),
            ("\u{202e}nimda\u{202c}", Some("nimda"), Some("nimda")),
            ("a\u{200e}\u{200f}\u{202a}\u{202b}\u{202d}\u{2066}\u{2067}\u{2068}\u{2069}b", Some("ab"), Some("ab")),
            ("two\nlines", None, Some("twolines")),
            ("two\u{2028}lines\u{2029}", None, Some("twolines")),
            ("a\u{61c}b", Some("ab"), Some("ab")),
            ("\u{1b}[31mred\u{7f}\u{85}", None, Some("[31mred")),
            ("a\0b", None, Some("ab")),
            ("", None, None),
            ("\u{202e}", None, None),
            ("\t", None, None),
        ] {
            assert_eq!(checked_title("title", text).ok().as_deref(), title, "{text:?}");
            assert_eq!(cleaned_name(text).as_deref(), name, "{text:?}");
        }
        let longest = "ü".repeat(200);
        assert_eq!(checked_title("title", &longest).as_ref(), Ok(&longest));
        assert_eq!(checked_title("title", &format!("{longest}\u{202e}")).as_ref(), Ok(&longest));
        let error = checked_title("title", &format!("{longest}x")).expect_err("too long");
        assert_eq!(error.field.as_deref(), Some("title"));
        assert_eq!(cleaned_name(&format!("{longest}x")), Some(longest));
    }
}

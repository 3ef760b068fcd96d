//! Emojis: what a user may react with. A table of Unicode's tells which characters are emojis.

use unicode_properties::UnicodeEmoji;
use unicode_properties::emoji::{is_emoji_presentation_selector, is_regional_indicator, is_tag_character, is_zwj};

use crate::ProtocolError;

/// The longest emoji of a reaction, in bytes: the longest sequences that are one picture have 35.
pub const EMOJI_BYTES_MAX: usize = 64;

/// The longest name of an application's picture, in bytes, without its colons.
const NAME_BYTES_MAX: usize = 32;

/// Checks what somebody reacts with: one emoji of Unicode's, or an application's own name for a picture, such as
/// `:party_parrot:`.
pub fn check_emoji(text: &str) -> Result<(), ProtocolError> {
    if text.len() <= EMOJI_BYTES_MAX && (is_name(text) || is_emoji(text)) {
        return Ok(());
    }
    Err(ProtocolError::field("emoji", "must be one emoji, or a name of 1 to 32 of a-z 0-9 _ + - between colons"))
}

fn is_name(text: &str) -> bool {
    let name = text.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).unwrap_or_default();
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'+' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_good)
}

/// Whether the text is one emoji by the grammar of UTS #51 §1.4.9. Each such sequence is one grapheme.
fn is_emoji(text: &str) -> bool {
    let mut chars = text.chars();
    match (chars.next(), chars.next(), chars.next(), chars.next()) {
        // A flag.
        (Some(first), Some(second), None, _) if is_regional_indicator(first) => is_regional_indicator(second),
        // A keycap.
        (Some('0'..='9' | '#' | '*'), Some('\u{fe0f}'), Some('\u{20e3}'), None)
        | (Some('0'..='9' | '#' | '*'), Some('\u{20e3}'), None, _) => true,
        _ => text.split(is_zwj).all(is_element),
    }
}

/// Whether this is a picture, perhaps with a skin tone, a presentation selector or the tags of a flag.
fn is_element(text: &str) -> bool {
    let mut chars = text.chars();
    let is_picture = |c: char| !c.is_ascii() && !is_regional_indicator(c) && c.is_emoji_char();
    if !chars.next().is_some_and(is_picture) {
        return false;
    }
    let behind = chars.as_str();
    match (chars.next(), chars.next()) {
        (None, _) => true,
        (Some(one), None) => is_emoji_presentation_selector(one) || matches!(one, '\u{1f3fb}'..='\u{1f3ff}'),
        (Some(_), Some(_)) => {
            let tags = behind.strip_suffix('\u{e007f}').unwrap_or_default();
            !tags.is_empty() && tags.chars().all(|c| is_tag_character(c) && c != '\u{e007f}')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emoji_is_one_picture_of_unicode_or_a_name_between_colons() {
        for good in [
            "👍",
            "👍🏽",
            "❤",
            "❤\u{fe0f}",
            "©",
            "ℹ️",
            "🏽",
            "🇩🇪",
            "1\u{fe0f}\u{20e3}",
            "#\u{20e3}",
            "👨‍👩‍👧‍👦",
            "👩🏿‍🚒",
            "🏳️‍🌈",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            ":+1:",
            ":party_parrot:",
            ":-1:",
            &format!(":{}:", "x".repeat(32)),
        ] {
            assert_eq!(check_emoji(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "x",
            "1",
            "#",
            "*",
            "1\u{fe0f}",
            "1👍",
            "👍👍",
            "👍 ",
            " 👍",
            "👍x",
            "👍\u{301}",
            "👍\u{fe0f}\u{fe0f}",
            "👍\u{200d}",
            "\u{200d}👍",
            "👍\u{fe0e}",
            "🇩",
            "🇩🇪🇫",
            "🇩🇪\u{200d}🇩🇪",
            "🇩x",
            "\u{fe0f}",
            "\u{20e3}",
            "ä",
            "한",
            "a\u{20e3}",
            "::",
            ":",
            ":Smile:",
            ":a b:",
            ":a",
            "a:",
            ":ä:",
            &format!(":{}:", "x".repeat(33)),
            "<b>hi</b>",
            "\u{202e}👍",
            "🏴\u{e0067}",
            "🏴\u{e007f}",
            "🏴\u{e0067}\u{e007f}\u{e007f}",
            &"👍\u{200d}".repeat(10),
            &format!("{}👍", "👍\u{200d}".repeat(9)),
        ] {
            assert!(check_emoji(bad).is_err_and(|error| error.field.as_deref() == Some("emoji")), "{bad:?}");
        }
    }
}

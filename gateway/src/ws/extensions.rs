//! The negotiation of permessage-deflate (RFC 7692 §5 and §7.1) in the opening handshake.
//!
//! Both sides compress each message by itself. The server compresses with a window of 15 bits only, because one
//! compressed form serves all sockets: an offer that asks for a smaller window is declined (§7.1.2.1).

use hyper::HeaderMap;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

const NAME: &str = "permessage-deflate";

/// The answer to an offer that doesn't limit the server's window.
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
/// The answer to an offer that limits it to 15 bits, which has to repeat the limit.
const ACCEPTED_WITH_WINDOW: HeaderValue = HeaderValue::from_static(
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
);

/// The answer to the first offer of permessage-deflate that can be accepted, for `Sec-WebSocket-Extensions`; `None` if
/// there is no such offer.
#[must_use]
pub fn accept_deflate(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| unquoted_parts(line, ',')).find_map(answer)
}

/// The answer to an offer; `None` if it is declined: another extension, a parameter that is unknown, repeated or invalid,
/// or a window that is too small.
fn answer(offer: &str) -> Option<HeaderValue> {
    let mut parts = unquoted_parts(offer, ';');
    if !parts.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let mut seen = Vec::new();
    for part in parts {
        let parameter = Parameter::parse(part)?;
        if seen.contains(&parameter) {
            return None;
        }
        seen.push(parameter);
    }
    Some(if seen.contains(&Parameter::ServerWindow) { ACCEPTED_WITH_WINDOW } else { ACCEPTED })
}

/// A parameter of an offer that can be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameter {
    /// The server is to compress each message by itself, as it does anyway.
    ServerNoContext,
    /// The client compresses each message by itself, as it is told to in any case.
    ClientNoContext,
    /// The server's window is limited to 15 bits, which is no limit.
    ServerWindow,
    /// The client's window is limited, or may be. The server inflates with 15 bits, which is enough for every window.
    ClientWindow,
}

impl Parameter {
    fn parse(part: &str) -> Option<Self> {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim())?)),
            None => (part, None),
        };
        match (name.to_ascii_lowercase().as_str(), value) {
            ("server_no_context_takeover", None) => Some(Self::ServerNoContext),
            ("client_no_context_takeover", None) => Some(Self::ClientNoContext),
            ("server_max_window_bits", Some("15")) => Some(Self::ServerWindow),
            ("client_max_window_bits", None | Some("8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")) => {
                Some(Self::ClientWindow)
            }
            _ => None,
        }
    }
}

/// The parts of a header between separators that don't stand in quotes.
fn unquoted_parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut in_quotes = false;
    let parts = text.split(move |c| {
        in_quotes ^= c == '"';
        c == separator && !in_quotes
    });
    parts.map(str::trim)
}

/// A value without its quotes, which have the same meaning as none (RFC 6455 §9.1).
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(line).expect("a header"));
        }
        accept_deflate(&headers).map(|answer| answer.to_str().expect("visible text").to_owned())
    }

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    const WINDOW: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

    #[test]
    fn an_offer_is_accepted_without_context_takeover() {
        for offer in [
            "permessage-deflate",
            " permessage-deflate ",
            "Permessage-Deflate; Server_No_Context_Takeover",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate;client_no_context_takeover;client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits = 15",
            "permessage-deflate; client_max_window_bits=\"10\"",
        ] {
            assert_eq!(answers(&[offer]).as_deref(), Some(PLAIN), "{offer}");
        }
        for offer in [
            "permessage-deflate; server_max_window_bits=15",
            "permessage-deflate; client_max_window_bits; server_max_window_bits=\"15\"; server_no_context_takeover",
        ] {
            assert_eq!(answers(&[offer]).as_deref(), Some(WINDOW), "{offer}");
        }
    }

    #[test]
    fn an_offer_with_anything_else_is_declined() {
        for offer in [
            "",
            ",",
            ";",
            "x-webkit-deflate-frame",
            "permessage-deflate2",
            "permessage-deflate;",
            "permessage-deflate; mux",
            "permessage-deflate; server_no_context_takeover=true",
            "permessage-deflate; client_no_context_takeover=",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=14",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=015",
            "permessage-deflate; server_max_window_bits=\"15",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=+9",
            "permessage-deflate; client_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=\"\"",
            "other; quoted=\"a, permessage-deflate, b\"",
        ] {
            assert_eq!(answers(&[offer]), None, "{offer}");
        }
        assert_eq!(answers(&[]), None);
    }

    #[test]
    fn of_several_offers_the_first_acceptable_one_is_taken() {
        let fallback = "permessage-deflate; server_max_window_bits=10, permessage-deflate; server_max_window_bits=15";
        assert_eq!(answers(&[fallback]).as_deref(), Some(WINDOW));
        assert_eq!(answers(&["permessage-deflate; mux, permessage-deflate"]).as_deref(), Some(PLAIN));
        assert_eq!(answers(&["mux; a=\"b, c\", permessage-deflate"]).as_deref(), Some(PLAIN));
        assert_eq!(answers(&["permessage-bzip2", "permessage-deflate"]).as_deref(), Some(PLAIN));
        assert_eq!(
            answers(&["permessage-deflate, permessage-deflate; server_max_window_bits=15"]).as_deref(),
            Some(PLAIN)
        );
    }
}

//! The credential in a request: in a header, the query, a cookie or the subprotocol.

use std::borrow::Cow;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use shared::position::PLACES_MAX;
use shared::{Place, Places};

/// The prefix of the subprotocol that carries a token.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// The cookie that holds a token.
const TOKEN_COOKIE: &str = "token";

/// A credential of a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential<'a> {
    /// A token, or a ticket in its place.
    Token(Cow<'a, str>),
    /// A ticket, and nothing else.
    Ticket(Cow<'a, str>),
    /// The value of the session cookie.
    Session(Cow<'a, str>),
}

impl<'a> Credential<'a> {
    /// The first that an upgrade carries; the others are not looked at. A cookie comes last, because a browser sends it
    /// unasked.
    #[must_use]
    pub fn of_upgrade(headers: &'a HeaderMap, query: Option<&'a str>, session_cookie: &str) -> Option<Self> {
        Self::unlike_a_cookie(headers, query).or_else(|| Self::of_cookies(headers, session_cookie))
    }

    /// Whether [`Credential::of_upgrade`] takes its result from a cookie.
    #[must_use]
    pub fn is_upgrade_by_cookie(headers: &'a HeaderMap, query: Option<&'a str>, session_cookie: &str) -> bool {
        Self::unlike_a_cookie(headers, query).is_none() && Self::of_cookies(headers, session_cookie).is_some()
    }

    fn unlike_a_cookie(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<Self> {
        let query = |name| query.and_then(|query| query_value(query, name));
        let subprotocol = || subprotocols(headers).find_map(|name| name.strip_prefix(BEARER_SUBPROTOCOL));
        (bearer(headers).map(Into::into).map(Self::Token))
            .or_else(|| query("ticket").map(Self::Ticket))
            .or_else(|| query("token").map(Self::Token))
            .or_else(|| subprotocol().map(Into::into).map(Self::Token))
    }

    /// The first that a REST request carries.
    #[must_use]
    pub fn of_request(headers: &'a HeaderMap, session_cookie: &str) -> Option<Self> {
        bearer(headers).map(Into::into).map(Self::Token).or_else(|| Self::of_cookies(headers, session_cookie))
    }

    /// Whether [`Credential::of_request`] takes its result from a cookie, which a browser sends by itself.
    #[must_use]
    pub fn is_by_cookie(headers: &HeaderMap) -> bool {
        bearer(headers).is_none()
    }

    fn of_cookies(headers: &'a HeaderMap, session_cookie: &str) -> Option<Self> {
        (cookie(headers, TOKEN_COOKIE).map(Into::into).map(Self::Token))
            .or_else(|| cookie(headers, session_cookie).map(Into::into).map(Self::Session))
    }

    /// The same, independent of the request.
    #[must_use]
    pub fn into_owned(self) -> Credential<'static> {
        match self {
            Self::Token(text) => Credential::Token(text.into_owned().into()),
            Self::Ticket(text) => Credential::Ticket(text.into_owned().into()),
            Self::Session(text) => Credential::Session(text.into_owned().into()),
        }
    }
}

impl std::fmt::Debug for Credential<'_> {
    /// Its kind, never its content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(…)",
            Self::Ticket(_) => "Ticket(…)",
            Self::Session(_) => "Session(…)",
        })
    }
}

/// The subprotocols that the client offers, without the one that carries a token.
pub fn offered_dialects(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    subprotocols(headers).filter(|name| !name.starts_with(BEARER_SUBPROTOCOL))
}

/// The token of `Authorization: Bearer`.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A cookie's value.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // Other cookies may hold any bytes: each is looked at by itself.
    let mut pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let (key, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
        (key == name && !value.is_empty()).then_some(value)
    })
}

/// A query parameter, percent-decoded.
#[must_use]
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let pair = form_urlencoded::parse(query.as_bytes()).find(|(key, value)| key == name && !value.is_empty());
    pair.map(|(_, value)| value)
}

/// The places in large conversations that a query names by `at=<id>:<rev>:<seq>`, repeated; `None` if it names none. A client
/// that knows of large conversations and is at no place says so by an empty one.
#[must_use]
pub fn places_in(query: &str) -> Option<Places> {
    let mut places = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "at").peekable();
    places.peek()?;
    Some(places.filter_map(|(_, text)| Place::named(&text)).take(PLACES_MAX).collect())
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: hyper::header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, hyper::header::HeaderValue::from_static(value))])
    }

    fn shown(headers: &HeaderMap, query: Option<&str>) -> Option<Credential<'static>> {
        Credential::of_upgrade(headers, query, "sid").map(Credential::into_owned)
    }

    fn token(text: &'static str) -> Option<Credential<'static>> {
        Some(Credential::Token(text.into()))
    }

    #[test]
    fn a_token_is_found_wherever_it_may_stand() {
        assert_eq!(shown(&headers(AUTHORIZATION, "Bearer a.b.c"), None), token("a.b.c"));
        assert_eq!(shown(&headers(AUTHORIZATION, "bearer  a"), None), token("a"));
        assert_eq!(shown(&headers(AUTHORIZATION, "Basic a"), None), None);
        assert_eq!(shown(&HeaderMap::new(), Some("x=1&token=a%2Bb")), token("a+b"));
        assert_eq!(shown(&headers(COOKIE, "x=1; token=a"), None), token("a"));
        let offered = headers(SEC_WEBSOCKET_PROTOCOL, "chat.v1, bearer.a.b-c_d");
        assert_eq!(shown(&offered, None), token("a.b-c_d"));
        assert_eq!(offered_dialects(&offered).collect::<Vec<_>>(), ["chat.v1"]);
        assert_eq!(shown(&HeaderMap::new(), Some("token=")), None);
    }

    #[test]
    fn the_first_of_several_counts() {
        let session = Some(Credential::Session("s1".into()));
        assert_eq!(shown(&headers(COOKIE, "sid=s1; sid=s2"), None), session);
        assert_eq!(shown(&headers(COOKIE, "sid=s1; token=a"), None), token("a"));
        assert_eq!(shown(&headers(COOKIE, "sid=s1"), Some("token=a")), token("a"));
        let ticket = Some(Credential::Ticket("t".into()));
        assert_eq!(shown(&HeaderMap::new(), Some("token=a&ticket=t")), ticket);
        assert_eq!(Credential::of_request(&headers(COOKIE, "x; sid=s1"), "sid"), session);
        for junk in ["", ";", "=", "sid", "sid=", "; ;=;", "sids=1"] {
            assert_eq!(shown(&headers(COOKIE, junk), None), None, "{junk}");
        }
        assert_eq!(format!("{session:?}"), "Some(Session(…))");
    }
}

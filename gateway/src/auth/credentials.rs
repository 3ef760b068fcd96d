//! Where a request carries its token: header, query, cookie or subprotocol (PROTOCOL §4).

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};

/// The prefix of the subprotocol that carries a token.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// The first token that the request carries.
#[must_use]
pub fn token<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<std::borrow::Cow<'a, str>> {
    bearer(headers)
        .map(Into::into)
        .or_else(|| query_value(query?, "token"))
        .or_else(|| cookie(headers, "token").map(Into::into))
        .or_else(|| subprotocols(headers).find_map(|name| name.strip_prefix(BEARER_SUBPROTOCOL)).map(Into::into))
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
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
}

/// A query parameter, percent-decoded.
#[must_use]
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<std::borrow::Cow<'a, str>> {
    let pair = form_urlencoded::parse(query.as_bytes()).find(|(key, value)| key == name && !value.is_empty());
    pair.map(|(_, value)| value)
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

    #[test]
    fn a_token_is_found_wherever_it_may_stand() {
        assert_eq!(token(&headers(AUTHORIZATION, "Bearer a.b.c"), None).as_deref(), Some("a.b.c"));
        assert_eq!(token(&headers(AUTHORIZATION, "bearer  a"), None).as_deref(), Some("a"));
        assert_eq!(token(&headers(AUTHORIZATION, "Basic a"), None), None);
        assert_eq!(token(&HeaderMap::new(), Some("x=1&token=a%2Bb")).as_deref(), Some("a+b"));
        assert_eq!(token(&headers(COOKIE, "x=1; token=a"), None).as_deref(), Some("a"));
        let offered = headers(SEC_WEBSOCKET_PROTOCOL, "chat.v1, bearer.a.b-c_d");
        assert_eq!(token(&offered, None).as_deref(), Some("a.b-c_d"));
        assert_eq!(offered_dialects(&offered).collect::<Vec<_>>(), ["chat.v1"]);
        assert_eq!(token(&HeaderMap::new(), Some("token=")), None);
    }
}

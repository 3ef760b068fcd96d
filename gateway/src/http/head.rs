//! Checks the head of a request before its route is chosen (RFC 9110, 9112).

use std::net::IpAddr;

use axum::response::Response;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{Request, StatusCode, Version};
use shared::{ErrorCode, ProtocolError};

use super::rest::failure::respond_as;
use crate::config::Origin;

/// The largest request head, in bytes of its target and header lines: a token of 16 KiB fits.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The answer to a request whose head is invalid.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<Response> {
    let (status, fault) = fault(request)?;
    Some(respond_as(status, &ProtocolError::new(ErrorCode::InvalidMessage, fault)))
}

fn fault<B>(request: &Request<B>) -> Option<(StatusCode, &'static str)> {
    let headers = request.headers();
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target + lines.sum::<usize>() > HEAD_BYTES_MAX {
        return Some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is larger than 32 KiB"));
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() >= Version::HTTP_11 && request.uri().host().is_none() => {
            return Some((StatusCode::BAD_REQUEST, "the header Host is missing"));
        }
        (_, Some(_)) => return Some((StatusCode::BAD_REQUEST, "there is more than one header Host")),
        (Some(host), None) if !host.as_bytes().iter().all(is_of_a_host) => {
            return Some((StatusCode::BAD_REQUEST, "the header Host holds what no name has"));
        }
        (None | Some(_), None) => {}
    }
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes).is_some_and(|length| length != b"0");
    // A list, which may stand in several headers.
    let mut offered = headers.get_all(UPGRADE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let upgrades = offered.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"));
    (upgrades && has_body).then_some((StatusCode::BAD_REQUEST, "a WebSocket upgrade has no body"))
}

/// Whether the byte may stand in the header Host (RFC 3986 §3.2.2, §3.2.3): a name, an address, a port.
fn is_of_a_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte)
}

/// The answer of `gateway dev` to a request for a name that isn't this machine's: a page of any site can have its own name
/// resolve to a loopback address, and would be given the demo users' tokens.
pub(super) fn foreign_name<B>(request: &Request<B>) -> Option<Response> {
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()))?;
    if is_loopback(host) {
        return None;
    }
    let fault = "gateway dev answers under loopback names and addresses only, like localhost or 127.0.0.1";
    Some(respond_as(StatusCode::FORBIDDEN, &ProtocolError::new(ErrorCode::Forbidden, fault)))
}

fn is_loopback(host: &str) -> bool {
    let Some(Origin { host, .. }) = Origin::parse(&format!("http://{host}")) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: Version, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().uri("/x").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        fault(&request.body(()).expect("a request")).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn only_this_machines_names_are_loopback() {
        for own in [
            "localhost",
            "localhost:8086",
            "LOCALHOST",
            "alice.localhost:1",
            "127.0.0.1:8086",
            "127.9.9.9",
            "[::1]:8086",
        ] {
            assert!(is_loopback(own), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.1",
            "[2001:db8::1]",
            "",
            ":80",
        ] {
            assert!(!is_loopback(foreign), "{foreign}");
        }
    }

    #[test]
    fn each_fault_of_a_head_has_its_status() {
        let (one, zero) = (Version::HTTP_11, Version::HTTP_10);
        assert_eq!(status(one, &[("host", "x")]), None);
        assert_eq!(status(zero, &[]), None);
        assert_eq!(status(one, &[]), Some(400));
        assert_eq!(status(one, &[("host", "x"), ("host", "x")]), Some(400));
        for host in ["", "x", "x:80", "[::1]:80", "b%C3%BCcher.example", "a_b"] {
            assert_eq!(status(one, &[("host", host)]), None, "{host}");
        }
        for host in ["a b", "u@x", "x/y", "x?y", "x#y", "bücher.example", "<x>", "x\\y", "\"x\""] {
            assert_eq!(status(one, &[("host", host)]), Some(400), "{host}");
        }
        assert_eq!(status(one, &[("host", "x"), ("cookie", &"y".repeat(33 * 1024))]), Some(431));
        let upgrade = ("upgrade", "WebSocket");
        assert_eq!(status(one, &[("host", "x"), upgrade]), None);
        assert_eq!(status(one, &[("host", "x"), upgrade, ("content-length", "0")]), None);
        assert_eq!(status(one, &[("host", "x"), upgrade, ("content-length", "1")]), Some(400));
        assert_eq!(status(one, &[("host", "x"), upgrade, ("transfer-encoding", "chunked")]), Some(400));
        for (first, second) in [("h2c, websocket", "h2c"), ("h2c", "websocket"), ("websocket,h2c", "h2c")] {
            let lists = [("host", "x"), ("upgrade", first), ("upgrade", second)];
            assert_eq!(status(one, &lists), None, "{first}");
            assert_eq!(status(one, &[&lists[..], &[("content-length", "1")]].concat()), Some(400), "{first}");
        }
        assert_eq!(status(one, &[("host", "x"), ("content-length", "1")]), None);
    }
}

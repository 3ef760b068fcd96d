//! The address of a client. Forwarding headers count only on connections of trusted proxies, because any client can
//! write them.

use std::net::{IpAddr, Ipv4Addr};

use hyper::HeaderMap;
use hyper::http::Extensions;

use crate::config::{Networks, Proxies};
use crate::limits::AddressKey;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the client that sent a request; stands in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// `http` or `https`, as a trusted proxy says of a request; stands in its extensions where one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientScheme(pub(super) &'static str);

/// The key of the client that sent a request. Without an address in its extensions it is that of no address.
#[must_use]
pub(super) fn address_key(extensions: &Extensions) -> AddressKey {
    let address = extensions.get::<ClientAddress>().map(|ClientAddress(address)| *address);
    AddressKey::of(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

impl ClientScheme {
    /// The scheme by which `peer`, if it is a trusted proxy, was asked.
    #[must_use]
    pub(super) fn of(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> Option<Self> {
        let given = headers.get("x-forwarded-proto").filter(|_| proxies.trusted.contain(peer.to_canonical()))?;
        match given.as_bytes() {
            b"https" => Some(Self("https")),
            b"http" => Some(Self("http")),
            _ => None,
        }
    }
}

impl ClientAddress {
    /// The client behind `peer`, the other end of the connection. If that is a trusted proxy, `X-Forwarded-For` is read
    /// from its end, where the proxy has put its own client. The first address that isn't trusted is the client's.
    #[must_use]
    pub fn of(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> Self {
        let mut address = peer.to_canonical();
        if proxies.trusted.contain(address) {
            address = behind(address, headers, &proxies.trusted);
        }
        Self(address)
    }
}

fn behind(proxy: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut last = proxy;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        // A name, or an invalid value: the search ends at the proxy that wrote it.
        let Ok(value) = value.to_str() else { return last };
        for hop in value.rsplit(',') {
            let Some(address) = parse(hop.trim()) else { return last };
            last = address;
            if !trusted.contain(address) {
                return last;
            }
        }
    }
    last
}

/// An address, with or without a port.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.parse::<IpAddr>().ok();
    let address = bare.or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    address.or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn client(peer: &str, forwarded: &[&'static str]) -> String {
        let trusted = Networks::parse(&["10.0.0.0/8".to_owned(), "::1".to_owned()]).expect("networks");
        let proxies = Proxies { trusted, proxy_protocol: false };
        let name = HeaderName::from_static(X_FORWARDED_FOR);
        let headers =
            HeaderMap::from_iter(forwarded.iter().map(|value| (name.clone(), HeaderValue::from_static(value))));
        ClientAddress::of(peer.parse().expect("an address"), &headers, &proxies).0.to_string()
    }

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        assert_eq!(client("192.0.2.1", &["8.8.8.8"]), "192.0.2.1", "a forged header");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["8.8.8.8"]), "8.8.8.8");
        assert_eq!(client("::ffff:10.0.0.1", &["8.8.8.8"]), "8.8.8.8");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 8.8.8.8"]), "8.8.8.8", "the client wrote the first");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 8.8.8.8, 10.0.0.2"]), "8.8.8.8");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "8.8.8.8", "10.0.0.2,10.0.0.3"]), "8.8.8.8", "several headers");
        assert_eq!(client("10.0.0.1", &["10.0.0.9, 10.0.0.2"]), "10.0.0.9", "a client inside");
        assert_eq!(client("10.0.0.1", &["8.8.8.8:4711"]), "8.8.8.8");
        assert_eq!(client("::1", &["[2001:db8::5]:4711"]), "2001:db8::5");
        assert_eq!(client("::1", &["[2001:db8::5]"]), "2001:db8::5");
    }

    #[test]
    fn nonsense_is_not_looked_behind() {
        assert_eq!(client("10.0.0.1", &["8.8.8.8, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["8.8.8.8, , 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
    }
}

//! Origins of browsers, as `ALLOWED_ORIGINS` lists them (RFC 6454): compared without case, default ports equal none.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::{ConfigError, fault};
use super::layers::Layers;

const NAME: &str = "ALLOWED_ORIGINS";

impl Layers {
    /// The origins of `ALLOWED_ORIGINS`.
    pub(super) fn origins(&self) -> Result<Origins, ConfigError> {
        Origins::parse(&self.list(NAME))
    }
}

/// Origins that are allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// `*` is among them.
    any: bool,
    patterns: Vec<Pattern>,
}

/// An origin: scheme, host, and a port that isn't the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// In lower case, without `://`.
    pub scheme: String,
    /// In lower case; an IPv6 address with its brackets.
    pub host: String,
    /// `None` if it is the default port of `http` or `https`.
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    origin: Origin,
    /// The host is `*.` and this: any name below it.
    is_wildcard: bool,
}

impl Origins {
    /// Reads the setting: origins separated by commas, `https://*.example.com` for all names below one, or `*` for any.
    ///
    /// # Errors
    /// One of them is no origin; says which, and what would be right.
    fn parse(texts: &[String]) -> Result<Self, ConfigError> {
        let mut origins = Self::default();
        for text in texts {
            if text == "*" {
                origins.any = true;
                continue;
            }
            origins.patterns.push(Pattern::parse(text).ok_or_else(|| {
                let right = "is no origin; give scheme and host without a path, like https://chat.example.com";
                fault(NAME, format!("{text:?} {right}, https://*.example.com or https://localhost:3000"))
            })?);
        }
        Ok(origins)
    }

    /// Whether none is named: then the gateway's own host is the only one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any && self.patterns.is_empty()
    }

    /// Whether any origin will do.
    #[must_use]
    pub fn allow_any(&self) -> bool {
        self.any
    }

    /// Whether this one is named, by itself or by a wildcard below a host, but not by `*`.
    #[must_use]
    pub fn list(&self, origin: &Origin) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(origin))
    }
}

impl Origin {
    /// Reads an `Origin` header; `None` for `null` and whatever else has no scheme and host.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(authority)?;
        Some(Self { port: port.filter(|port| Some(*port) != default_port(&scheme)), scheme, host })
    }

    /// Whether a request with this `Host` header was made to the origin. The header doesn't tell the scheme.
    #[must_use]
    pub fn is_at(&self, host: &str) -> bool {
        let Some((host, port)) = host_and_port(host) else { return false };
        host == self.host && port.filter(|port| Some(*port) != default_port(&self.scheme)) == self.port
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let (scheme, host) = text.split_once("://")?;
        // A page has the scheme by which it was loaded: no origin begins like the URL of a socket.
        if scheme.eq_ignore_ascii_case("ws") || scheme.eq_ignore_ascii_case("wss") {
            return None;
        }
        let below = host.strip_prefix("*.");
        let origin = Origin::parse(&format!("{scheme}://{}", below.unwrap_or(host)))?;
        Some(Self { origin, is_wildcard: below.is_some() })
    }

    fn matches(&self, origin: &Origin) -> bool {
        if (&self.origin.scheme, self.origin.port) != (&origin.scheme, origin.port) {
            return false;
        }
        if !self.is_wildcard {
            return self.origin.host == origin.host;
        }
        let name = origin.host.strip_suffix(&*self.origin.host).and_then(|name| name.strip_suffix('.'));
        name.is_some_and(|name| !name.is_empty())
    }
}

/// A host in lower case and its port, if one is given.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let end_of_host = authority.find(']').map_or_else(|| authority.find(':'), |end| Some(end + 1));
    let (host, rest) = authority.split_at_checked(end_of_host.unwrap_or(authority.len()))?;
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(port.parse().ok()?),
        None if rest.is_empty() => None,
        None => return None,
    };
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // The one form of several in which a browser writes it.
        return Some((format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port));
    }
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    // A browser writes every host that ends with a number as an IPv4 address.
    let ends_with_number = host.rsplit('.').next().is_some_and(|end| end.bytes().all(|b| b.is_ascii_digit()));
    if !is_name || (ends_with_number && host.parse::<Ipv4Addr>().is_err()) {
        return None;
    }
    Some((host.to_ascii_lowercase(), port))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(setting: &str) -> Result<Origins, ConfigError> {
        Origins::parse(&setting.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    fn lists(setting: &str, origin: &str) -> bool {
        let origins = parse(setting).expect("a setting");
        Origin::parse(origin).is_some_and(|origin| origins.list(&origin))
    }

    #[test]
    fn what_means_the_same_is_the_same() {
        for setting in
            ["https://x.test", "https://x.test/", "https://x.test:443", "HTTPS://X.Test", "a://b,https://x.test"]
        {
            assert!(lists(setting, "https://x.test"), "{setting}");
            assert!(lists(setting, "https://X.test:443"), "{setting}");
            assert!(!lists(setting, "http://x.test") && !lists(setting, "https://x.test:8443"), "{setting}");
            assert!(!lists(setting, "https://y.x.test") && !lists(setting, "https://xx.test"), "{setting}");
        }
        assert!(lists("http://localhost:3000", "http://localhost:3000"));
        assert!(lists("http://[::1]:3000", "http://[::1]:3000"));
        assert!(lists("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"), "a browser writes it in one form");
        assert!(lists("http://[2001:DB8::1]", "http://[2001:db8::1]"));
        assert!(lists("http://192.0.2.1:3000", "http://192.0.2.1:3000"));
        assert!(lists("capacitor://localhost", "capacitor://localhost"));
        assert!(!lists("*", "https://x.test"), "any isn't named");
    }

    #[test]
    fn a_wildcard_means_every_name_below() {
        let setting = "https://*.x.test";
        assert!(lists(setting, "https://a.x.test") && lists(setting, "https://a.b.x.test"));
        for other in
            ["https://x.test", "https://ax.test", "https://.x.test", "http://a.x.test", "https://x.test.evil.test"]
        {
            assert!(!lists(setting, other), "{other}");
        }
    }

    #[test]
    fn what_is_no_origin_stops_the_start() {
        for bad in [
            "x",
            "x.test",
            "https://",
            "https://x.test/path",
            "https://x test",
            "https://*",
            "https://a.*.test",
            "//x",
            // None of these would ever match.
            "wss://x.test",
            "WS://x.test",
            "null",
            "http://127.1",
            "http://192.0.2.256",
            "http://[::1",
            "https://b\u{fc}cher.test",
            "https://user@x.test",
            "https://x.test?",
            "http://localhost:*",
        ] {
            let fault = parse(bad).expect_err(bad).to_string();
            assert!(fault.contains(NAME) && fault.contains("https://chat.example.com"), "{fault}");
        }
        assert_eq!(Origin::parse("null"), None);
    }

    #[test]
    fn a_host_header_is_compared_with_its_default_port() {
        let at = |origin: &str, host: &str| Origin::parse(origin).expect("an origin").is_at(host);
        assert!(at("https://x.test", "x.test") && at("https://x.test", "X.test:443"));
        assert!(at("http://x.test:8086", "x.test:8086"));
        assert!(!at("https://x.test", "x.test:80") && !at("https://x.test", "y.test"));
        assert!(!at("http://x.test:8086", "x.test"));
    }
}

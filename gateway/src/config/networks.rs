//! Networks of addresses, as `TRUSTED_PROXIES` lists them.

use std::net::IpAddr;

/// Networks; an address is in them if it is in one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// A network of one family: addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    bits: u8,
}

impl Networks {
    /// Reads addresses and networks in CIDR notation.
    ///
    /// # Errors
    /// One of them is neither; says which, and what would be right.
    pub fn parse(parts: &[String]) -> Result<Self, String> {
        parts.iter().map(|part| Network::parse(part)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the address is in one of them. An IPv4 address is the same as IPv6 writes it.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is invalid; give addresses or networks like 10.0.0.0/8, 192.0.2.7 or fd00::/8");
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base = base.parse::<IpAddr>().map_err(|_| wrong())?;
        let bits_max = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => bits_max,
            Some(bits) => bits.parse::<u8>().ok().filter(|bits| *bits <= bits_max).ok_or_else(wrong)?,
        };
        let network = Self { base: first_bits(base, bits), bits };
        if network.base != base {
            return Err(format!("{text:?} names an address inside of a network; give {}/{bits}", network.base));
        }
        Ok(network)
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.base.is_ipv4() && first_bits(address, self.bits) == self.base
    }
}

/// The address with all but its first bits cleared.
fn first_bits(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Result<Networks, String> {
        Networks::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_in_its_network_and_in_no_other() {
        let networks = networks("10.0.0.0/8,192.0.2.7,fd00::/8,::1,0.0.0.0/32").expect("networks");
        let has = |text: &str| networks.contain(text.parse().expect("an address"));
        for inside in ["10.255.0.1", "192.0.2.7", "fdff::9", "::1", "::ffff:10.1.2.3", "0.0.0.0"] {
            assert!(has(inside), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "fe80::1", "::2", "::ffff:11.0.0.1", "0.0.0.1"] {
            assert!(!has(outside), "{outside}");
        }
        assert!(super::Networks::parse(&["0.0.0.0/0".to_owned()]).expect("all").contain([8, 8, 8, 8].into()));
    }

    #[test]
    fn a_fault_says_what_would_be_right() {
        for (text, right) in [
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("10.0.0.0/33", "10.0.0.0/8"),
            ("proxy.example", "10.0.0.0/8"),
            ("10.0.0.0/", "fd00::/8"),
            ("fd12::/8", "fd00::/8"),
        ] {
            assert!(networks(text).is_err_and(|fault| fault.contains(right)), "{text}");
        }
    }
}

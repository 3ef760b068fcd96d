//! Sockets and handshakes per second of one address on this node. IPv6 counts by /64, because one subscriber has that
//! many addresses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Rate, Slots};
use crate::clock::now_us;

/// When a client whose address has too many sockets may try again, in seconds: some will have been closed by then.
const CROWDED_RETRY_S: u64 = 10;

/// The limits of one node.
pub struct Addresses {
    /// Handshakes; `None`: no limit.
    rate: Option<Slots>,
    sockets_max: usize,
    /// Open sockets by address; one with none isn't here, so there are never more than sockets.
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A socket's place among those of its address, given up when dropped.
pub struct Stay {
    addresses: Arc<Addresses>,
    /// `None` if nothing is counted.
    network: Option<IpAddr>,
}

/// An address over its limit; it may come again after so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverLimit {
    /// At least 1.
    pub retry_after_s: u64,
}

impl Addresses {
    /// At most `sockets_max` sockets of an address and `per_second` handshakes a second (twice that at once); 0: no limit.
    #[must_use]
    pub fn new(sockets_max: usize, per_second: u32) -> Arc<Self> {
        let rate = (per_second > 0).then(|| Slots::new(Rate::per_second(per_second)));
        Arc::new(Self { rate, sockets_max, open: Mutex::default() })
    }

    /// A handshake from `address`: may it become a socket?
    ///
    /// # Errors
    /// The address is over one of its limits.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Stay, OverLimit> {
        let network = network(address);
        if let Some(rate) = &self.rate {
            rate.take(&network, now_us())
                .map_err(|wait_us| OverLimit { retry_after_s: wait_us.div_ceil(1_000_000).max(1) })?;
        }
        if self.sockets_max == 0 {
            return Ok(Stay { addresses: Arc::clone(self), network: None });
        }
        let mut open = self.open.lock();
        let count = open.entry(network).or_insert(0);
        if *count >= self.sockets_max {
            return Err(OverLimit { retry_after_s: CROWDED_RETRY_S });
        }
        *count += 1;
        Ok(Stay { addresses: Arc::clone(self), network: Some(network) })
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut open = self.addresses.open.lock();
        if let Some(count) = open.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

/// The address, or the network of an IPv6 one.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_so_many_sockets_and_none_leaves_a_trace() {
        let addresses = Addresses::new(2, 0);
        let one = addresses.enter(ip("10.0.0.1")).expect("room");
        // The same address as IPv6 writes it.
        let two = addresses.enter(ip("::ffff:10.0.0.1")).expect("room");
        assert!(addresses.enter(ip("10.0.0.1")).is_err_and(|crowded| crowded.retry_after_s > 0));
        let other = addresses.enter(ip("10.0.0.2")).expect("another address");
        drop(one);
        let three = addresses.enter(ip("10.0.0.1")).expect("room again");
        drop((two, three, other));
        assert!(addresses.open.lock().is_empty());
    }

    #[test]
    fn ipv6_counts_by_its_64_bit_network() {
        let addresses = Addresses::new(1, 0);
        let _one = addresses.enter(ip("2001:db8:1:2::1")).expect("room");
        assert!(addresses.enter(ip("2001:db8:1:2:ffff::9")).is_err());
        assert!(addresses.enter(ip("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn handshakes_have_a_rate() {
        let addresses = Addresses::new(0, 3);
        let granted = (0..20).filter(|_| addresses.enter(ip("2001:db8::1")).is_ok()).count();
        assert!((6..=8).contains(&granted), "twice the rate at once, not {granted}");
        assert_eq!(addresses.enter(ip("2001:db8::2")).err(), Some(OverLimit { retry_after_s: 1 }));
        assert!(addresses.enter(ip("2001:db8:0:1::1")).is_ok());
        assert!(addresses.open.lock().is_empty(), "what has no limit isn't counted");
    }
}

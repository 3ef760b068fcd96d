//! Places that clients of many addresses share: each address may take three quarters of what is left, so that none has all.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use parking_lot::Mutex;

use super::addresses::network;

/// How many times the free places one address may have.
const SHARE_OF_FREE: usize = 3;

/// A client's address (IPv6: its /64) as a number that is small enough for every socket. Two addresses may have the same one;
/// clients can't choose which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(u32);

impl AddressKey {
    /// The key of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let [a, b, c, d, ..] = HASHER.hash_one(network(address)).to_ne_bytes();
        Self(u32::from_ne_bytes([a, b, c, d]))
    }
}

/// Whether an address that has `own` places may have another, when `free` are left.
#[must_use]
pub const fn may_take(own: usize, free: usize) -> bool {
    own < free.saturating_mul(SHARE_OF_FREE)
}

/// A fixed number of places.
pub struct SharedPlaces {
    places: usize,
    taken: Mutex<TakenPlaces>,
}

#[derive(Default)]
struct TakenPlaces {
    all: usize,
    /// An address with none isn't here.
    by_address: HashMap<AddressKey, usize>,
}

/// A place; given up when dropped.
pub struct SharedPlace<'a> {
    all: &'a SharedPlaces,
    address: AddressKey,
}

impl SharedPlaces {
    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.taken.lock().all
    }

    /// So many places.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places, taken: Mutex::default() }
    }

    /// Takes a place, if the address may have one.
    #[must_use]
    pub fn take(&self, address: AddressKey) -> Option<SharedPlace<'_>> {
        let mut taken = self.taken.lock();
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        if !may_take(own, self.places.saturating_sub(taken.all)) {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, own + 1);
        Some(SharedPlace { all: self, address })
    }
}

impl Drop for SharedPlace<'_> {
    fn drop(&mut self) {
        let mut taken = self.all.taken.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_takes_all_places_and_each_is_given_back() {
        let places = SharedPlaces::new(256);
        let mut held = Vec::new();
        let mut counts = Vec::new();
        for address in 0..4 {
            let before = held.len();
            while let Some(place) = places.take(AddressKey(address)) {
                held.push(place);
            }
            counts.push(held.len() - before);
        }
        assert_eq!(counts, [192, 48, 12, 3]);
        assert!(places.take(AddressKey(9)).is_some());
        held.clear();
        let taken = places.taken.lock();
        assert_eq!((taken.all, taken.by_address.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let key = |text: &str| AddressKey::of(text.parse().expect("an address"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    }
}

//! Where the connections of this node come from, and by which program, for operators. Apart from sessions and registry,
//! so that what is hot stays small.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use shared::title::cleaned_name;

/// The longest user agent that is kept, in characters.
const AGENT_CHARS_MAX: usize = 128;
/// Different user agents that are kept, each once; a connection with a further one is shown without.
const AGENTS_MAX: u16 = 1024;
/// The place of no user agent.
const NONE: u16 = u16::MAX;

/// The clients of all connections.
#[derive(Debug, Default)]
pub struct Clients {
    kept: Mutex<Kept>,
}

/// A connection's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The address, as far as trusted proxies tell it.
    pub address: IpAddr,
    /// The user agent that it names, without control characters.
    pub user_agent: Option<Arc<str>>,
}

/// Bytes instead of numbers: an entry has 26 of them and no padding.
#[derive(Debug, Default)]
struct Kept {
    connections: HashMap<[u8; 8], ([u8; 16], [u8; 2])>,
    agents: Agents,
}

/// User agents by place, each with the number of its connections.
#[derive(Debug, Default)]
struct Agents {
    places: HashMap<Arc<str>, u16>,
    agents: Vec<Option<(Arc<str>, u32)>>,
    free: Vec<u16>,
}

impl Clients {
    /// Keeps where a connection comes from. Each needs one [`Clients::forget`].
    pub fn keep(&self, connection: u64, address: IpAddr, user_agent: Option<&[u8]>) {
        let agent = user_agent.and_then(|agent| cleaned_name(&String::from_utf8_lossy(agent)));
        let agent: Option<String> = agent.map(|agent| agent.chars().take(AGENT_CHARS_MAX).collect());
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut kept = self.kept.lock();
        let place = agent.map_or(NONE, |agent| kept.agents.take(&agent));
        kept.connections.insert(connection.to_ne_bytes(), (address.octets(), place.to_ne_bytes()));
    }

    /// Forgets a connection.
    pub fn forget(&self, connection: u64) {
        let mut kept = self.kept.lock();
        if let Some((_, place)) = kept.connections.remove(&connection.to_ne_bytes()) {
            kept.agents.give_back(u16::from_ne_bytes(place));
            let connections = &mut kept.connections;
            if connections.capacity() > 1024 && connections.len() * 4 < connections.capacity() {
                connections.shrink_to(connections.len() * 2);
            }
        }
    }

    /// Where a connection comes from.
    #[must_use]
    pub fn of(&self, connection: u64) -> Option<Client> {
        let kept = self.kept.lock();
        let (address, place) = kept.connections.get(&connection.to_ne_bytes())?;
        let user_agent = kept.agents.at(u16::from_ne_bytes(*place));
        Some(Client { address: Ipv6Addr::from(*address).to_canonical(), user_agent })
    }
}

impl Agents {
    fn take(&mut self, agent: &str) -> u16 {
        let known = self.places.get(agent).copied();
        if let Some(place) = known {
            if let Some(Some((_, count))) = self.agents.get_mut(usize::from(place)) {
                *count += 1;
            }
            return place;
        }
        let agent: Arc<str> = agent.into();
        let place = match (self.free.pop(), u16::try_from(self.agents.len())) {
            (Some(place), _) => place,
            (None, Ok(place)) if place < AGENTS_MAX => {
                self.agents.push(None);
                place
            }
            (None, _) => return NONE,
        };
        if let Some(free) = self.agents.get_mut(usize::from(place)) {
            *free = Some((Arc::clone(&agent), 1));
        }
        self.places.insert(agent, place);
        place
    }

    fn give_back(&mut self, place: u16) {
        let Some(kept) = self.agents.get_mut(usize::from(place)) else { return };
        let Some((agent, count)) = kept else { return };
        *count -= 1;
        if *count == 0 {
            self.places.remove(agent);
            *kept = None;
            self.free.push(place);
        }
    }

    fn at(&self, place: u16) -> Option<Arc<str>> {
        let (agent, _) = self.agents.get(usize::from(place))?.as_ref()?;
        Some(Arc::clone(agent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_kept_until_they_are_forgotten() {
        let clients = Clients::default();
        let of = |connection| clients.of(connection).map(|it| (it.address.to_string(), it.user_agent));
        clients.keep(1, "192.0.2.7".parse().expect("an address"), Some(b"Browser\x1b[31m/1.0\r\n \xff"));
        clients.keep(2, "2001:db8::1".parse().expect("an address"), Some(&[b'x'; 10_000]));
        clients.keep(3, "::ffff:192.0.2.8".parse().expect("an address"), None);
        assert_eq!(of(1), Some(("192.0.2.7".into(), Some("Browser[31m/1.0 \u{fffd}".into()))));
        assert_eq!(of(2), Some(("2001:db8::1".into(), Some("x".repeat(AGENT_CHARS_MAX).into()))));
        assert_eq!(of(3), Some(("192.0.2.8".into(), None)));
        clients.forget(1);
        clients.forget(1);
        assert_eq!((of(1), of(4)), (None, None));
    }

    #[test]
    fn user_agents_are_kept_once_and_only_so_many() {
        let clients = Clients::default();
        let address: IpAddr = "192.0.2.7".parse().expect("an address");
        for n in 0..=u64::from(AGENTS_MAX) {
            clients.keep(n, address, Some(format!("agent {n}").as_bytes()));
        }
        let agent = |connection| clients.of(connection).and_then(|client| client.user_agent);
        let last = u64::from(AGENTS_MAX);
        assert_eq!((agent(last - 1).is_some(), agent(last)), (true, None));
        clients.keep(9_000, address, Some(b"agent 5"));
        clients.forget(5);
        clients.keep(9_001, address, Some(b"new"));
        assert_eq!((agent(9_000).as_deref(), agent(9_001)), (Some("agent 5"), None), "it is in use");
        clients.forget(9_000);
        clients.keep(9_001, address, Some(b"new"));
        assert_eq!(agent(9_001).as_deref(), Some("new"));
    }

    #[test]
    fn a_connection_costs_little() {
        assert_eq!(size_of::<([u8; 8], ([u8; 16], [u8; 2]))>(), 26);
    }
}

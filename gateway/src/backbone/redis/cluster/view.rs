//! The slots and masters of a Cluster, from the answers of its servers to `CLUSTER NODES`.
//!
//! For each slot the claim with the highest configuration epoch wins, as it does among the servers themselves. So a
//! master that was cut off, or woke up late, keeps no node: its successor's epoch is higher.

use std::collections::HashMap;

use super::slots::{SLOTS, Slot};

/// The report of one server.
pub(super) struct View {
    nodes: Vec<Node>,
    /// The server itself, master or not, and what it says it has.
    myself: Option<(Master, Vec<(Slot, Slot)>)>,
}

/// A master, as one server sees it.
struct Node {
    id: String,
    master: Master,
    epoch: u64,
    /// From and up to.
    slots: Vec<(Slot, Slot)>,
}

/// Where a master is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) host: String,
    pub(super) port: u16,
    /// How redirections may name it.
    pub(super) names: Vec<String>,
}

/// The winning claims.
pub(super) struct Topology {
    pub(super) masters: Vec<Master>,
    /// For each slot the place of its master in `masters`.
    pub(super) owners: Vec<Option<usize>>,
    /// The slots that each queried server claims, by its names.
    own: HashMap<String, Vec<(Slot, Slot)>>,
}

impl View {
    /// Reads `CLUSTER NODES` as the server at `asked` gave it; lines that aren't understood are passed over.
    pub(super) fn parse(text: &str, asked: (&str, u16)) -> Self {
        let nodes: Vec<Node> = text.lines().filter_map(|line| Node::parse(line, asked)).collect();
        let own = text
            .lines()
            .map(|line| line.split(' '))
            .find(|words| words.clone().nth(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "myself")));
        let myself = own.and_then(|mut words| {
            let id = words.next()?;
            let master = Master::parse(words.next()?, asked)?;
            // A replica has none.
            let slots = nodes.iter().find(|node| node.id == id).map(|node| node.slots.clone()).unwrap_or_default();
            Some((master, slots))
        });
        Self { nodes, myself }
    }

    /// Whether both know some master.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.nodes.iter().any(|node| other.nodes.iter().any(|known| known.id == node.id))
    }
}

impl Node {
    fn parse(line: &str, asked: (&str, u16)) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
        let flags: Vec<&str> = flags.split(',').collect();
        let epoch = words.nth(3)?.parse().ok()?;
        // A migrating slot counts for the master that still has it.
        let mut slots = words.skip(1).filter(|word| !word.starts_with('[')).peekable();
        let is_gone = flags.contains(&"fail") && slots.peek().is_none();
        if !flags.contains(&"master") || flags.contains(&"noaddr") || flags.contains(&"handshake") || is_gone {
            return None;
        }
        let slots = slots.map(range).collect::<Option<Vec<_>>>()?;
        Some(Self { id: id.to_owned(), master: Master::parse(address, asked)?, epoch, slots })
    }

    fn slots(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().flat_map(|(from, to)| *from..=*to)
    }
}

impl Master {
    /// Reads `ip:port@bus port,hostname,…`. A server that doesn't know its own address leaves it out.
    fn parse(address: &str, (asked, _): (&str, u16)) -> Option<Self> {
        let mut parts = address.split(',');
        let (ip, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let ip = if ip.is_empty() { asked } else { ip };
        let hostname = parts.next().filter(|name| !name.is_empty());
        let names = [Some(ip), hostname].into_iter().flatten().map(|host| format!("{host}:{port}")).collect();
        Some(Self { host: hostname.unwrap_or(ip).to_owned(), port, names })
    }
}

impl Topology {
    /// The winning claims of these views.
    pub(super) fn of(views: &[View]) -> Self {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut masters = Vec::new();
        let mut owners: Vec<Option<(u64, usize)>> = vec![None; SLOTS];
        for node in views.iter().flat_map(|view| &view.nodes) {
            let place = *places.entry(&node.id).or_insert_with(|| {
                masters.push(node.master.clone());
                masters.len() - 1
            });
            for slot in node.slots() {
                if let Some(owner) = owners.get_mut(usize::from(slot))
                    && owner.is_none_or(|(epoch, _)| epoch < node.epoch)
                {
                    *owner = Some((node.epoch, place));
                }
            }
        }
        let mut own = HashMap::new();
        for (myself, slots) in views.iter().filter_map(|view| view.myself.as_ref()) {
            own.extend(myself.names.iter().map(|name| (name.clone(), slots.clone())));
        }
        Self { masters, owners: owners.into_iter().map(|owner| owner.map(|(_, place)| place)).collect(), own }
    }

    /// Whether the server with one of these names says that it has the slot; none if it did not answer.
    pub(super) fn claims(&self, names: &[String], slot: Slot) -> Option<bool> {
        let own = names.iter().find_map(|name| self.own.get(name))?;
        Some(own.iter().any(|(from, to)| (*from..=*to).contains(&slot)))
    }
}

/// Reads `from-to`, or one slot.
fn range(word: &str) -> Option<(Slot, Slot)> {
    let (from, to) = word.split_once('-').unwrap_or((word, word));
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (usize::from(to) < SLOTS).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_behind_is_not_believed() {
        let behind = "a 10.0.0.1:1@2 myself,master - 0 0 1 connected 0-8191\n\
             b 10.0.0.2:1@2 master - 0 0 2 connected 8192-16383 [8192->-a]\n\
             r 10.0.0.3:1@2,r.local slave a 0 0 1 connected\n";
        let newest = "r 10.0.0.3:1@2,r.local master - 0 0 3 connected 0-8191\n\
             b :1@2 myself,master - 0 0 2 connected 8192-16383\n\
             a 10.0.0.1:1@2 master,fail - 0 0 1 disconnected\n";
        let views = [View::parse(behind, ("10.0.0.1", 1)), View::parse(newest, ("10.0.0.2", 1))];
        assert!(views[0].meets(&views[1]));
        let topology = Topology::of(&views);
        let host = |slot: usize| &*topology.masters[topology.owners[slot].expect("an owner")].host;
        assert_eq!((host(0), host(8191), host(8192), host(16383)), ("r.local", "r.local", "10.0.0.2", "10.0.0.2"));
        let r = topology.owners[0].expect("an owner");
        assert_eq!(topology.masters[r].names, ["10.0.0.3:1", "r.local:1"]);
        let claims = |name: &str, slot| topology.claims(&[name.to_owned()], slot);
        assert_eq!(claims("10.0.0.1:1", 0), Some(true), "the old master doesn't know yet");
        assert_eq!((claims("10.0.0.2:1", 0), claims("10.0.0.3:1", 0)), (Some(false), None));
        let demoted = View::parse("a 10.0.0.1:1@2 myself,slave r 0 0 3 connected\n", ("10.0.0.1", 1));
        assert_eq!(Topology::of(&[demoted]).claims(&["10.0.0.1:1".to_owned()], 0), Some(false));
    }
}

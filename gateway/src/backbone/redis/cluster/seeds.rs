//! The servers of a Cluster that the settings name. The other servers are found through them.

use redis::{ConnectionAddr, ConnectionInfo};

use crate::backbone::redis::connect::transport::Tls;

/// The servers that the settings name.
pub(in crate::backbone::redis) struct Seeds {
    pub(in crate::backbone::redis) servers: Vec<ConnectionInfo>,
    /// The trusted authorities, if the connections are encrypted.
    pub(in crate::backbone::redis) tls: Option<Tls>,
}

impl Seeds {
    /// For people.
    pub(in crate::backbone::redis) fn describe(&self) -> String {
        let addresses: Vec<String> = self.servers.iter().map(|server| server.addr().to_string()).collect();
        format!("the Redis Cluster of {}", addresses.join(", "))
    }

    /// How to connect to one of the Cluster's servers.
    pub(super) fn at(&self, host: &str, port: u16) -> Option<ConnectionInfo> {
        let info = self.servers.first()?.clone();
        let addr = match info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        Some(info.set_addr(addr))
    }

    /// Host and port of each.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (String, u16)> {
        self.servers.iter().filter_map(|server| match server.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Some((host.clone(), *port)),
            _ => None,
        })
    }
}

//! Ports for the programs that the tests start.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the system gives to connections (32,768 on Linux) and beside those of the scripts (`free_port` of
/// `deploy/services.sh`), so that nobody takes a port between the look for it and the start of the program.
const FROM: u16 = 25_200;
const PORTS: u16 = 7_400;

/// The next one to look at. Another for each run, for the programs of two runs may be there at once.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..PORTS)));

/// A port on which nothing listens now, and which this run gives to nobody else.
pub(crate) fn free_port() -> u16 {
    for _ in 0..PORTS {
        let port = FROM + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FROM} to {} is free", FROM + PORTS - 1);
}

/// The same as an address of this machine.
pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

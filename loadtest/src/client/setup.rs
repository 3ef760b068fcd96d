//! A device's setup and its orders, from the driver.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::directory::Directory;
use super::link::Transport;
use super::pending::OutgoingMessage;
use crate::oracle::Recorder;
use crate::rest::Rest;
use crate::seed::Seed;
use crate::target::Target;

/// The driver's order to a device.
#[derive(Debug)]
pub enum Order {
    /// Send a message.
    Send(OutgoingMessage),
    /// Drop the connection and come back at once, with resume.
    Drop,
    /// Don't read for this long.
    Stall(Duration),
}

/// The parts of a device.
#[derive(Debug)]
pub struct DeviceSetup {
    /// The user's number in the target.
    pub user: usize,
    /// The device's number in the run.
    pub number: usize,
    /// How it is connected.
    pub transport: Transport,
    /// The number of the node that it asks first (it wraps around).
    pub node: usize,
    /// The run's seed; the device draws its waits from it.
    pub seed: Seed,
    /// The deployment.
    pub target: Arc<Target>,
    /// Its REST interface.
    pub rest: Rest,
    /// The conversations and their members.
    pub directory: Arc<Directory>,
    /// Where to write.
    pub recorder: Arc<Recorder>,
    /// The driver's orders.
    pub orders: mpsc::Receiver<Order>,
}

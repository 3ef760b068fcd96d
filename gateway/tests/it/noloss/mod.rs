//! Each row of `gateway/NOLOSS.md` in turn: nothing is lost, doubled or out of order.

mod drain;
mod epoch;
mod heal;
mod large;
mod large_reads;
mod left_behind;
mod outbox;
mod resume;
mod side_by_side;
mod sockets;
mod two_nodes;

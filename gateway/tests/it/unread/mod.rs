//! Unread counts: what sockets are told, and what REST says, agree.

mod edge;
mod ends;
mod held;

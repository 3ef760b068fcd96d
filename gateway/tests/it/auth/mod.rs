//! Who is let in, and who is thrown out again.

mod recheck;
mod remote;
mod secrecy;
mod sessions;
mod tokens;

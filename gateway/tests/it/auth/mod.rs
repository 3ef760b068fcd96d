//! Who is let in, and who is thrown out again.

mod browsers;
mod recheck;
mod remote;
mod secrecy;
mod sessions;
mod tokens;

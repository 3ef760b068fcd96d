//! Authentication: which credentials are accepted, and how connections end when a credential becomes invalid.

mod browsers;
mod recheck;
mod remote;
mod secrecy;
mod sessions;
mod tokens;

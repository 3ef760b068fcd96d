//! The integration tests: one binary, with real servers, through the public path.
//! Each room tests one subject; `support` starts the servers and speaks to them.
//! There are no mocks.

#![cfg(test)]

mod admin;
mod auth;
mod backbone;
mod blocks;
mod changes;
mod compression;
mod connects;
mod conversation_changes;
mod data;
mod erasure;
mod events_webhook;
mod front_ends;
mod hook;
mod limits;
mod metrics;
mod moderation;
mod noloss;
mod polling;
mod push;
mod reload;
mod rest;
mod retention;
mod rights;
mod rules;
mod store;
mod streams;
mod support;
mod tls;
mod traces;
mod unread;

//! Every limit and its answer; hostile and malformed input.

mod addresses;
mod bad_input;
mod charges;
mod commands;
mod hostile;
mod overload;
mod plain_connections;
mod start;
mod turnover;

//! Integration tests: one binary, real servers, the public path.

mod seed002;
mod support;

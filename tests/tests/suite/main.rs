//! One binary: the app in process, real sockets, real clients.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod aborts;
mod bypass;
mod clients;
mod command;
mod drain;
mod failing;
mod forwarding;
mod input;
mod limits;
mod promises;
mod refusals;
mod seen;
mod streaming;
mod tls;
mod upstreams;

//! One binary: the app in process, real sockets, real clients.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod aborts;
mod bypass;
mod clients;
mod command;
mod failing;
mod forwarding;
mod limits;
mod refusals;
mod streaming;
mod tls;
mod upstreams;

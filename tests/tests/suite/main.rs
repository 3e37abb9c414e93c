//! One binary: the app in process, real sockets, real clients.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod aborts;
mod attacks;
mod bypass;
mod certificate_files;
mod claims;
mod clients;
mod clocks;
mod command;
mod dev_authority;
mod drain;
mod edges;
mod failing;
mod forwarding;
mod fuzzing;
mod handshakes;
mod hybrid;
mod impostors;
mod ingress;
mod input;
mod json_texts;
mod keysets;
mod limits;
mod mtls;
mod nonces;
mod pages;
mod refusals;
mod revocation;
mod sds;
mod second_readers;
mod seen;
mod selectors;
mod sessions;
mod spiffe;
mod streaming;
mod swaps;
mod tls;
mod upstreams;
mod vault;

//! What Oilskin's tests, and parts of its bench, stand on: the app run in process, an upstream that shows its raw bytes, and a client that sends
//! exactly what it is given. Blocking sockets and threads only, so that nothing of what is tested is used to test it; the gRPC
//! servers alone are gRPC's own: the secret discovery one is proven by Envoy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

pub mod aws;
pub mod aws_hostile;
pub mod certificates;
pub mod client;
pub mod clock;
pub mod config;
pub mod contract;
pub mod frames;
pub mod fuzz;
pub mod grpc;
pub mod host_names;
pub mod hostile;
pub mod hpack;
pub mod hsm;
pub mod keys;
pub mod kubernetes;
pub mod memory;
pub mod message;
pub mod mounted;
pub mod nginx;
pub mod peers;
pub mod process;
pub mod proxy;
pub mod replicas;
pub mod sds;
pub mod secured;
pub mod spiffe;
pub mod tools;
pub mod transit;
pub mod upstream;
pub mod vault;
pub mod wiretap;

pub use client::Client;
pub use frames::Wire;
pub use message::Message;
pub use nginx::Nginx;
pub use process::Process;
pub use proxy::Proxy;
pub use upstream::Upstream;

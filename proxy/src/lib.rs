//! Oilskin, a sidecar proxy that encrypts chosen fields of an app's HTTP traffic.

mod admin;
mod app;
mod body;
mod dial;
mod engine;
mod error;
mod exchange;
pub mod fields;
mod forward;
mod gate;
mod graphql;
mod handler;
mod headers;
mod keys;
mod limits;
mod listen;
mod media;
mod names;
mod outcome;
mod pool;
mod query;
mod ready;
mod rewrite;
mod route;
mod rules;
mod serve;
mod snapshot;
mod stream;
mod telemetry;
mod tls;
mod worker;

pub use app::{App, Running, StartError};

//! Oilskin, a sidecar proxy that encrypts chosen fields of an app's HTTP traffic.

mod admin;
mod alloc;
mod app;
mod backoff;
mod body;
mod certs;
mod cli;
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
mod offline;
mod outcome;
mod pool;
mod query;
mod ready;
mod rewrite;
mod route;
mod rules;
mod said;
mod secrets;
mod serve;
mod snapshot;
mod stream;
mod telemetry;
mod tls;
mod transit;
#[cfg(feature = "vault")]
mod vault;
#[cfg(not(feature = "vault"))]
#[path = "vault/absent.rs"]
mod vault;
mod worker;

pub use alloc::Allocator;
pub use app::{App, Running, StartError, Stopper};
pub use cli::{Exit, run as cli};
#[doc(hidden)]
pub use engine::is_vault_ciphertext;
pub use error::page as errors_page;
pub use keys::{Failed, Fault, KeyError};
pub use offline::{Offline, OfflineError, Phase};
pub use snapshot::BuildError;
#[doc(hidden)]
pub use tls::examined;
pub use tls::provider as tls_provider;
#[cfg(feature = "vault")]
#[doc(hidden)]
pub use vault::vault_answers;

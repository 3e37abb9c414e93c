//! Settings of Oilskin: text (environment, YAML) to one typed [`Config`]. No tokio, no crypto, no I/O.

mod build;
mod env;
pub mod generated;
mod model;
mod problem;
mod selector;
mod source;
mod table;
mod tls;
mod value;
mod vault;
mod yaml;

use std::collections::BTreeMap;
use std::ffi::OsString;

pub use model::*;
pub use problem::{Place, Problem};
pub use selector::{Segment, Selector, SelectorError, Step};
pub use source::{Dev, DevName, Files, Sds, Source, Spiffe, VaultPki};
pub use tls::{ClientAuth, ListenerTls, PeerPattern, UpstreamTls, trust_domain};
pub use vault::{Secret, Secreted, Vault, VaultAddress, VaultLogin};

/// Environment variables by name.
pub type Vars = BTreeMap<OsString, OsString>;

/// Reads a file for the parser, which does no I/O itself; the error is a sentence.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Reads a whole configuration.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn parse(vars: &Vars, read: ReadFile<'_>) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    let vars = env::settings(vars, &mut problems);
    let tree = env::document(&vars, read, &mut problems);
    let config = tree.and_then(|tree| build::config(tree, &vars, &mut problems));
    problems.sort();
    problems.dedup();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

/// Reads the key settings alone, for commands that need no traffic: the rest of the environment and document is not judged.
///
/// # Errors
/// Everything that is wrong with them, each with its place.
pub fn parse_keys(vars: &Vars, read: ReadFile<'_>) -> Result<KeySettings, Vec<Problem>> {
    let mut problems = Vec::new();
    let vars = env::settings(vars, &mut problems);
    let tree = env::document(&vars, read, &mut problems);
    let settings = tree.and_then(|tree| build::key_settings(&tree, &vars, &mut problems));
    problems.sort();
    problems.dedup();
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems),
    }
}

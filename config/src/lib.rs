//! Settings of Oilskin: text (environment, YAML) to one typed [`Config`]. No tokio, no crypto, no I/O.

mod build;
mod env;
pub mod generated;
mod home;
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

pub use home::{AwsKey, KubernetesPlace, Named, Pkcs11, Pkcs11Profile, Root, Store, VaultKey, VaultPlace};
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
    parsed(vars, read, build::config)
}

/// Reads the key settings alone, for commands that need no traffic: the rest of the environment and document is not judged.
///
/// # Errors
/// Everything that is wrong with them, each with its place.
pub fn parse_keys(vars: &Vars, read: ReadFile<'_>) -> Result<KeySettings, Vec<Problem>> {
    parsed(vars, read, build::key_settings)
}

/// Reads where the admin port of a process with these settings is, for commands that only ask it; none where it is off.
///
/// # Errors
/// Everything that is wrong with that, each with its place.
pub fn parse_admin(vars: &Vars, read: ReadFile<'_>) -> Result<Option<Bind>, Vec<Problem>> {
    parsed(vars, read, build::admin)
}

fn parsed<T>(
    vars: &Vars,
    read: ReadFile<'_>,
    build: impl FnOnce(yaml::Node, &env::Settings, &mut Vec<Problem>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let mut problems = Vec::new();
    let vars = env::settings(vars, &mut problems);
    let tree = env::document(&vars, read, &mut problems);
    let settings = tree.and_then(|tree| build(tree, &vars, &mut problems));
    problems.sort();
    problems.dedup();
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems),
    }
}

/// Reads a root key's URI, as in `OILSKIN_ROOT_KEY`.
///
/// # Errors
/// A sentence that does not repeat it.
pub fn parse_root(text: &str) -> Result<Root, String> {
    Root::parse(text)
}

/// Reads how many roots must join, as in `OILSKIN_ROOT_HOLD`.
///
/// # Errors
/// A sentence.
pub fn parse_hold(text: &str) -> Result<Hold, String> {
    value::hold(text)
}

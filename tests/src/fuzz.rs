//! What a fuzzer asks of each parser: one function a target. cargo-fuzz runs them on nightly, the suite on stable over the
//! committed corpus and a seeded generator, so both hold the very same claims.

mod certificate;
mod config;
mod frame;
mod generate;
mod json;
mod keyset;
mod selector;
mod token;
mod vault;

use std::path::PathBuf;

pub use generate::Generator;

/// A target: panics where a claim does not hold.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus' folder.
pub const TARGETS: [(&str, Target); 8] = [
    ("certificate", certificate::certificate),
    ("config", config::config),
    ("frame", frame::frame),
    ("json", json::json),
    ("keyset", keyset::keyset),
    ("selector", selector::selector),
    ("token", token::token),
    ("vault", vault::vault),
];

/// Runs one target by its name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    target(data);
}

/// The committed corpus of a target, by file name.
pub fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = crate::tools::top().join("tests/fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

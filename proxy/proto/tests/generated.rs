//! The checked-in code is what `protos/` say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
        .collect()
}

#[test]
fn generated_code_matches_the_protos() {
    let made = tempfile::tempdir().unwrap();
    // target/debug/deps/generated-…: examples stand beside `deps`.
    let built = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/generate");
    assert!(Command::new(built).arg(made.path()).status().unwrap().success());
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    assert!(files(made.path()) == files(&checked_in), "run `cargo run -p oilskin-proto --example generate`");
}

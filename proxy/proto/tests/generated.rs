//! The checked-in code is what `protos/` say.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

fn files(folder: &Path) -> io::Result<BTreeMap<OsString, String>> {
    let read = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name(), std::fs::read_to_string(entry.path())?))
    };
    std::fs::read_dir(folder)?.map(read).collect()
}

#[test]
fn generated_code_matches_the_protos() {
    let made = tempfile::tempdir().unwrap();
    // target/debug/deps/generated-…: examples stand beside `deps`.
    let built = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/protos");
    assert!(Command::new(built).arg(made.path()).status().unwrap().success());
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    let same = files(made.path()).unwrap() == files(&checked_in).unwrap();
    assert!(same, "run `cargo run -p oilskin-proto --example protos`");
}

//! Programs the bench runs. One that is missing is an error that says how to get it, never a skipped row.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The repository's top.
pub(crate) fn top() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

pub(crate) fn nginx() -> Result<PathBuf> {
    program("nginx")
}

pub(crate) fn haproxy() -> Result<PathBuf> {
    program("haproxy")
}

pub(crate) fn wrk() -> Result<PathBuf> {
    program("wrk")
}

pub(crate) fn h2load() -> Result<PathBuf> {
    program("h2load")
}

pub(crate) fn openssl() -> Result<PathBuf> {
    program("openssl")
}

pub(crate) fn valgrind() -> Result<PathBuf> {
    program("valgrind")
}

/// Envoy's own binary: the command that its package installs is a Python program which stays between.
pub(crate) fn envoy() -> Result<PathBuf> {
    let pythons = std::fs::read_dir(top().join(".venv/lib")).context("there is no .venv: run `make bench-deps`")?;
    let mut found = pythons.filter_map(|python| Some(python.ok()?.path().join("site-packages/envoy/_bin/envoy")));
    found.find(|path| path.exists()).context("Envoy is not in .venv: run `make bench-deps`")
}

/// The release binary, which stands beside this program.
pub(crate) fn oilskin() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("oilskin");
    ensure!(path.exists(), "the oilskin binary is not built: run `make build`");
    Ok(path)
}

fn program(name: &str) -> Result<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];
    let mut found = folders.iter().map(|folder| Path::new(folder).join(name));
    found.find(|path| path.exists()).with_context(|| format!("{name} is not installed: run `make bench-deps`"))
}

/// Runs to the end and returns what it printed on stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}\n{said}{complained}", command.get_program(), output.status);
    Ok(said.into_owned())
}

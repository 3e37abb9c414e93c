//! What it was measured on: nothing that names the machine or its folders.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::tools;

/// One paragraph.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let of = |name: &str| {
        let mut fields = cpus.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(found, _)| found.trim() == name).map_or("unknown", |(_, value)| value.trim())
    };
    // A cloud's name for it may stand for several generations, which differ by more than programs do.
    let model = format!("{} (family {}, model {})", of("model name"), of("cpu family"), of("model"));
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let kilobytes =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<f64>().ok());
    let system = read("/etc/os-release");
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    let kernel = read("/proc/sys/kernel/osrelease");
    // Only the version: what a builder appends may name a machine.
    let kernel = kernel.split(['-', '+']).next().unwrap_or_default().trim();
    format!(
        "Machine: {model}, {cores} cores, {:.0} GB; {system}, Linux {kernel}. {}.",
        kilobytes.unwrap_or_default() / 1e6,
        versions().join("; ")
    )
}

/// What each program says it is; one that cannot be asked fails its rows, not this line.
fn versions() -> Vec<String> {
    let first = |command: Result<Command>| -> Option<String> {
        let output = command.ok()?.output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&said).lines().find(|line| !line.trim().is_empty())?.to_owned())
    };
    let of = |program: Result<std::path::PathBuf>, word: &str| {
        let mut command = Command::new(program?);
        command.arg(word);
        Ok(command)
    };
    let nginx = first(of(tools::nginx(), "-v")).and_then(|said| Some(said.rsplit_once('/')?.1.to_owned()));
    let haproxy = first(of(tools::haproxy(), "-v")).and_then(|said| Some(said.split_whitespace().nth(2)?.to_owned()));
    let envoy = first(of(tools::envoy(), "--version")).and_then(|said| Some(said.split('/').rev().nth(3)?.to_owned()));
    let oilskin =
        first(of(tools::oilskin(), "--version")).and_then(|said| Some(said.split_whitespace().last()?.to_owned()));
    let shown = |name: &str, version: Option<String>| format!("{name} {}", version.as_deref().unwrap_or("is missing"));
    vec![shown("nginx", nginx), shown("HAProxy", haproxy), shown("Envoy", envoy), shown("Oilskin", oilskin)]
}

//! A replica without connections: real configuration, key life and store, driven line by line.
//!
//! `e TEXT` answers `t TOKEN`, `d TOKEN` answers `v TEXT`; what fails answers `x CODE`. It ends with its input.

#![allow(clippy::unwrap_used, reason = "a test tool")]

use std::io::{BufRead, Write};

use oilskin::{Offline, Phase};

#[global_allocator]
static ALLOCATOR: oilskin::Allocator = oilskin::Allocator;

fn main() {
    let vars = std::env::vars_os()
        .filter(|(name, _)| ["OILSKIN_", "VAULT_"].iter().any(|start| name.to_string_lossy().starts_with(start)))
        .collect();
    let config = oilskin_config::parse(&vars, &|path| std::fs::read_to_string(path).map_err(|error| error.to_string()));
    let offline = Offline::kept_fresh(&config.unwrap(), 0).unwrap();
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready").unwrap();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (word, text) = line.split_once(' ').unwrap();
        let (phase, good) = if word == "e" { (Phase::Request, 't') } else { (Phase::Response, 'v') };
        let mut rewritten = Vec::new();
        let document = format!("{{\"ssn\":\"{text}\"}}");
        match offline.rewrite(phase, [document.as_bytes()], &mut rewritten) {
            Ok(()) => {
                let rewritten = String::from_utf8(rewritten).unwrap();
                let value = rewritten.strip_prefix("{\"ssn\":\"").and_then(|rest| rest.strip_suffix("\"}")).unwrap();
                writeln!(out, "{good} {value}").unwrap();
            }
            Err(error) => writeln!(out, "x {error}").unwrap(),
        }
    }
}

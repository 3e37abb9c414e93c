//! The command line: what the words mean, what is printed, and the exit code.

mod admin;
mod certs;
mod check;
mod demo;
mod dev;
#[cfg(feature = "pkcs11")]
mod hsm;
mod keys;
mod process;
mod rewrap;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use clap::{Parser, Subcommand};
use oilskin_config::{Problem, Vars};
use serde_json::{Value, json};

use crate::{StartError, telemetry};

/// How a command ended; the number is the process' exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The words were not understood.
    Usage = 2,
    /// The configuration is wrong (`EX_CONFIG` of sysexits.h).
    Configuration = 78,
}

impl Exit {
    /// The code of what does not start.
    fn of(error: &StartError) -> Self {
        if error.is_configuration() { Self::Configuration } else { Self::Failed }
    }
}

/// Encrypts chosen fields of an app's HTTP traffic. Without a command it runs, configured by OILSKIN_* variables.
#[derive(Debug, Parser)]
#[command(name = "oilskin", version, disable_help_subcommand = true)]
struct Words {
    /// Print what is said as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run with development keys and a small built-in upstream; nothing to configure.
    Dev(dev::Dev),
    /// Read what a run would read and say everything that is wrong with it; exit code 78 if something is.
    Check,
    /// Show the certificates that the running process holds: names, issuer, days left, last change, last refusal.
    Certs,
    /// Make and show keysets.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Try PKCS#11 modules of HSMs.
    #[cfg(feature = "pkcs11")]
    #[command(subcommand)]
    Hsm(hsm::Command),
    /// Renew tokens in files: those of retired key versions become tokens of the active one.
    Rewrap(rewrap::Rewrap),
    /// What can be configured.
    #[command(subcommand)]
    Config(Config),
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Config {
    /// Print the JSON Schema of a configuration document.
    Schema,
}

/// Runs one command to its end.
pub fn run(words: impl IntoIterator<Item = OsString>, vars: &Vars) -> Exit {
    let words = match Words::try_parse_from(words) {
        Ok(words) => words,
        Err(error) => {
            // Help and version are answers, not errors; a closed stdout is no one to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let printer = Printer { json: words.json };
    match words.command {
        None => process::run(vars, &printer),
        Some(Command::Dev(dev)) => dev::run(&dev, vars, &printer),
        Some(Command::Check) => check::run(vars, &printer),
        Some(Command::Certs) => certs::run(vars, &printer),
        Some(Command::Keys(command)) => keys::run(&command, vars, &printer),
        #[cfg(feature = "pkcs11")]
        Some(Command::Hsm(command)) => hsm::run(&command, &printer),
        Some(Command::Rewrap(rewrap)) => rewrap::run(&rewrap, vars, &printer),
        Some(Command::Config(Config::Schema)) => {
            printer.line(oilskin_config::generated::json_schema().trim_end());
            Exit::Done
        }
    }
}

/// Reads a file for the configuration.
fn read_file(path: &str) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// Writes results to stdout and errors to stderr, as text or as one JSON document.
struct Printer {
    json: bool,
}

impl Printer {
    /// A result: its text, or its document.
    fn result(&self, text: impl Display, document: &Value) {
        if self.json { self.line(document) } else { self.line(text) }
    }

    /// What is going on meanwhile, for people.
    fn progress(&self, text: impl Display) {
        if !self.json {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// From now on warnings are said to people, beginning with these. A program that reads JSON finds nothing but its document.
    fn warns(&self, warnings: &[String]) {
        if self.json {
            return;
        }
        telemetry::install_for_a_command();
        for warning in warnings {
            tracing::warn!("{warning}");
        }
    }

    /// Bytes as they are.
    fn raw(&self, bytes: &[u8]) {
        let _ = io::stdout().lock().write_all(bytes);
    }

    fn line(&self, line: impl Display) {
        // A reader that left (`| head`) ends nothing.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    /// What failed, on stderr; with `--json` a document on stdout, so that one reader finds both ends.
    fn failed(&self, error: impl Display) -> Exit {
        if self.json {
            self.line(json!({"ok": false, "error": error.to_string()}));
        } else {
            let _ = writeln!(io::stderr().lock(), "oilskin: {error}");
        }
        Exit::Failed
    }

    /// Everything that is wrong with a configuration.
    fn problems(&self, problems: &[Problem]) -> Exit {
        if self.json {
            let document = |problem: &Problem| json!({"place": problem.place.to_string(), "path": problem.path, "message": problem.message});
            self.line(json!({"ok": false, "problems": problems.iter().map(document).collect::<Vec<_>>()}));
            return Exit::Configuration;
        }
        let mut out = io::stderr().lock();
        for problem in problems {
            let _ = writeln!(out, "{problem}");
        }
        let noun = if problems.len() == 1 { "problem" } else { "problems" };
        let _ = writeln!(out, "oilskin: {} {noun}; docs/configuration.md lists every setting", problems.len());
        Exit::Configuration
    }

    /// Bold on a terminal.
    fn strong(text: &str) -> String {
        if io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

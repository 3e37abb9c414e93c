//! `oilskin hsm`: what a PKCS#11 module really does.

mod apart;
mod found;
mod number;
mod page;
mod probe;
mod wraps;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Exit, Printer};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Try a PKCS#11 module: what wraps, who makes IVs, what threads and old handles do, how long it takes, and what to set. It needs
    /// no key, works with keys of its own session alone, and leaves nothing behind. The library runs in a process of its own.
    Probe(Probe),
}

#[derive(Debug, Args)]
pub(super) struct Probe {
    /// The vendor's library.
    #[arg(long)]
    module: PathBuf,
    /// The token's label; the only one there is unless given.
    #[arg(long)]
    token: Option<String>,
    /// File with the user's PIN. Without it only what needs no login is shown.
    #[arg(long)]
    pin_file: Option<PathBuf>,
    /// Label of the root key that is to be used, for the line that is printed.
    #[arg(long, default_value = "oilskin-root")]
    object: String,
    /// Calls to measure of each kind; fewer where they take longer than a third of the deadline.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    count: u32,
    /// Seconds that the library has for each step.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    deadline: u32,
    /// This is the process in which the library runs; it tells the one that started it.
    #[arg(long, hide = true)]
    apart: bool,
}

impl Probe {
    fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline.into())
    }
}

pub(super) fn run(command: &Command, printer: &Printer) -> Exit {
    let Command::Probe(words) = command;
    if words.apart {
        return apart::work(words);
    }
    match apart::watch(words, printer) {
        Ok(found) => {
            printer.result(page::text(&found), &page::document(&found));
            if found.is_good() { Exit::Done } else { Exit::Failed }
        }
        Err(why) => printer.failed(why),
    }
}

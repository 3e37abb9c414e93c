//! `make bench`: Oilskin beside nginx, HAProxy and Envoy, and what else must reach a figure.

mod answer;
mod callgrind;
mod certificates;
mod churn;
mod clock;
mod handshakes;
mod load;
mod machine;
mod messages;
mod openloop;
mod parts;
mod plot;
mod process;
mod proxies;
mod report;
mod row;
mod stats;
mod tools;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use parts::{Found, Part, Plan};
use process::Core;
use row::Verdict;

/// Oilskin's own, so that what stands beside it in this process has the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures, prints the table, and writes bench/RESULTS.md when everything was measured in full.
#[derive(Debug, Parser)]
struct Words {
    /// The parts to run; all without a name.
    parts: Vec<Part>,
    /// How often each pair is measured.
    #[arg(long, default_value_t = FULL_ROUNDS)]
    rounds: usize,
    /// How long each takes in a round.
    #[arg(long, default_value_t = FULL_SECONDS)]
    seconds: u32,
    /// Write bench/RESULTS.md though it is no full run; the rows of parts that were not run stay.
    #[arg(long)]
    write: bool,
}

const FULL_ROUNDS: usize = 21;
const FULL_SECONDS: u32 = 2;

impl Words {
    fn is_full(&self) -> bool {
        self.parts.is_empty() && self.rounds >= FULL_ROUNDS && self.seconds >= FULL_SECONDS
    }
}

fn main() -> ExitCode {
    match run(&Words::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was asked for could be measured.
fn run(words: &Words) -> Result<bool> {
    ensure!(words.rounds > 0 && words.seconds > 0, "nothing to measure");
    let folder = tempfile::tempdir()?;
    let parts = if words.parts.is_empty() { Part::value_variants().to_vec() } else { words.parts.clone() };
    let plan = Plan { parts, rounds: words.rounds, seconds: words.seconds, folder: folder.path().to_owned() };
    Core::Rest.take()?;
    let found = parts::run(&plan);
    println!("{}\n{}", report::table(&found.rows), found.sections.join("\n"));
    if words.is_full() || words.write {
        write(&found, &plan, words.parts.is_empty())?;
    }
    Ok(found.rows.iter().all(|row| row.verdict() != Verdict::Failed))
}

fn write(found: &Found, plan: &Plan, of_all_parts: bool) -> Result<()> {
    let folder = tools::top().join("bench");
    let page = folder.join("RESULTS.md");
    let (machine, run) = (machine::describe(), format!("{} rounds of {} s.", plan.rounds, plan.seconds));
    if !of_all_parts {
        let before = std::fs::read_to_string(&page)?;
        return Ok(std::fs::write(&page, report::merged(&before, found, &machine, &run))?);
    }
    std::fs::write(&page, report::page(found, &machine, &run))?;
    std::fs::write(folder.join("results.svg"), plot::svg(&found.rows))?;
    Ok(())
}

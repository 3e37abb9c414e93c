//! The parts of the bench. Each gives rows of the table, and perhaps a table of its own.

mod instructions;
mod keys;
mod micro;
mod outages;
mod providers;
mod side_by_side;
mod start;
mod stream;
mod swaps;
mod tls;
mod transit;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;

use crate::load::Front;
use crate::row::Row;
use side_by_side::{Asked, side_by_side};

/// What can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A POST of 370 bytes over HTTP/1.1, passed through.
    Pass,
    /// The same with three fields encrypted.
    Fields,
    /// The same passed through from HTTP/2 without TLS to HTTP/1.1.
    H2,
    /// 1 GB of JSON in one message, fields throughout.
    Stream,
    /// From exec to ready, and memory then.
    Start,
    /// Instructions with 1 and 1,000 routes.
    Routes,
    /// Instructions with 1 and 200 selectors.
    Selectors,
    /// The field engine beside a DOM and one libsodium call a field.
    Engine,
    /// The rewriter beside a parser that keeps nothing.
    Rewriter,
    /// Where the instructions of a request go.
    Profile,
    /// TLS: handshakes, bulk, open connections.
    Tls,
    /// Certificates that change under load.
    Swaps,
    /// Rotations, tenants that nobody asks for, starts with roots elsewhere.
    Keys,
    /// Fields that OpenBao encrypts, beside calls of its own.
    Transit,
    /// The same while OpenBao is killed every five seconds, for two minutes.
    Outages,
}

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    pub(crate) rounds: usize,
    pub(crate) seconds: u32,
    pub(crate) folder: PathBuf,
}

impl Plan {
    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// A new folder for a part's files.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder: &Path = &self.folder;
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// What a part found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) rows: Vec<Row>,
    /// Sections of Markdown that stand below the table.
    pub(crate) sections: Vec<String>,
}

/// Runs what the plan names, one after the other. A part that cannot be measured is a failed row and stops no other.
pub(crate) fn run(plan: &Plan) -> Found {
    let mut all = Found::default();
    let mut part = |name: &'static str, wanted: bool, work: &dyn Fn() -> Result<Found>| {
        if !wanted {
            return;
        }
        eprintln!("{name} …");
        match work() {
            Ok(found) => {
                all.rows.extend(found.rows);
                all.sections.extend(found.sections);
            }
            Err(error) => {
                eprintln!("{name} FAILED: {error:#}");
                all.rows.push(Row::failed(name, &error));
            }
        }
    };
    let asked = Asked { pass: plan.has(Part::Pass), fields: plan.has(Part::Fields) };
    part("pass, fields", asked.pass || asked.fields, &|| side_by_side(plan, Front::H1, asked));
    part("h2", plan.has(Part::H2), &|| side_by_side(plan, Front::H2c, Asked { pass: true, fields: false }));
    part("stream", plan.has(Part::Stream), &|| stream::run(plan));
    part("start", plan.has(Part::Start), &|| start::run(plan));
    part("routes", plan.has(Part::Routes), &|| instructions::routes(plan));
    part("selectors", plan.has(Part::Selectors), &|| instructions::selectors(plan));
    part("engine", plan.has(Part::Engine), &|| micro::engine(plan));
    part("rewriter", plan.has(Part::Rewriter), &|| micro::rewriter(plan));
    part("tls", plan.has(Part::Tls), &|| tls::run(plan));
    part("swaps", plan.has(Part::Swaps), &|| swaps::run(plan));
    part("keys", plan.has(Part::Keys), &|| keys::run(plan));
    part("keys", plan.has(Part::Keys), &|| providers::run(plan));
    part("transit", plan.has(Part::Transit), &|| transit::run(plan));
    part("outages", plan.has(Part::Outages), &|| outages::run(plan));
    part("profile", plan.has(Part::Profile), &|| instructions::profile(plan));
    all
}

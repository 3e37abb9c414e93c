//! Rows counted in instructions, and where the instructions of a request go.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Found, Plan};
use crate::callgrind::{Profile, per_request};
use crate::messages::{REQUEST, document, post};
use crate::proxies::Origin;
use crate::proxies::oilskin::{Alg, Settings};
use crate::row::{Goal, Row};
use crate::stats::{Interval, ratios};

/// Each run's start differs by some thousand instructions; this many requests make that nothing.
const REQUESTS: u32 = 1_000;
/// Instructions hardly vary, so three pairs show how little.
const PAIRS: usize = 3;
/// Functions shown of a profile.
const SHOWN: usize = 25;

/// 1 → 1,000 routes.
pub(super) fn routes(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("routes")?;
    let origin = Origin::start(&folder)?;
    let of = |routes: usize| {
        let routes: String = (0..routes)
            .map(|n| {
                format!(
                    "- {{name: r{n}, match: {{listener: out, path: \"/api/resource{n}/{{id}}\"}}, upstream: origin}}\n"
                )
            })
            .collect();
        Settings::document(&document_of(origin.address(), &routes))
    };
    let request = post("/api/resource0/42", REQUEST);
    let interval = growth(&of(1), &of(1_000), &request, &folder)?;
    let row = Row::ratio("routes", "1 → 1,000 routes, instructions a request", Goal::AtMost(1.10), interval);
    Ok(Found { rows: vec![row], sections: Vec::new() })
}

/// 1 → 200 selectors.
pub(super) fn selectors(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("selectors")?;
    let origin = Origin::start(&folder)?;
    let keys = origin.keys(Alg::XChaCha).context("no keys")?;
    let of = |select: &dyn Fn(usize) -> String, count: usize| {
        let others: String = (1..count).map(|n| format!("  - {{select: \"{}\"}}\n", select(n))).collect();
        let routes = format!(
            "- name: all\n  match: {{listener: out, path: \"/{{*rest}}\"}}\n  upstream: origin\n  fields:\n  - {{select: $.ssn}}\n{others}"
        );
        Settings::document(&document_of(origin.address(), &routes)).keys(keys)
    };
    let request = post("/customers", &document(120));
    let child = |n: usize| format!("$.member{}.secret{n}.value", n % 120);
    let deep = |n: usize| if n.is_multiple_of(2) { format!("$..secret{n}") } else { child(n) };
    let one = of(&child, 1);
    let mut rows = Vec::new();
    let forms: [(&str, &dyn Fn(usize) -> String); 2] = [("child selectors", &child), ("half of them `$..`", &deep)];
    for (form, select) in forms {
        let interval = growth(&one, &of(select, 200), &request, &folder)?;
        let what = format!("1 → 200 selectors, {form}, {} kB of JSON, instructions a request", request.len() / 1000);
        rows.push(Row::ratio("selectors", what, Goal::AtMost(2.0), interval));
    }
    Ok(Found { rows, sections: Vec::new() })
}

fn document_of(origin: SocketAddr, routes: &str) -> String {
    format!(
        "listeners: [{{name: out, bind: \"127.0.0.1:0\", direction: egress}}]\n\
         upstreams: {{origin: {{url: \"http://{origin}\"}}}}\nroutes:\n{routes}"
    )
}

fn growth(from: &Settings, to: &Settings, request: &[u8], folder: &Path) -> Result<Interval> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let folder = folder.join(format!("pair{pair}"));
        before.push(per_request(from, request, REQUESTS, &folder.join("from"))?.total);
        after.push(per_request(to, request, REQUESTS, &folder.join("to"))?.total);
    }
    Interval::range(&ratios(&after, &before)?)
}

/// Where the instructions of the POST go, passed through and with three fields.
pub(super) fn profile(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("profile")?;
    let origin = Origin::start(&folder)?;
    let settings = [
        ("pass-through".to_owned(), Settings::pass_through(origin.address())),
        fields(&origin, Alg::XChaCha),
        fields(&origin, Alg::Aegis),
    ];
    let mut found = Found::default();
    let mut first = None;
    for (name, settings) in settings {
        let profile = per_request(&settings, &post("/customers", REQUEST), REQUESTS, &folder.join(&name))
            .with_context(|| name.clone())?;
        found.sections.push(section(&name, &profile));
        let base = *first.get_or_insert(profile.total);
        let what = format!("{name}: instructions a request outside the kernel, against pass-through");
        let interval = Interval::range(&[profile.total / base])?;
        let row = Row::ratio("profile", what, Goal::Shown("beside the CPU time, which decides"), interval);
        found.rows.push(row.note(format!("{:.0} instructions", profile.total)));
    }
    Ok(found)
}

fn fields(origin: &Origin, alg: Alg) -> (String, Settings) {
    (format!("3 fields, {}", alg.shown()), Settings::fields(origin.address(), origin.keys(alg)))
}

fn section(name: &str, profile: &Profile) -> String {
    let mut text = format!(
        "### Profile: {name}\n\n{:.0} instructions a request outside the kernel, by function (callgrind, own cost).\n\n\
         | share | instructions | function |\n|--:|--:|---|\n",
        profile.total
    );
    for (function, cost) in profile.functions.iter().take(SHOWN) {
        text.push_str(&format!("| {:.1} % | {cost:.0} | `{}` |\n", 100.0 * cost / profile.total, shorter(function)));
    }
    text
}

/// A function's name without its hash and its recursion level, and not longer than a line.
fn shorter(function: &str) -> String {
    let name = function.split("::h").next().filter(|name| !name.is_empty()).unwrap_or(function);
    name.replace('|', "¦").chars().take(140).collect()
}

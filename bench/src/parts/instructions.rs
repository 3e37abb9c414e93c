//! Rows counted in instructions, and where the instructions of a request go.

use std::collections::HashMap;
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

/// Each run's start differs by some thousand instructions; this many requests make that a hundredth at most.
const REQUESTS: u32 = 400;
/// For a profile, where single functions count.
const PROFILED: u32 = 1_000;
/// Instructions hardly vary, so two pairs show how little.
const PAIRS: usize = 2;
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
    let interval = growth(&counts(&of(1), &request, &folder.join("one"))?, &of(1_000), &request, &folder)?;
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
    let one = counts(&of(&child, 1), &request, &folder.join("one"))?;
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

fn growth(before: &[f64], to: &Settings, request: &[u8], folder: &Path) -> Result<Interval> {
    Interval::range(&ratios(&counts(to, request, &folder.join("to"))?, before)?)
}

fn counts(settings: &Settings, request: &[u8], folder: &Path) -> Result<Vec<f64>> {
    (0..PAIRS).map(|_| Ok(per_request(settings, request, REQUESTS, folder)?.total)).collect()
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
        let profile = per_request(&settings, &post("/customers", REQUEST), PROFILED, &folder.join(&name))
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
    let share = |cost: f64| 100.0 * cost / profile.total;
    let crates: Vec<String> =
        by_crate(profile).iter().take(10).map(|(name, cost)| format!("{name} {:.0} %", share(*cost))).collect();
    let mut text = format!(
        "### Profile: {name}\n\n{:.0} instructions a request outside the kernel (callgrind, own cost): {}.\n\n\
         | share | instructions | function |\n|--:|--:|---|\n",
        profile.total,
        crates.join(", ")
    );
    for (function, cost) in profile.functions.iter().take(SHOWN) {
        text.push_str(&format!("| {:.1} % | {cost:.0} | `{}` |\n", share(*cost), shown(function)));
    }
    text
}

/// The dearest crates first; what is not Rust is one.
fn by_crate(profile: &Profile) -> Vec<(String, f64)> {
    let mut costs: HashMap<String, f64> = HashMap::new();
    for (function, cost) in &profile.functions {
        *costs.entry(crate_of(function).to_owned()).or_default() += cost;
    }
    let mut costs: Vec<_> = costs.into_iter().collect();
    costs.sort_by(|one, other| other.1.total_cmp(&one.1));
    costs
}

fn crate_of(function: &str) -> &str {
    let path = function.trim_start_matches(['<', '&', '*']);
    let path = path.strip_prefix("mut ").unwrap_or(path);
    path.split_once("::").map_or("C", |(name, _)| name)
}

/// A function's name without its hash, and not longer than a line.
fn shown(function: &str) -> String {
    let name = match function.rsplit_once("::h") {
        Some((name, hash)) if hash.len() >= 16 && hash.bytes().take(16).all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => function,
    };
    name.replace('|', "¦").chars().take(140).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_without_hash_and_belong_to_a_crate() {
        assert_eq!(shown("http::header::map::get::h0123456789abcdef"), "http::header::map::get");
        assert_eq!(shown("<hyper::proto::h1::Conn as T>::poll"), "<hyper::proto::h1::Conn as T>::poll");
        assert_eq!(crate_of("<hyper::proto::h1::Conn as T>::poll"), "hyper");
        assert_eq!(crate_of("<&mut tokio::net::TcpStream>::read"), "tokio");
        assert_eq!(crate_of("__memcpy_avx"), "C");
    }
}

//! Keys: how soon a rotation is everywhere, and what tenants cost that nobody asks for.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oilskin_tests::Upstream;
use oilskin_tests::process::free_port;

use super::{Found, Plan};
use crate::answer::Client;
use crate::process::{Core, Running, pause};
use crate::proxies::oilskin::{Alg, Keys, Settings};
use crate::row::{Goal, Row};
use crate::stats::Interval;
use crate::tools;

const METRICS: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n";

/// Replicas that a rotation has to reach.
const REPLICAS: usize = 5;

/// Refreshes are that far apart, so that a rotation takes seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Rotations that are timed: each takes three intervals and a little.
const ROTATIONS: usize = 7;

/// Keysets configured, and those in use.
const TENANTS: usize = 10_000;
const HOT: usize = 100;

pub(super) fn run(plan: &Plan) -> Result<Found> {
    let mut rows = vec![rotation(&plan.folder("rotation")?)?];
    rows.extend(tenants(&plan.folder("tenants")?, plan.rounds.min(5))?);
    Ok(Found { rows, sections: Vec::new() })
}

/// From the moment a version is active in the store to the last replica that holds it so.
fn rotation(folder: &Path) -> Result<Row> {
    let keys = Keys::make_with(Alg::XChaCha, folder, &[("OILSKIN_KEY_REFRESH", "1s")])?;
    let mut replicas = Vec::new();
    for number in 0..REPLICAS {
        let metrics = free_port();
        let settings = Settings::fields(free_port(), Some(&keys))
            .var("OILSKIN_METRICS_LISTEN", &metrics.to_string())
            .var("OILSKIN_KEY_REFRESH", "1s");
        let log = folder.join(format!("log{number}"));
        let mut running = Running::spawn("oilskin", &mut settings.command()?, Core::Rest, &log)?;
        running.until(|_| epoch(metrics))?;
        replicas.push((running, metrics));
    }
    let document = folder.join("keys/default.json");
    let mut intervals = Vec::new();
    for turn in 1..=ROTATIONS as u64 {
        let active = 1 + 2 * turn;
        let mut rotate = Command::new(tools::oilskin()?);
        rotate.env_clear().envs(keys.variables()).env("OILSKIN_KEY_REFRESH", "1s").args(["keys", "rotate"]);
        let mut rotating = rotate.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
        let wanted = format!("\"epoch\":{active},");
        let begun = Instant::now();
        while !std::fs::read_to_string(&document)?.contains(&wanted) {
            ensure!(begun.elapsed() < Duration::from_secs(60), "no rotation in a minute");
            pause(Duration::from_millis(2));
        }
        let written = Instant::now();
        for (running, metrics) in &mut replicas {
            running.until(|_| epoch(*metrics).filter(|epoch| *epoch >= active))?;
        }
        intervals.push(written.elapsed().as_secs_f64() / INTERVAL.as_secs_f64());
        ensure!(rotating.wait()?.success(), "a rotation failed");
    }
    let row = Row::value(
        "keys",
        format!("a rotation is seen by each of {REPLICAS} replicas, in refresh intervals"),
        Goal::AtMost(2.0),
        "intervals",
        Interval::range(&intervals)?,
    );
    Ok(row.note(format!("interval: all {ROTATIONS} rotations")))
}

fn epoch(metrics: SocketAddr) -> Option<u64> {
    let mut client = Client::connect(metrics).ok()?;
    let page = String::from_utf8_lossy(client.ask(METRICS).ok()?);
    let line = page.lines().find_map(|line| line.strip_prefix("oilskin_keyset_epoch{keyset=\"default\"} "))?;
    line.trim().parse().ok()
}

/// The same load on a store with as many keysets as are hot, and on one with a hundred times as many.
fn tenants(folder: &Path, rounds: usize) -> Result<Vec<Row>> {
    let (few, many) = (folder.join("few"), folder.join("many"));
    let upstream = Upstream::echo();
    let stores = [(Keys::tenants(&few, HOT)?, HOT), (Keys::tenants(&many, TENANTS)?, TENANTS)];
    let (mut memory, mut start) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut found = Vec::new();
        for (keys, count) in &stores {
            found.push(one(folder, keys, *count, round, &upstream)?);
        }
        let [(few_start, few_memory), (many_start, many_memory)] = found.as_slice() else { continue };
        memory.push((many_memory - few_memory) / 1e6);
        start.push((many_start - few_start) * 1e3);
    }
    let what = format!("{TENANTS} keysets, {HOT} in use, beside {HOT} keysets");
    Ok(vec![
        Row::value("keys", format!("{what}: RSS more"), Goal::AtMost(2.0), "MB", Interval::range(&memory)?),
        Row::value("keys", format!("{what}: start later by"), Goal::AtMost(5.0), "ms", Interval::range(&start)?),
    ])
}

/// Seconds to ready, and bytes once all hot tenants were asked for.
fn one(folder: &Path, keys: &Keys, count: usize, round: usize, upstream: &Upstream) -> Result<(f64, f64)> {
    let (listen, health) = (free_port(), free_port());
    let document = format!(
        "listeners: [{{name: out, bind: \"{listen}\", direction: egress}}]\nupstreams: {{up: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, tenant: {{header: x-tenant}}, \
         fields: [{{select: $.ssn, keyset: \"t{{tenant}}\"}}]}}\n",
        upstream.url()
    );
    let settings = Settings::document(&document).keys(keys).var("OILSKIN_HEALTH_LISTEN", &health.to_string());
    let mut command = settings.command()?;
    let before = Instant::now();
    let log = folder.join(format!("log{count}-{round}"));
    let mut running = Running::spawn("oilskin", &mut command, Core::Proxy, &log)?;
    let ready = b"GET /ready HTTP/1.1\r\nHost: bench\r\n\r\n";
    running.until(|_| Client::connect(health).is_ok_and(|mut client| client.ask(ready).is_ok()).then_some(()))?;
    let start = before.elapsed().as_secs_f64();
    for tenant in 0..HOT {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nX-Tenant: {tenant}\r\nContent-Length: 11\r\n\
             Connection: close\r\n\r\n{{\"ssn\":\"1\"}}"
        );
        Client::connect(listen)?.ask(request.as_bytes())?;
    }
    let rss = running.rss().context("its memory")? as f64;
    Ok((start, rss))
}

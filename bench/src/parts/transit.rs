//! Fields that OpenBao encrypts, beside a call of its own for each field, and one for each request.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oilskin_tests::process::free_port;
use oilskin_tests::transit::Bench;
use oilskin_tests::vault::{ROOT, Vault};

use super::{Found, Plan};
use crate::answer::Client;
use crate::load;
use crate::messages::{FIELDS, REQUEST, post};
use crate::process::{Core, Running};
use crate::proxies::Origin;
use crate::proxies::oilskin::Settings;
use crate::row::{Goal, Row};
use crate::stats::{Interval, median, ratios};

/// Connections of the crowd.
const CROWD: usize = 64;

/// Fields of a large body.
const MANY: usize = 120;

/// Requests of a lonely client in a round.
const LONELY: usize = 200;

pub(super) fn run(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("transit")?;
    let bench = Bench::new();
    let vault = &bench.vault;
    let origin = Origin::start(&folder)?;
    let (three, _three) = sidecar(&folder, "three", origin.address(), Some((vault, FIELDS)))?;
    let (many, _many) = sidecar(&folder, "many", origin.address(), Some((vault, "$.list[*] context=list")))?;
    let (pass, _pass) = sidecar(&folder, "pass", origin.address(), None)?;
    let mut rows = crowd(plan, &folder, vault, three)?;
    let direct = vault.address();
    let value = "a value of a field ".repeat(6);
    let large = format!("{{\"list\":[{}]}}", vec![format!("\"{value}\""); MANY].join(","));
    rows.push(lonely(
        plan,
        (three, REQUEST),
        pass,
        (direct, &batch(3, SSN)),
        Goal::AtMost(1.1),
        "one lonely client, 3 fields",
    )?);
    let what = format!("one lonely client, {MANY} fields in {} kB", large.len() / 1_000);
    rows.push(lonely(plan, (many, &large), pass, (direct, &batch(MANY, &value)), Goal::AtMost(1.1), &what)?);
    Ok(Found { rows, sections: Vec::new() })
}

pub(super) fn sidecar(
    folder: &Path,
    name: &str,
    upstream: SocketAddr,
    vault: Option<(&Vault, &str)>,
) -> Result<(SocketAddr, Running)> {
    let (listen, health) = (free_port(), free_port());
    let mut settings = Settings::pass_through(upstream).var("OILSKIN_LISTEN", &listen.to_string());
    settings = settings.var("OILSKIN_HEALTH_LISTEN", &health.to_string());
    if let Some((vault, fields)) = vault {
        settings = settings.var("OILSKIN_FIELDS", fields).var("OILSKIN_BACKEND", "vault:transit/keys/pii");
        settings = settings.var("VAULT_ADDR", &vault.url()).var("VAULT_TOKEN", ROOT);
    }
    let mut running =
        Running::spawn("oilskin", &mut settings.command()?, Core::Proxy, &folder.join(format!("{name}.log")))?;
    let ready = b"GET /ready HTTP/1.1\r\nHost: bench\r\n\r\n";
    running.until(|_| Client::connect(health).is_ok_and(|mut client| client.ask(ready).is_ok()).then_some(()))?;
    Ok((listen, running))
}

/// A value of a field.
pub(super) const SSN: &str = "123-45-6789";

/// One field, as a call of its own holds it.
fn item(value: &str) -> String {
    let context = STANDARD.encode(b"\0\0\0\0\0\0\0\x03ssn");
    format!("{{\"plaintext\":\"{}\",\"context\":\"{context}\"}}", STANDARD.encode(format!("\0oil\x01\x01{value}")))
}

pub(super) fn batch(fields: usize, value: &str) -> String {
    format!("{{\"batch_input\":[{}]}}", vec![item(value); fields].join(","))
}

/// Fields of a request's head.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// Fields a second of a crowd, by each of the three ways.
fn crowd(plan: &Plan, folder: &Path, vault: &Vault, proxy: SocketAddr) -> Result<Vec<Row>> {
    let (encrypt, token) = (format!("{}/v1/transit/encrypt/pii", vault.url()), [("X-Vault-Token", ROOT)]);
    let ours = format!("http://{proxy}/customers");
    let ways: [(&str, String, Fields<'_>, f64); 3] = [
        (&encrypt, item(SSN), &token, 1.0),
        (&encrypt, batch(3, SSN), &token, 3.0),
        (&ours, REQUEST.to_owned(), &[], 3.0),
    ];
    let mut found: [Vec<f64>; 3] = Default::default();
    for round in 0..=plan.rounds {
        for ((url, body, fields, each), series) in ways.iter().zip(&mut found) {
            let counted =
                load::posts(url, body, fields, (CROWD, plan.seconds), folder).with_context(|| (*url).to_owned())?;
            // The first round warms everything up.
            if round > 0 {
                series.push(counted.requests as f64 * each / counted.seconds);
            }
        }
    }
    let [single, request, shared] = &found;
    let note = format!(
        "{:.0} fields/s by a call each, {:.0} by a call a request, {:.0} by Oilskin",
        median(single)?,
        median(request)?,
        median(shared)?
    );
    let row = |what: &str, least: f64, under: &[f64]| -> Result<Row> {
        let interval = Interval::bootstrap(&ratios(shared, under)?)?;
        Ok(Row::ratio(
            "transit",
            format!("{CROWD} clients, 3 fields each: fields/s / {what}"),
            Goal::AtLeast(least),
            interval,
        ))
    };
    Ok(vec![row("a call for each field", 10.0, single)?.note(note), row("a call for each request", 3.0, request)?])
}

/// The median time of a request through a sidecar, over that of a pass-through and a direct call together.
fn lonely(
    plan: &Plan,
    (proxy, body): (SocketAddr, &str),
    pass: SocketAddr,
    (vault, call): (SocketAddr, &str),
    goal: Goal,
    what: &str,
) -> Result<Row> {
    let post = |body: &str| post("/customers", body);
    let call = format!(
        "POST /v1/transit/encrypt/pii HTTP/1.1\r\nHost: bench\r\nX-Vault-Token: {ROOT}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{call}",
        call.len()
    );
    // A direct call goes the way that the sidecar's call goes: from the core that it runs on, which wakes Vault on the other one.
    let ways =
        [(proxy, post(body), Core::Rest), (pass, post(body), Core::Rest), (vault, call.into_bytes(), Core::Proxy)];
    let mut ways = ways.map(|(address, request, core)| Client::connect(address).map(|client| (client, request, core)));
    let (mut shared, mut alone) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds {
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..LONELY {
            for (way, times) in ways.iter_mut().zip(&mut times) {
                let (client, request, core) = way.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
                core.take()?;
                let begun = Instant::now();
                client.ask(request)?;
                times.push(begun.elapsed().as_secs_f64() * 1e6);
            }
        }
        Core::Rest.take()?;
        let [ours, passed, called] = times;
        if round > 0 {
            shared.push(median(&ours)?);
            alone.push(median(&passed)? + median(&called)?);
        }
    }
    let note = format!("{:.0} µs / {:.0} µs; each call from the sidecar's core", median(&shared)?, median(&alone)?);
    let what = format!("{what}: time / (pass-through + one direct call)");
    Ok(Row::ratio("transit", what, goal, Interval::bootstrap(&ratios(&shared, &alone)?)?).note(note))
}

//! TLS: handshakes, bulk, open connections, and what the hybrid key exchange costs.

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{ClientConfig, NamedGroup};
use std::sync::Arc;

use super::micro::seconds;
use super::{Found, Plan};
use crate::certificates::{Certificates, Tls};
use crate::handshakes::{self, Open, Wanted};
use crate::load::{self, Front};
use crate::process::pause;
use crate::proxies::{Kind, Origin, Proxy};
use crate::row::{Goal, Row};
use crate::stats::{Interval, median, ratios};

/// Connections that stay open.
const IDLE: usize = 5_000;

/// Key exchanges in one sample.
const EXCHANGES: usize = 100;

/// nginx is the measure, Envoy stands beside.
const KINDS: [Kind; 4] = [Kind::Nginx, Kind::NginxAgain, Kind::Envoy, Kind::Oilskin];

/// What is done over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Full,
    Resumed,
    Bulk,
}

pub(super) fn run(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("tls")?;
    let certificates = Certificates::make(&folder.join("certificates"))?;
    let origin = Origin::start(&folder)?;
    let start = |mutual: bool| -> Result<Vec<Proxy>> {
        let tls = Tls { certificates: &certificates, mutual };
        let folder = folder.join(if mutual { "mutual" } else { "plain" });
        KINDS.into_iter().map(|kind| Proxy::start(kind, Front::H1, Some(tls), &origin, &folder)).collect()
    };
    let mut found = Found::default();
    let mut text = format!(
        "### TLS 1.3, ECDSA P-256, X25519, one worker\n\nMedians of {} rounds of {} s: CPU µs a handshake (mTLS) or a request.\n\n\
         | proxy | full | resumed | 15 kB there and back |\n|---|--:|--:|--:|\n",
        plan.rounds, plan.seconds
    );
    let (mutual, plain) = (start(true)?, start(false)?);
    let client = handshakes::client(Tls { certificates: &certificates, mutual: true })?;
    let measured = [
        measure(plan, &mutual, Work::Full, &client)?,
        measure(plan, &mutual, Work::Resumed, &client)?,
        measure(plan, &plain, Work::Bulk, &client)?,
    ];
    for ((work, most, envoy), cpu) in [
        ("full mTLS handshake: CPU", 1.0, Goal::Shown("beside the others")),
        ("resumed mTLS handshake: CPU", 1.0, Goal::Shown("beside the others")),
        ("15 kB there and back, keep-alive: CPU a request", 1.25, Goal::AtMost(0.4)),
    ]
    .into_iter()
    .zip(&measured)
    {
        found.rows.extend(rows(work, most, envoy, cpu)?);
    }
    for (at, kind) in KINDS.iter().enumerate() {
        text.push_str(&format!("| {} |", kind.name()));
        for cpu in &measured {
            text.push_str(&format!(" {:.1} |", median(cpu.get(at).context("a proxy was not run")?)?));
        }
        text.push('\n');
    }
    drop((mutual, plain));
    found.sections.push(text);
    found.rows.push(hybrid(plan)?);
    let idle = Proxy::start(
        Kind::Oilskin,
        Front::H1,
        Some(Tls { certificates: &certificates, mutual: true }),
        &origin,
        &folder,
    )?;
    found.rows.push(open_connections(&idle, &client)?);
    Ok(found)
}

/// CPU microseconds of each proxy, a value a round.
fn measure(plan: &Plan, proxies: &[Proxy], work: Work, client: &Arc<ClientConfig>) -> Result<Vec<Vec<f64>>> {
    let folder = plan.folder("tls")?;
    let mut cpu: Vec<Vec<f64>> = proxies.iter().map(|_| Vec::new()).collect();
    let once = |proxy: &Proxy, seconds: u32| match work {
        Work::Full => handshakes::run(proxy.address, client, Wanted::Full, seconds),
        Work::Resumed => handshakes::run(proxy.address, client, Wanted::Resumed, seconds),
        Work::Bulk => load::bulk(proxy.address, seconds, &folder),
    };
    for proxy in proxies {
        once(proxy, 1).with_context(|| proxy.kind.name())?;
    }
    for round in 0..plan.rounds {
        let mut turn: Vec<_> = proxies.iter().zip(&mut cpu).collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for (proxy, cpu) in turn {
            let before = proxy.running.cpu()?;
            let counted = once(proxy, plan.seconds).with_context(|| format!("{work:?}, {}", proxy.kind.name()))?;
            let spent = proxy.running.cpu()?.saturating_sub(before);
            cpu.push(spent.as_secs_f64() * 1e6 / counted.requests as f64);
        }
        eprintln!("  {work:?}, round {} of {}", round + 1, plan.rounds);
    }
    Ok(cpu)
}

fn rows(what: &str, most: f64, envoy: Goal, cpu: &[Vec<f64>]) -> Result<Vec<Row>> {
    let [nginx, again, envoys, ours] = cpu else { anyhow::bail!("a proxy was not run") };
    let row = |over: &[f64], under: &[f64], name: &str, goal| -> Result<Row> {
        Ok(Row::ratio("tls", format!("{what}: {name}"), goal, Interval::bootstrap(&ratios(over, under)?)?))
    };
    Ok(vec![
        row(ours, nginx, "Oilskin / nginx", Goal::AtMost(most))?,
        row(ours, envoys, "Oilskin / Envoy", envoy)?,
        row(again, nginx, "nginx again / nginx", Goal::Shown("1: what it differs by is noise"))?,
    ])
}

/// Both sides of the hybrid exchange in one thread, less both sides of X25519.
fn hybrid(plan: &Plan) -> Result<Row> {
    let provider: Arc<CryptoProvider> = oilskin::tls_provider();
    let group = |name: NamedGroup| -> Result<&'static dyn SupportedKxGroup> {
        provider.kx_groups.iter().copied().find(|group| group.name() == name).with_context(|| format!("no {name:?}"))
    };
    let (both, classical) = (group(NamedGroup::X25519MLKEM768)?, group(NamedGroup::X25519)?);
    let exchange = |group: &dyn SupportedKxGroup| -> Result<()> {
        for _ in 0..EXCHANGES {
            let ours = group.start()?;
            let theirs = group.start_and_complete(ours.pub_key())?;
            ours.complete(&theirs.pub_key)?;
        }
        Ok(())
    };
    let mut extra = Vec::new();
    for _ in 0..plan.rounds {
        let mut outcome = Ok(());
        let with = seconds(&mut || outcome = exchange(both));
        outcome?;
        let mut outcome = Ok(());
        let without = seconds(&mut || outcome = exchange(classical));
        outcome?;
        extra.push((with - without) * 1e6 / EXCHANGES as f64);
    }
    let what = "X25519MLKEM768 beyond X25519, both sides together: CPU";
    Ok(Row::value("tls", what, Goal::AtMost(180.0), "µs", Interval::bootstrap(&extra)?))
}

/// Memory of connections that do nothing, each after its handshake.
fn open_connections(proxy: &Proxy, client: &Arc<ClientConfig>) -> Result<Row> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("too few open files are allowed: raise `ulimit -Hn`")?;
    let before = proxy.running.rss()?;
    let open = (0..IDLE).map(|_| Open::new(proxy.address, client)).collect::<Result<Vec<_>>>()?;
    pause(std::time::Duration::from_secs(1));
    let each = proxy.running.rss()?.saturating_sub(before) as f64 / 1e3 / IDLE as f64;
    drop(open);
    let row = Row::value(
        "tls",
        format!("{IDLE} idle mTLS connections: RSS of each"),
        Goal::AtMost(45.0),
        "kB",
        Interval::range(&[each])?,
    );
    Ok(row.note("one run: memory is used again, so a second one would look better"))
}

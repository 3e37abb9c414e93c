//! Proxies in turn before one origin: CPU time a request by pair, requests a second, latency and memory beside.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Found, Plan};
use crate::load::{self, Front};
use crate::openloop;
use crate::proxies::oilskin::Alg;
use crate::proxies::{Kind, Origin, Proxy};
use crate::row::{Goal, Row};
use crate::stats::{Interval, median, ratios};

/// Requests a second of the open loop: a fifth of what the slowest of these takes on a slow core.
const RATE: u32 = 2_000;

/// Which rows are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) pass: bool,
    pub(super) fields: bool,
}

/// Measures all that the rows need in the same rounds.
pub(super) fn side_by_side(plan: &Plan, front: Front, asked: Asked) -> Result<Found> {
    let part = match front {
        Front::H1 => "pass",
        Front::H2c => "h2",
    };
    let folder = plan.folder(part)?;
    let origin = Origin::start(&folder)?;
    let proxies: Vec<Proxy> = kinds(asked)
        .into_iter()
        .map(|kind| Proxy::start(kind, front, None, &origin, &folder))
        .collect::<Result<_>>()?;
    let series = measure(plan, front, &proxies, &folder)?;
    origin.check().context("the origin did not last")?;
    let measured = Measured { part, series };
    let mut found = Found::default();
    if asked.pass {
        found.rows.extend(measured.pass_rows(front)?);
    }
    if asked.fields {
        found.rows.extend(measured.fields_rows()?);
    }
    found.sections.push(measured.section(front, plan)?);
    Ok(found)
}

fn kinds(asked: Asked) -> Vec<Kind> {
    let mut kinds = vec![Kind::Envoy, Kind::Oilskin];
    if asked.pass {
        kinds.extend([Kind::Nginx, Kind::NginxAgain, Kind::Haproxy]);
    }
    if asked.fields {
        kinds.extend(Alg::ALL.map(Kind::OilskinFields));
        kinds.extend(Alg::ALL.map(Kind::OilskinRoundTrip));
    }
    kinds
}

/// What one proxy did, a value a round.
struct Series {
    kind: Kind,
    /// Microseconds of CPU a request.
    cpu: Vec<f64>,
    requests_per_second: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    peak_rss_mb: f64,
}

fn measure(plan: &Plan, front: Front, proxies: &[Proxy], folder: &Path) -> Result<Vec<Series>> {
    let empty = |proxy: &Proxy| Series {
        kind: proxy.kind,
        cpu: Vec::new(),
        requests_per_second: Vec::new(),
        p50: Vec::new(),
        p99: Vec::new(),
        peak_rss_mb: 0.0,
    };
    let mut all: Vec<Series> = proxies.iter().map(empty).collect();
    for proxy in proxies {
        // Connections, caches and allocators are warm before the first round.
        load::run(front, proxy.address, proxy.path, 1, folder).with_context(|| proxy.kind.name())?;
    }
    for round in 0..plan.rounds {
        let mut turn: Vec<_> = proxies.iter().zip(&mut all).collect();
        // There and back, so that what drifts falls on both of a pair.
        if round % 2 == 1 {
            turn.reverse();
        }
        for (proxy, series) in turn {
            once(plan, front, proxy, series, folder)
                .with_context(|| format!("round {round}, {}", proxy.kind.name()))?;
        }
        eprintln!("  round {} of {}", round + 1, plan.rounds);
    }
    for (proxy, series) in proxies.iter().zip(&mut all) {
        series.peak_rss_mb = proxy.running.peak_rss()? as f64 / 1e6;
    }
    Ok(all)
}

fn once(plan: &Plan, front: Front, proxy: &Proxy, series: &mut Series, folder: &Path) -> Result<()> {
    let before = proxy.running.cpu()?;
    let counted = load::run(front, proxy.address, proxy.path, plan.seconds, folder)?;
    let spent = proxy.running.cpu()?.saturating_sub(before);
    series.cpu.push(spent.as_secs_f64() * 1e6 / counted.requests as f64);
    series.requests_per_second.push(counted.requests as f64 / counted.seconds);
    if front == Front::H1 {
        let latency = openloop::run(proxy.address, proxy.path, RATE, Duration::from_secs(plan.seconds.into()) / 2)?;
        series.p50.push(latency.p50);
        series.p99.push(latency.p99);
    }
    Ok(())
}

struct Measured {
    part: &'static str,
    series: Vec<Series>,
}

impl Measured {
    fn of(&self, kind: Kind) -> Result<&Series> {
        self.series.iter().find(|series| series.kind == kind).with_context(|| format!("{} was not run", kind.name()))
    }

    fn row(&self, part: &'static str, over: Kind, under: Kind, goal: Goal) -> Result<Row> {
        let interval = Interval::bootstrap(&ratios(&self.of(over)?.cpu, &self.of(under)?.cpu)?)?;
        Ok(Row::ratio(part, format!("CPU a request: {} / {}", over.name(), under.name()), goal, interval))
    }

    fn pass_rows(&self, front: Front) -> Result<Vec<Row>> {
        let beside = Goal::Shown("beside the others");
        let (to_nginx, to_envoy) = match front {
            Front::H1 => (Goal::AtMost(1.25), Goal::Shown("≤ 0.4 expected")),
            Front::H2c => (beside, Goal::AtMost(0.5)),
        };
        let prefix = match front {
            Front::H1 => "370 B POST, HTTP/1.1",
            Front::H2c => "370 B POST, h2c in, HTTP/1.1 out",
        };
        let rows = [
            self.row(self.part, Kind::Oilskin, Kind::Nginx, to_nginx)?,
            self.row(self.part, Kind::Oilskin, Kind::Envoy, to_envoy)?,
            self.row(self.part, Kind::Haproxy, Kind::Nginx, beside)?,
            self.row(self.part, Kind::Envoy, Kind::Nginx, beside)?,
            self.row(self.part, Kind::NginxAgain, Kind::Nginx, Goal::Shown("1: what it differs by is noise"))?,
        ];
        Ok(rows.into_iter().map(|row| Row { what: format!("{prefix}: {}", row.what), ..row }).collect())
    }

    fn fields_rows(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (alg, most) in [(Alg::XChaCha, 1.20), (Alg::Aegis, 1.12)] {
            let (there, back) = (Kind::OilskinFields(alg), Kind::OilskinRoundTrip(alg));
            rows.push(self.row("fields", there, Kind::Oilskin, Goal::AtMost(most))?);
            rows.push(self.row("fields", there, Kind::Envoy, Goal::AtMost(0.5))?.note("Envoy passes through"));
            rows.push(self.row("fields", back, Kind::Oilskin, Goal::Shown("twice the work of the row above"))?);
        }
        Ok(rows)
    }

    fn section(&self, front: Front, plan: &Plan) -> Result<String> {
        let title = match front {
            Front::H1 => "HTTP/1.1, wrk with 32 connections",
            Front::H2c => "h2c in, HTTP/1.1 out, h2load with 8 connections of 4 streams",
        };
        let mut text = format!(
            "### {title}\n\nMedians of {} rounds of {} s; latency by the open loop at {RATE} requests a second.\n\n\
             | proxy | CPU µs a request | requests/s | p50 µs | p99 µs | peak RSS MB |\n|---|--:|--:|--:|--:|--:|\n",
            plan.rounds, plan.seconds
        );
        for series in &self.series {
            let cell = |samples: &[f64], digits: usize| match samples {
                [] => Ok("–".to_owned()),
                samples => median(samples).map(|median| format!("{median:.digits$}")),
            };
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {:.1} |\n",
                series.kind.name(),
                cell(&series.cpu, 1)?,
                cell(&series.requests_per_second, 0)?,
                cell(&series.p50, 0)?,
                cell(&series.p99, 0)?,
                series.peak_rss_mb
            ));
        }
        Ok(text)
    }
}

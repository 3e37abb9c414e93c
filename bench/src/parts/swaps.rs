//! Certificates that change under load, by pushes and by files: what fails, and what it costs those who wait.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oilskin_tests::mounted::Mounted;
use oilskin_tests::process::free_port;
use oilskin_tests::sds::{self, Sds, Secret};
use rustls::ClientConfig;

use super::{Found, Plan};
use crate::answer::Client;
use crate::certificates::{Certificates, Tls};
use crate::churn::{self, CONNECTIONS, REQUESTS, Seen};
use crate::handshakes::{self, Open};
use crate::process::{Core, Running, pause};
use crate::proxies::Origin;
use crate::proxies::oilskin::Settings;
use crate::row::{Goal, Row};
use crate::stats::{Interval, percentile, ratios, sorted};

/// Requests a second: what the open loop of the other parts asks for, too.
const RATE: u32 = 2_000;
/// 1,000 a minute.
const BETWEEN_PUSHES: Duration = Duration::from_millis(60);
/// 20 a minute.
const BETWEEN_SWAPS: Duration = Duration::from_secs(3);
/// Every so many pushes bring other authorities, too.
const TRUST_EVERY: usize = 10;
/// Connections that do nothing meanwhile: whom they belong to is asked again after a change.
const IDLE: usize = 300;
/// For a change to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

pub(super) fn run(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("swaps")?;
    // 20 rounds and the usual two seconds make the minute.
    let time = Duration::from_millis(1_500) * plan.seconds;
    let certificates = Certificates::make(&folder.join("certificates"))?;
    let client = handshakes::client(Tls { certificates: &certificates, mutual: true })?;
    let origin = Origin::start(&folder)?;
    let a_round = |between: Duration| (time.as_millis() / between.as_millis()).max(1) as usize;
    let mut pushed = Pushed::start(&certificates, &origin, &folder, a_round(BETWEEN_PUSHES), plan.rounds)?;
    let mut files = Filed::start(&certificates, &origin, &folder, a_round(BETWEEN_SWAPS), plan.rounds)?;
    churn::run(pushed.proxy.address, &client, RATE, time / 4).context("before the first round")?;
    churn::run(files.proxy.address, &client, RATE, time / 4).context("before the first round")?;
    let mut all: [Series; 3] = Default::default();
    for round in 0..plan.rounds {
        let mut order = [0, 1, 2];
        order.rotate_left(round % 3);
        for which in order {
            let seen = match which {
                0 => once(&pushed.proxy, &client, time, || Ok(0)),
                1 => once(&pushed.proxy, &client, time, || pushed.swaps.push()),
                _ => once(&files.proxy, &client, time, || files.swaps.swap()),
            };
            let seen = seen.with_context(|| format!("round {round}, {}", pushed.proxy.running.said()))?;
            all.get_mut(which).context("no such setting")?.add(seen)?;
        }
        let last = all.iter().filter_map(|series| series.p99.last()).map(|p99| format!("{:.2}", p99 / 1e3));
        let last = last.collect::<Vec<_>>().join(", ");
        eprintln!("  round {} of {}: p99 {last} ms", round + 1, plan.rounds);
    }
    origin.check().context("the origin did not last")?;
    report(plan, time, &all)
}

/// An Oilskin whose certificates change.
struct Proxy {
    running: Running,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Proxy {
    fn start(settings: Settings, folder: &Path) -> Result<Self> {
        let metrics = free_port();
        let settings = settings.var("OILSKIN_METRICS_LISTEN", &metrics.to_string());
        let (running, address) = settings.start(Core::Proxy, folder)?;
        let proxy = Self { running, address, metrics };
        proxy.until_taken(1)?;
        Ok(proxy)
    }

    /// How often it has changed to what it was given. Anything that it refused is an error.
    fn taken(&self) -> Result<usize> {
        let mut client = Client::connect(self.metrics)?;
        let page = client.ask(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        let page = String::from_utf8_lossy(page);
        let mut taken = 0;
        for line in page.lines().filter(|line| line.starts_with("oilskin_cert_refreshes_total{")) {
            ensure!(line.contains("result=\"ok\""), "{line}: {}", self.running.said());
            taken += line.rsplit(' ').next().context("no number")?.parse::<usize>()?;
        }
        Ok(taken)
    }

    fn until_taken(&self, wanted: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.taken()?;
            ensure!(taken <= wanted, "{taken} changes of {wanted} were taken");
            if taken == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{taken} changes of {wanted} were taken: {}", self.running.said());
            pause(Duration::from_millis(2));
        }
    }
}

/// What one setting did in one round.
struct Once {
    seen: Seen,
    swaps: usize,
    cpu: Duration,
}

/// Load for `time`, beside `swapping`, which tells how many changes it made; all of them must have been taken.
fn once(
    proxy: &Proxy,
    client: &Arc<ClientConfig>,
    time: Duration,
    swapping: impl FnOnce() -> Result<usize> + Send,
) -> Result<Once> {
    let idle = (0..IDLE).map(|_| Open::new(proxy.address, client)).collect::<Result<Vec<_>>>()?;
    let (taken, cpu) = (proxy.taken()?, proxy.running.cpu()?);
    let (seen, swaps) = std::thread::scope(|scope| -> Result<_> {
        let swapping = scope.spawn(swapping);
        let seen = churn::run(proxy.address, client, RATE, time);
        let swaps = swapping.join().map_err(|_| anyhow::anyhow!("who changes the certificates panicked"))?;
        Ok((seen?, swaps?))
    })?;
    let cpu = proxy.running.cpu()?.saturating_sub(cpu);
    proxy.until_taken(taken + swaps)?;
    drop(idle);
    Ok(Once { seen, swaps, cpu })
}

/// Changes at their times.
fn at_times<T>(between: Duration, these: &mut dyn Iterator<Item = T>, mut change: impl FnMut(T)) -> usize {
    let start = Instant::now();
    let mut count = 0;
    for this in these {
        // Half an interval in: neither with the load's start nor past its end.
        let due = start + between * count + between / 2;
        pause(due.saturating_duration_since(Instant::now()));
        change(this);
        count += 1;
    }
    count as usize
}

struct Pushed {
    proxy: Proxy,
    swaps: Pushes,
}

struct Pushes {
    sds: Sds,
    a_round: usize,
    /// All that is pushed, made beforehand.
    all: std::vec::IntoIter<Vec<Secret>>,
}

impl Pushed {
    fn start(
        certificates: &Certificates,
        origin: &Origin,
        folder: &Path,
        a_round: usize,
        rounds: usize,
    ) -> Result<Self> {
        let own = std::fs::read(certificates.path("ca.pem"))?;
        certificates.authority("other")?;
        let both = [own.clone(), std::fs::read(certificates.path("other.pem"))?].concat();
        let mut all = Vec::new();
        for number in 0..=a_round * rounds {
            let name = format!("pushed-{number}");
            certificates.another(&name)?;
            let [chain, key] = ["pem", "key"].map(|end| std::fs::read(certificates.path(&format!("{name}.{end}"))));
            let mut secrets = vec![sds::pair("default", chain?, key?)];
            if number.is_multiple_of(TRUST_EVERY) {
                let bundle = if (number / TRUST_EVERY).is_multiple_of(2) { &own } else { &both };
                secrets.push(sds::authorities("ROOTCA", bundle.clone()));
            }
            all.push(secrets);
        }
        let mut all = all.into_iter();
        let socket = folder.join("sds");
        let sds = Sds::start(&socket);
        sds.put(all.next().context("nothing to push")?);
        let settings = Settings::pass_through(origin.address())
            .var("OILSKIN_TLS_SOURCE", &format!("sds:unix:{}", socket.display()));
        let proxy = Proxy::start(settings, &folder.join("pushed"))?;
        Ok(Self { proxy, swaps: Pushes { sds, a_round, all } })
    }
}

impl Pushes {
    fn push(&mut self) -> Result<usize> {
        let mut these = self.all.by_ref().take(self.a_round);
        Ok(at_times(BETWEEN_PUSHES, &mut these, |secrets| self.sds.put(secrets)))
    }
}

struct Filed {
    proxy: Proxy,
    swaps: Swaps,
}

struct Swaps {
    mounted: Mounted,
    a_round: usize,
    all: std::vec::IntoIter<[(&'static str, String); 3]>,
}

impl Filed {
    fn start(
        certificates: &Certificates,
        origin: &Origin,
        folder: &Path,
        a_round: usize,
        rounds: usize,
    ) -> Result<Self> {
        let mut all = Vec::new();
        for number in 0..=a_round * rounds {
            let name = format!("mounted-{number}");
            certificates.another(&name)?;
            let [chain, key] = ["pem", "key"].map(|end| certificates.path(&format!("{name}.{end}")));
            let [shown, private, ca] = FILES;
            all.push([(shown, chain), (private, key), (ca, certificates.path("ca.pem"))]);
        }
        let mut all = all.into_iter();
        let mounted = Mounted::new();
        mounted.put(&all.next().context("nothing to mount")?);
        let [chain, key, ca] = FILES.map(|file| mounted.path(file));
        let settings = Settings::pass_through(origin.address())
            .var("OILSKIN_TLS_CERT_FILE", &chain)
            .var("OILSKIN_TLS_KEY_FILE", &key)
            .var("OILSKIN_TLS_CLIENT_CA_FILE", &ca);
        let proxy = Proxy::start(settings, &folder.join("files"))?;
        Ok(Self { proxy, swaps: Swaps { mounted, a_round, all } })
    }
}

impl Swaps {
    fn swap(&mut self) -> Result<usize> {
        let mut these = self.all.by_ref().take(self.a_round);
        Ok(at_times(BETWEEN_SWAPS, &mut these, |files| self.mounted.put(&files)))
    }
}

/// All rounds of one setting.
#[derive(Default)]
struct Series {
    seen: Seen,
    swaps: usize,
    cpu: Duration,
    /// A value a round.
    p99: Vec<f64>,
}

impl Series {
    fn add(&mut self, once: Once) -> Result<()> {
        self.p99.push(percentile(&sorted(&once.seen.requests)?, 0.99)?);
        self.seen.add(once.seen);
        self.swaps += once.swaps;
        self.cpu += once.cpu;
        Ok(())
    }

    /// p50, p99, p99.9 of all rounds.
    fn line(samples: &[f64]) -> Result<String> {
        let sorted = sorted(samples)?;
        if sorted.is_empty() {
            return Ok("– | – | –".to_owned());
        }
        let of = |share| percentile(&sorted, share);
        Ok(format!("{:.0} | {:.0} | {:.0}", of(0.5)?, of(0.99)?, of(0.999)?))
    }
}

fn report(plan: &Plan, time: Duration, all: &[Series; 3]) -> Result<Found> {
    let [still, pushed, files] = all;
    let minutes = time.as_secs_f64() * plan.rounds as f64 / 60.0;
    let mut text = format!(
        "### Certificates that change: {CONNECTIONS} mTLS connections, each made anew after {REQUESTS} requests, {RATE} requests a \
         second, {IDLE} idle connections beside\n\n{} rounds of {} s. Latencies of all rounds in µs: of requests from when they were due, of handshakes from the \
         call to connect.\n\n| | changes taken | certificates seen | requests | p50 | p99 | p99.9 | full handshakes | p50 | p99 | p99.9 \
         | resumed | p50 | p99 | p99.9 | CPU, % of a core |\n|---|{}\n",
        plan.rounds,
        time.as_secs_f64(),
        "--:|".repeat(15)
    );
    for (name, series) in [("no change", still), ("pushed", pushed), ("files", files)] {
        let seen = &series.seen;
        text.push_str(&format!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} |\n",
            series.swaps,
            seen.certificates.len(),
            seen.requests.len(),
            Series::line(&seen.requests)?,
            seen.full.len(),
            Series::line(&seen.full)?,
            seen.resumed.len(),
            Series::line(&seen.resumed)?,
            series.cpu.as_secs_f64() / (time.as_secs_f64() * plan.rounds as f64) * 100.0
        ));
    }
    for series in [pushed, files] {
        // A handshake may fall between any two changes, but most changes are seen by one.
        ensure!(series.seen.certificates.len() * 2 > series.swaps, "new connections did not see the new certificates");
    }
    let row = |what: &str, series: &Series| -> Result<Row> {
        let interval = Interval::bootstrap(&ratios(&series.p99, &still.p99)?)?;
        let what = format!("{what}: p99 of requests / without");
        let note =
            format!("{} in {minutes:.1} min, {} certificates seen", series.swaps, series.seen.certificates.len());
        Ok(Row::ratio("swaps", what, Goal::AtMost(2.0), interval).note(note))
    };
    let failures: Vec<f64> = all.iter().map(|series| series.seen.failed as f64).collect();
    let first = all.iter().find_map(|series| series.seen.first_failure.clone());
    let failed = Row::value(
        "swaps",
        "requests and handshakes that failed, in each setting",
        Goal::AtMost(0.0),
        "",
        Interval::range(&failures)?,
    );
    let asked = |of: fn(&Seen) -> usize| all.iter().map(|series| of(&series.seen)).sum::<usize>();
    let (requests, handshakes) =
        (asked(|seen| seen.requests.len()), asked(|seen| seen.full.len() + seen.resumed.len()));
    let note = first.unwrap_or_else(|| format!("of {requests} requests and {handshakes} handshakes"));
    let rows =
        vec![row("1,000 pushes a minute", pushed)?, row("20 changes of files a minute", files)?, failed.note(note)];
    Ok(Found { rows, sections: vec![text] })
}

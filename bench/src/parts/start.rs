//! From exec to ready with a file root, and memory when nothing happens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use oilskin_tests::process::free_port;

use super::{Found, Plan};
use crate::answer::Client;
use crate::process::{Core, Running, pause};
use crate::proxies::oilskin::{Alg, Keys, Settings};
use crate::row::{Goal, Row};
use crate::stats::{Interval, median, sorted};

const READY: &[u8] = b"GET /ready HTTP/1.1\r\nHost: bench\r\n\r\n";
/// Idle: the start's own work is over.
const IDLE: Duration = Duration::from_millis(500);

pub(super) fn run(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("start")?;
    let keys = Keys::make(Alg::XChaCha, &folder)?;
    let (mut millis, mut megabytes, mut anonymous) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let health = free_port();
        let settings = Settings::fields(free_port(), Some(&keys)).var("OILSKIN_HEALTH_LISTEN", &health.to_string());
        let mut command = settings.command()?;
        let before = Instant::now();
        let mut running = Running::spawn("oilskin", &mut command, Core::Proxy, &folder.join(format!("log{round}")))?;
        let ready = running.until(|_| is_ready(health).then(Instant::now))?;
        millis.push((ready - before).as_secs_f64() * 1e3);
        pause(IDLE);
        megabytes.push(running.rss()? as f64 / 1e6);
        anonymous.push(running.anonymous_rss()? as f64 / 1e6);
    }
    let slowest = sorted(&millis)?.last().copied().unwrap_or_default();
    let start =
        Row::value("start", "from exec to ready, file root", Goal::AtMost(50.0), "ms", Interval::bootstrap(&millis)?);
    let idle = Row::value("start", "idle RSS", Goal::AtMost(15.0), "MB", Interval::range(&megabytes)?);
    let anonymous = median(&anonymous)?;
    let rows = vec![
        start.note(format!("slowest {slowest:.1} ms")),
        idle.note(format!("interval: all starts; {anonymous:.1} MB are no file's pages")),
    ];
    Ok(Found { rows, sections: Vec::new() })
}

fn is_ready(health: SocketAddr) -> bool {
    Client::connect(health).is_ok_and(|mut client| client.ask(READY).is_ok())
}

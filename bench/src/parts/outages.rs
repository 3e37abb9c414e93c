//! A Vault that is killed and started again under load: what replies are worth, and how soon fields are served again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::vault::{Durable, ROOT};

use super::transit::{SSN, batch, sidecar};
use super::{Found, Plan};
use crate::answer::Client;
use crate::messages::{FIELDS, REQUEST, post};
use crate::process::pause;
use crate::proxies::Origin;
use crate::row::{Goal, Row};
use crate::stats::{Interval, median};

/// How long all of it takes.
const SPAN: Duration = Duration::from_secs(120);

/// Between two kills.
const EVERY: Duration = Duration::from_secs(5);

/// How long it is down.
const DOWN: Duration = Duration::from_secs(1);

/// Clients that go on throughout.
const CLIENTS: usize = 8;

/// Longest time to a reply.
const DEADLINE: Duration = Duration::from_secs(8);

/// What clients were answered.
#[derive(Default)]
struct Replies {
    right: AtomicUsize,
    refused: AtomicUsize,
    /// Anything else, or a right one that was late.
    wrong: AtomicUsize,
}

pub(super) fn run(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("outages")?;
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    let mut vault = Durable::start(&authority);
    vault.transit_with("pii", "derived=true");
    let origin = Origin::start(&folder)?;
    let (proxy, running) = sidecar(&folder, "outages", origin.address(), Some((&vault, FIELDS)))?;
    let (replies, over) = (Replies::default(), AtomicBool::new(false));
    let (mut recoveries, mut memory) = (Vec::new(), Vec::new());
    thread::scope(|scope| -> Result<()> {
        for _ in 0..CLIENTS {
            scope.spawn(|| load(proxy, &replies, &over));
        }
        let done = (|| {
            let begun = Instant::now();
            while begun.elapsed() < SPAN {
                pause(EVERY - DOWN);
                recoveries.push(recovery(&mut vault, proxy)?);
                memory.push(running.rss()? as f64);
            }
            Ok(())
        })();
        over.store(true, Ordering::SeqCst);
        done
    })?;
    let [right, refused, wrong] =
        [&replies.right, &replies.refused, &replies.wrong].map(|count| count.load(Ordering::SeqCst));
    ensure!(right > 0 && refused > 0, "{right} right, {refused} refused: nothing was measured");
    let worst = recoveries.iter().copied().fold(0.0, f64::max);
    let exact = |value: f64| Interval { low: value, mid: value, high: value };
    let first = memory.first().copied().context("no kill")?;
    let last = memory.last().copied().unwrap_or(first);
    let rows = vec![
        Row::value(
            "outages",
            "Vault killed every 5 s: replies that are neither right nor a clean 503 in time",
            Goal::AtMost(0.0),
            "",
            exact(wrong as f64),
        )
        .note(format!("{right} right, {refused} refused, {} kills", recoveries.len())),
        Row::value(
            "outages",
            "from Vault's first answer to the first field, worst",
            Goal::AtMost(1.0),
            "s",
            exact(worst),
        )
        .note(format!("median {:.2} s", median(&recoveries)?)),
        Row::ratio("outages", "memory after the last kill / after the first", Goal::AtMost(1.2), exact(last / first))
            .note(format!("{:.1} MB", last / 1e6)),
    ];
    Ok(Found { rows, sections: Vec::new() })
}

/// One client's requests, each of which is answered rightly, refused, or wrong.
fn load(proxy: SocketAddr, replies: &Replies, over: &AtomicBool) {
    let request = post("/customers", REQUEST);
    let mut client = None;
    while !over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let answer = match &mut client {
            None => Client::connect(proxy).map(|made| client = Some(made)).map(|()| None),
            Some(client) => client.ask(&request).map(|_| Some(())),
        };
        let counted = match answer {
            Ok(None) => continue,
            Ok(Some(())) if begun.elapsed() <= DEADLINE => &replies.right,
            Err(error) if begun.elapsed() <= DEADLINE && error.to_string().starts_with("not 200: HTTP/1.1 503 ") => {
                // Its body was not read to its end.
                client = None;
                &replies.refused
            }
            _ => {
                client = None;
                &replies.wrong
            }
        };
        counted.fetch_add(1, Ordering::SeqCst);
        pause(Duration::from_millis(5));
    }
}

/// Kills Vault and starts it again; the seconds from its first answer to ours.
fn recovery(vault: &mut Durable, proxy: SocketAddr) -> Result<f64> {
    let direct = vault.address();
    let call = batch(1, SSN);
    let call = format!(
        "POST /v1/transit/encrypt/pii HTTP/1.1\r\nHost: bench\r\nX-Vault-Token: {ROOT}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{call}",
        call.len()
    );
    vault.kill();
    pause(DOWN);
    thread::scope(|scope| {
        scope.spawn(|| vault.up());
        let answers = first(direct, call.as_bytes(), Duration::from_millis(1))?;
        Ok((first(proxy, &post("/customers", REQUEST), Duration::from_millis(5))? - answers).as_secs_f64())
    })
}

/// When a 200 first came to that request, asked again and again.
fn first(address: SocketAddr, request: &[u8], every: Duration) -> Result<Instant> {
    let begun = Instant::now();
    loop {
        let answer = Client::connect(address).and_then(|mut client| client.ask(request).map(|_| ()));
        match answer {
            Ok(()) => return Ok(Instant::now()),
            Err(error) => ensure!(begun.elapsed() < Duration::from_secs(30), "no 200 within 30 s: {error:#}"),
        }
        pause(every);
    }
}

//! 1 GB of JSON in one request, fields throughout: memory, and that bytes leave while others still come.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

use super::{Found, Plan};
use crate::process::Core;
use crate::proxies::oilskin::{Alg, Keys, Settings};
use crate::row::{Goal, Row};
use crate::stats::Interval;

const BYTES: usize = 1_000_000_000;
const PIECE: usize = 64 << 10;
const RUNS: [(Alg, usize); 2] = [(Alg::XChaCha, 3), (Alg::Aegis, 1)];
const PATIENCE: Duration = Duration::from_secs(60);
/// Stands at the front of every protected value and nowhere else.
const SECRET: &str = "secret-";
const TOKEN: &str = "oil1.";

pub(super) fn run(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("stream")?;
    let mut found = Found::default();
    for (alg, runs) in RUNS {
        let keys = Keys::make(alg, &folder.join(alg.shown()))?;
        let (mut peaks, mut firsts, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..runs.min(plan.rounds) {
            let sink = TcpListener::bind("127.0.0.1:0")?;
            let settings = Settings::fields(sink.local_addr()?, Some(&keys))
                .var("OILSKIN_FIELDS", "$.rows[*].ssn, $.rows[*].email");
            let (running, address) = settings.start(Core::Proxy, &folder.join(format!("{}{run}", alg.shown())))?;
            let streamed = stream(address, sink).with_context(|| format!("oilskin said: {}", running.said()))?;
            peaks.push(running.peak_rss()? as f64 / 1e6);
            firsts.push(streamed.in_before_first_out as f64 / 1e6);
            rates.push(BYTES as f64 / 1e6 / streamed.time.as_secs_f64());
        }
        let name = alg.shown();
        let rate = Interval::range(&rates)?.mid;
        let what = format!("1 GB of streamed JSON, fields throughout, {name}: peak RSS");
        let peak = Row::value("stream", what, Goal::AtMost(40.0), "MB", Interval::range(&peaks)?);
        found.rows.push(peak.note(format!("interval: all runs; {rate:.0} MB/s in")));
        let what = format!("the same: read of the {} MB in when the first byte is out", BYTES / 1_000_000);
        let last = (BYTES - PIECE) as f64 / 1e6;
        found.rows.push(
            Row::value("stream", what, Goal::AtMost(last), "MB", Interval::range(&firsts)?).note("interval: all runs"),
        );
    }
    Ok(found)
}

struct Streamed {
    in_before_first_out: usize,
    time: Duration,
}

fn stream(address: SocketAddr, sink: TcpListener) -> Result<Streamed> {
    let first_out = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&first_out);
    let sink = thread::spawn(move || take(&sink, &seen));
    let start = Instant::now();
    let sent = send(address, &first_out);
    // A client that failed says less than the sink, unless the sink was never reached.
    let sent = sent.context("sending")?;
    let taken = sink.join().map_err(|_| anyhow::anyhow!("the sink panicked"))?.context("taking")?;
    ensure!(taken.secrets == 0, "{} protected values arrived as they were", taken.secrets);
    ensure!(taken.tokens == sent.fields, "{} tokens arrived for {} fields", taken.tokens, sent.fields);
    Ok(Streamed { in_before_first_out: sent.in_before_first_out, time: start.elapsed() })
}

struct Sent {
    fields: usize,
    in_before_first_out: usize,
}

/// Posts rows until [`BYTES`] are sent; reads the answer.
fn send(address: SocketAddr, first_out: &AtomicBool) -> Result<Sent> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(
        b"POST /rows HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let (mut bytes, mut rows) = (0, 0_usize);
    let mut in_before_first_out = None;
    let mut piece = br#"{"rows":["#.to_vec();
    while bytes < BYTES {
        while piece.len() < PIECE {
            let comma = if rows == 0 { "" } else { "," };
            write!(
                piece,
                r#"{comma}{{"id":{rows},"ssn":"{SECRET}{rows:09}","email":"{SECRET}{rows}@example.com","note":"row {rows} of a long stream: what is read here passes as it is, byte for byte, to its end","tags":["new","post"],"active":true,"balance":{rows}.25}}"#
            )?;
            rows += 1;
        }
        bytes += piece.len();
        if bytes >= BYTES {
            piece.extend_from_slice(b"]}");
        }
        if in_before_first_out.is_none() && first_out.load(Ordering::Acquire) {
            in_before_first_out = Some(bytes - piece.len());
        }
        chunk(&mut stream, &piece)?;
        piece.clear();
    }
    chunk(&mut stream, b"")?;
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(answer.get(..read).unwrap_or_default()).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 200"), "the answer is {answer}");
    Ok(Sent { fields: rows * 2, in_before_first_out: in_before_first_out.unwrap_or(bytes) })
}

fn chunk(stream: &mut TcpStream, piece: &[u8]) -> Result<()> {
    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
    stream.write_all(piece)?;
    stream.write_all(b"\r\n")?;
    Ok(())
}

struct Taken {
    tokens: usize,
    secrets: usize,
}

/// Takes one chunked request, counts, and answers.
fn take(sink: &TcpListener, first_out: &AtomicBool) -> Result<Taken> {
    let (stream, _) = sink.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(PIECE, stream);
    let (mut tokens, mut secrets) = (Counter::new(TOKEN), Counter::new(SECRET));
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "closed in the head");
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Ok(mut left) = usize::from_str_radix(line.trim(), 16) else { bail!("no chunk size: {line:?}") };
        let last = left == 0;
        while left > 0 {
            let piece = reader.fill_buf()?;
            let piece = piece.get(..left.min(piece.len())).unwrap_or_default();
            ensure!(!piece.is_empty(), "closed in the body");
            first_out.store(true, Ordering::Release);
            tokens.feed(piece);
            secrets.feed(piece);
            let read = piece.len();
            left -= read;
            reader.consume(read);
        }
        line.clear();
        reader.read_line(&mut line)?;
        if last {
            writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")?;
            return Ok(Taken { tokens: tokens.count, secrets: secrets.count });
        }
    }
}

/// Counts a needle in a stream, over the edges of its pieces too.
struct Counter {
    needle: &'static [u8],
    tail: Vec<u8>,
    count: usize,
}

impl Counter {
    fn new(needle: &'static str) -> Self {
        Self { needle: needle.as_bytes(), tail: Vec::new(), count: 0 }
    }

    fn feed(&mut self, piece: &[u8]) {
        let keep = self.needle.len() - 1;
        // What the edge holds: the last bytes before it and the first after it, too few on either side for a whole needle.
        self.tail.extend_from_slice(piece.get(..keep).unwrap_or(piece));
        self.count +=
            memmem::find_iter(&self.tail, self.needle).count() + memmem::find_iter(piece, self.needle).count();
        if piece.len() >= keep {
            self.tail.clear();
            self.tail.extend_from_slice(piece.get(piece.len() - keep..).unwrap_or_default());
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(keep));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_counted_once_however_the_stream_is_cut() {
        let text = b"oil1.oil1.xoil1oil1.oil.oil1.";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut counter = Counter::new("oil1.");
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    counter.feed(piece);
                }
                assert_eq!(counter.count, 4, "{first} {second}");
            }
        }
    }
}

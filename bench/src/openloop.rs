//! Open-loop load: requests start when they are due, whether or not earlier ones were answered, and their time counts from then.
//! A proxy that stalls is charged for every request that was due meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use crate::answer::whole;
use crate::clock::Clock;
use crate::messages::{REQUEST, post};
use crate::stats::{percentile, sorted};

const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);

/// Latencies in microseconds from the intended start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Posts at `rate` requests a second for `time`.
pub(crate) fn run(address: SocketAddr, path: &str, rate: u32, time: Duration) -> Result<Latency> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let request: Arc<[u8]> = post(path, REQUEST).into();
    let latencies = LocalSet::new().block_on(&runtime, async {
        let run = tokio::time::timeout(time + PATIENCE, drive(address, &request, rate, time));
        run.await.context("the proxy does not keep up: the rate is too high for it")?
    })?;
    let latencies = sorted(&latencies)?;
    Ok(Latency { p50: percentile(&latencies, 0.5)?, p99: percentile(&latencies, 0.99)? })
}

async fn drive(address: SocketAddr, request: &Arc<[u8]>, rate: u32, time: Duration) -> Result<Vec<f64>> {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let (clock, ticks) = Clock::start(rate, time)?;
    let mut connections = JoinSet::new();
    for stream in streams {
        connections.spawn_local(connection(stream, Arc::clone(request), Arc::clone(&clock)));
    }
    let mut latencies = Vec::new();
    while let Some(ended) = connections.join_next().await {
        latencies.extend(ended??);
    }
    ticks.join()?;
    let due = clock.requests() as usize;
    ensure!(latencies.len() == due, "{} of {due} were answered", latencies.len());
    Ok(latencies)
}

async fn connection(mut stream: TcpStream, request: Arc<[u8]>, clock: Arc<Clock>) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    let mut buffer = Vec::with_capacity(16 << 10);
    while let Some(intended) = clock.next().await {
        stream.write_all(&request).await?;
        buffer.clear();
        while whole(&buffer)?.is_none() {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "closed before the end of an answer");
        }
        latencies.push(intended.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::process::pause;

    /// Answers each request; the first one only after `stall`.
    fn origin(stall: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stalled = std::sync::Arc::new(std::sync::Once::new());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let stalled = std::sync::Arc::clone(&stalled);
                std::thread::spawn(move || serve(stream, || stalled.call_once(|| pause(stall))));
            }
        });
        address
    }

    fn serve(mut stream: std::net::TcpStream, stall: impl Fn()) {
        let mut request = vec![0; post("/", REQUEST).len()];
        while stream.read_exact(&mut request).is_ok() {
            stall();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        }
    }

    #[test]
    fn every_request_that_was_due_is_answered_once() {
        let latency = run(origin(Duration::ZERO), "/", 500, Duration::from_millis(200)).unwrap();
        assert!(0.0 < latency.p50 && latency.p50 <= latency.p99);
    }

    #[test]
    fn time_spent_waiting_for_a_stalled_server_counts() {
        // All connections wait on the first answer, so every request is late, not only the one that stalled.
        let latency = run(origin(Duration::from_millis(300)), "/", 1000, Duration::from_millis(200)).unwrap();
        assert!(latency.p50 > 100_000.0, "{latency:?}");
    }
}

//! Open-loop load over mTLS connections that are kept for a while and then made anew, so that handshakes never cease.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::answer::whole;
use crate::clock::Clock;
use crate::handshakes::forgetful;
use crate::messages::{REQUEST, post};

pub(crate) const CONNECTIONS: u32 = 32;
/// Requests of one connection before the next.
pub(crate) const REQUESTS: u32 = 40;
const SESSIONS: usize = 64;
/// For one handshake, and for one answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Beyond the time itself, for all that is late.
const PATIENCE: Duration = Duration::from_secs(20);
/// After a handshake that failed: not at once again.
const PAUSE: Duration = Duration::from_millis(10);

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Microseconds from when each request was due.
    pub(crate) requests: Vec<f64>,
    /// Microseconds from the first byte of each, connecting included.
    pub(crate) full: Vec<f64>,
    pub(crate) resumed: Vec<f64>,
    pub(crate) failed: usize,
    pub(crate) first_failure: Option<String>,
    /// Each certificate that a full handshake showed.
    pub(crate) certificates: HashSet<Vec<u8>>,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        self.requests.extend(other.requests);
        self.full.extend(other.full);
        self.resumed.extend(other.resumed);
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.certificates.extend(other.certificates);
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| format!("{error:#}"));
    }

    fn shaken(&mut self, time: Duration, stream: &TlsStream<TcpStream>) {
        let micros = time.as_secs_f64() * 1e6;
        let connection = stream.get_ref().1;
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.push(micros);
            return;
        }
        self.full.push(micros);
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        self.certificates.extend(leaf.map(|leaf| leaf.to_vec()));
    }
}

/// Posts at `rate` requests a second for `time`. What fails is counted, and the next is tried.
pub(crate) fn run(address: SocketAddr, config: &Arc<ClientConfig>, rate: u32, time: Duration) -> Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let run = tokio::time::timeout(time + PATIENCE, drive(address, config, rate, time));
        run.await.context("the proxy does not keep up: the rate is too high for it")?
    })
}

async fn drive(address: SocketAddr, config: &Arc<ClientConfig>, rate: u32, time: Duration) -> Result<Seen> {
    let request: Arc<[u8]> = post("/customers", REQUEST).into();
    // Sessions of its own: those of another server, or of long ago, are no use.
    let mut config = ClientConfig::clone(config);
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    let config = Arc::new(config);
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Client {
            address,
            config: Arc::clone(&config),
            request: Arc::clone(&request),
            remembers: false,
            seen: Seen::default(),
        };
        // All at once would be a burst that no client makes; it is over before the first request is due.
        let stream = client.connect().await;
        clients.push((client, stream));
    }
    let (clock, ticks) = Clock::start(rate, time)?;
    let mut connections = JoinSet::new();
    for (number, (client, stream)) in (1..).zip(clients) {
        // Their ends are spread over the time that a connection lasts.
        connections.spawn_local(client.run(stream, Arc::clone(&clock), REQUESTS * number / CONNECTIONS));
    }
    let mut seen = Seen::default();
    while let Some(ended) = connections.join_next().await {
        seen.add(ended?);
    }
    ticks.join()?;
    let (ended, due) = (seen.requests.len() + seen.failed, clock.requests() as usize);
    ensure!(ended >= due, "{ended} of {due} came to an end");
    Ok(seen)
}

/// One connection after the other.
struct Client {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    request: Arc<[u8]>,
    /// Whether the next connection brings a session.
    remembers: bool,
    seen: Seen,
}

type Connected = Option<TlsStream<TcpStream>>;

impl Client {
    async fn run(mut self, mut stream: Connected, clock: Arc<Clock>, mut left: u32) -> Seen {
        loop {
            match &mut stream {
                Some(stream) => {
                    let more = self.ask_all(stream, &clock, left).await;
                    // All answers were read; whether the end arrives is no request's concern.
                    let _ = stream.shutdown().await;
                    if !more {
                        return self.seen;
                    }
                }
                None => {
                    tokio::time::sleep(PAUSE).await;
                    // Its share of the requests fails with it: who cannot connect is not to wait for ever.
                    if clock.next().await.is_none() {
                        return self.seen;
                    }
                }
            }
            left = REQUESTS;
            stream = self.connect().await;
        }
    }

    /// False where nothing is left to ask.
    async fn ask_all(&mut self, stream: &mut TlsStream<TcpStream>, clock: &Clock, left: u32) -> bool {
        for _ in 0..left {
            let Some(intended) = clock.next().await else { return false };
            if let Err(error) = self.ask(stream).await {
                self.seen.fail(&error.context("a request"));
                break;
            }
            self.seen.requests.push(intended.elapsed().as_secs_f64() * 1e6);
        }
        true
    }

    async fn connect(&mut self) -> Connected {
        let begun = Instant::now();
        let opened = self.open(self.remembers).await;
        // Every other one comes without a session, so that there are handshakes of both kinds.
        self.remembers = !self.remembers;
        match opened {
            Ok(stream) => {
                self.seen.shaken(begun.elapsed(), &stream);
                Some(stream)
            }
            Err(error) => {
                self.seen.fail(&error.context("a handshake"));
                None
            }
        }
    }

    async fn open(&self, remembers: bool) -> Result<TlsStream<TcpStream>> {
        let config = if remembers { Arc::clone(&self.config) } else { forgetful(&self.config) };
        let opening = async {
            let tcp = TcpStream::connect(self.address).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(config)
                .connect(ServerName::try_from("localhost")?, tcp)
                .await
                .map_err(anyhow::Error::from)
        };
        tokio::time::timeout(DEADLINE, opening).await.context("too slow")?
    }

    async fn ask(&self, stream: &mut TlsStream<TcpStream>) -> Result<()> {
        let asking = async {
            stream.write_all(&self.request).await?;
            stream.flush().await?;
            let mut buffer = Vec::with_capacity(4 << 10);
            while whole(&buffer)?.is_none() {
                ensure!(stream.read_buf(&mut buffer).await? > 0, "closed before the end of an answer");
            }
            Ok(())
        };
        tokio::time::timeout(DEADLINE, asking).await.context("too slow")?
    }
}

//! New connections to upstreams.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use oilskin_config::{Limits, Protocol, Target};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::body::Body;
use crate::gate::{Gate, GateState};
use crate::names::Names;
use crate::snapshot::Upstream;
use crate::stream::Stream;
use crate::telemetry::{ConnectionGuard, Handshake, Metrics, Peer};
use crate::tls::{Client, Secured, Wide, reason, settled};

/// Bytes hyper may buffer of one connection.
pub(crate) const MAX_BUFFER: usize = 64 * 1024;

/// HTTP/2 windows: a stream may have this much under way, a connection four times that.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;

/// A sender over a new connection.
pub(crate) enum Dialled {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// Spawns on the worker's own thread.
#[derive(Clone, Copy)]
pub(crate) struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        // The connection's task owns these: they end when it does.
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Connects, within `deadline` in all, and speaks HTTP. `state` is told who the upstream is, and its orders are obeyed.
///
/// # Errors
/// What the system or the TLS library says; `TimedOut` past the deadline.
pub(crate) async fn dial(
    upstream: &Upstream,
    state: &Rc<GateState>,
    names: &Arc<Names>,
    metrics: &Metrics,
    limits: &Limits,
    deadline: Duration,
) -> io::Result<Dialled> {
    timeout(deadline, connect(upstream, state, names, metrics, limits))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn connect(
    upstream: &Upstream,
    state: &Rc<GateState>,
    names: &Arc<Names>,
    metrics: &Metrics,
    limits: &Limits,
) -> io::Result<Dialled> {
    let (stream, alpn_h2) = match &upstream.target {
        Target::Unix(path) => (Stream::Unix(UnixStream::connect(path).await?), false),
        Target::Tcp { host, port } => {
            let tcp = names.connect(host, *port).await?;
            match &upstream.tls {
                None => (Stream::Tcp(tcp), false),
                Some(tls) => {
                    let secured = secure(tls, state, tcp, metrics).await?;
                    let h2 = secured.get_ref().1.alpn_protocol() == Some(b"h2");
                    (Stream::Tls(Box::new(secured)), h2)
                }
            }
        }
    };
    let h2 = match upstream.protocol {
        Protocol::H1 => false,
        Protocol::H2 => true,
        Protocol::Auto => upstream.h2c || alpn_h2,
    };
    let gate = Gate::new(stream, Rc::clone(state));
    speak(gate, state, h2, limits, metrics.connection(Peer::Upstream)).await.map_err(io::Error::other)
}

/// Shakes hands with an upstream.
async fn secure(
    tls: &Arc<Client>,
    state: &GateState,
    tcp: TcpStream,
    metrics: &Metrics,
) -> io::Result<TlsStream<Wide>> {
    match tls.shake_hands(tcp).await {
        Ok((stream, current)) => {
            let connection = stream.get_ref().1;
            metrics.handshake(Peer::Upstream, &settled(connection));
            state.secure(Secured::upstream(tls, &current, connection));
            Ok(stream)
        }
        Err(error) => {
            let outcome = if error.kind() == io::ErrorKind::NotConnected { "not_ready" } else { reason(&error) };
            metrics.handshake(Peer::Upstream, &Handshake { outcome, ..Handshake::default() });
            Err(error)
        }
    }
}

async fn speak(
    gate: Gate<Stream>,
    state: &Rc<GateState>,
    h2: bool,
    limits: &Limits,
    counted: ConnectionGuard,
) -> hyper::Result<Dialled> {
    let (io, state) = (TokioIo::new(gate), Rc::clone(state));
    if h2 {
        let (sender, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * 4)
            .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
            .handshake(io)
            .await?;
        tokio::task::spawn_local(async move {
            obeying(connection, &state).await;
            drop(counted);
        });
        return Ok(Dialled::H2(sender));
    }
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits.head_fields)
        .max_header_size(limits.head)
        .max_buf_size(MAX_BUFFER)
        .handshake(io)
        .await?;
    tokio::task::spawn_local(async move {
        obeying(connection, &state).await;
        drop(counted);
    });
    Ok(Dialled::H1(sender))
}

/// Runs a connection to its end, which the exchanges on it see, each with its own error. An order wakes it, and then the gate fails.
async fn obeying(connection: impl Future, state: &GateState) {
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        state.poll_order(cx);
        connection.as_mut().poll(cx)
    })
    .await;
}

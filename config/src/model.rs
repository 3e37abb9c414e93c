//! The typed configuration. Everything here was checked: consumers need no second look.

mod keys;
mod rule;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use keys::{Hold, KeySettings, Keys};
pub use rule::{Backend, BindPlace, BindValue, Frame, Mode, OnDecryptError, Rule};

use crate::tls::{ListenerTls, UpstreamTls};
use crate::vault::Vault;

/// One whole, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data-path worker threads; none is min(2, CPUs of the cgroup).
    pub workers: Option<NonZeroUsize>,
    /// Listeners, at least one.
    pub listeners: Vec<Listener>,
    /// Upstreams that routes name.
    pub upstreams: Vec<Upstream>,
    /// Routes in the order written.
    pub routes: Vec<Route>,
    /// Where keys come from; none only where no route has rules.
    pub keys: Option<Keys>,
    /// Vault or OpenBao; none where nothing needs it.
    pub vault: Option<Vault>,
    /// Bounds on what one peer may cost.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Admin, metrics and health listeners.
    pub service: Service,
    /// Log settings.
    pub log: Log,
    /// `OILSKIN_UNSAFE_UNLOCKED_KEYS`: go on where keys cannot be locked in memory.
    pub unsafe_unlocked_keys: bool,
    /// Unsafe or surprising choices, each a sentence to be logged once at start.
    pub warnings: Vec<String>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// TCP.
    Tcp(SocketAddr),
    /// TCP on all addresses: `[::]`, or `0.0.0.0` where there is no IPv6.
    AnyPort(u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Which way the app lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// App to world: encrypts in requests, decrypts in responses.
    Egress,
    /// World to app: the reverse.
    Ingress,
}

/// What makes a listener's peers authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing was said: a Unix socket is trusted, TCP is not.
    Bind,
    /// `trust: mesh`: a mesh proxy on loopback has authenticated the peer.
    Mesh,
}

/// A listener for traffic.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Name that routes, logs and metrics use.
    pub name: String,
    /// Where it listens.
    pub bind: Bind,
    /// Which way the app lies.
    pub direction: Direction,
    /// What makes its peers authenticated.
    pub trust: Trust,
    /// It speaks TLS.
    pub tls: Option<ListenerTls>,
}

/// Scheme of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain, HTTP/1.1.
    Http,
    /// Plain, HTTP/2 by prior knowledge.
    H2c,
    /// TLS.
    Https,
}

/// Protocol towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// By scheme; with TLS by ALPN.
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// Where an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Name or address literal (no brackets), and port.
    Tcp {
        /// Host name or IP literal without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// An upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Name that routes, logs and metrics use.
    pub name: String,
    /// Scheme of its URL.
    pub scheme: Scheme,
    /// Where it is reached.
    pub target: Target,
    /// `host[:port]` sent as `Host`/`:authority`; the port only where it is not the scheme's own.
    pub authority: String,
    /// Path prefix, without trailing slash; empty for none.
    pub prefix: String,
    /// Protocol.
    pub protocol: Protocol,
    /// TLS, with `https://` only.
    pub tls: Option<UpstreamTls>,
}

/// What a route does.
#[derive(Debug, Clone)]
pub struct Route {
    /// Name that logs and metrics use.
    pub name: String,
    /// Index into [`Config::listeners`].
    pub listener: usize,
    /// Path pattern as `matchit` reads it; none is the environment's catch-all.
    pub path: Option<String>,
    /// Methods, upper case; empty for all.
    pub methods: Vec<String>,
    /// `host` as the app sends it, lower case; none matches any.
    pub host: Option<String>,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// `host: keep`: pass the app's `Host` instead of the upstream's own.
    pub keep_host: bool,
    /// What happens to requests.
    pub request: Phase,
    /// What happens to responses.
    pub response: Phase,
    /// Media types passed unread although a rule stands (`image/*`), lower case. Unsafe.
    pub opaque: Vec<String>,
    /// A response that no rule's reader can inspect is refused while decrypting.
    pub require_inspection: bool,
    /// Tenant of its messages.
    pub tenant: Option<Tenant>,
    /// Log every request, not only those that are not plain success.
    pub access_log: bool,
}

/// What one phase of a route does with bodies.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Direction of the fields.
    pub op: Op,
    /// Rules; none passes bodies as they are.
    pub rules: Vec<Rule>,
}

/// What is done to selected fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Plaintext to tokens.
    Encrypt,
    /// Tokens to plaintext.
    Decrypt,
}

/// Where the tenant of a message comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenant {
    /// The same for all.
    Literal(String),
    /// A request header (lower case).
    Header(String),
}

/// Bounds on what one peer may cost. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one message head.
    pub head: usize,
    /// Fields of one message head.
    pub head_fields: usize,
    /// Concurrent HTTP/2 streams a connection.
    pub streams: u32,
    /// Connections from apps, all listeners together; `None` is the default, lowered to what `nofile` allows.
    pub connections: Option<NonZeroUsize>,
    /// TLS handshakes of one worker's clients in progress.
    pub handshakes: NonZeroUsize,
    /// Connections to one upstream of one worker.
    pub upstream_connections: NonZeroUsize,
    /// Nesting depth of JSON.
    pub depth: usize,
    /// Bytes of a body; none is unlimited.
    pub body: Option<u64>,
    /// Least body progress in bytes per second, after 10 s.
    pub min_body_rate: u64,
    /// Characters of one token.
    pub field: usize,
    /// Bytes of output held before the head leaves.
    pub hold: usize,
    /// Bytes a record with bound fields may hold back.
    pub bind_window: usize,
    /// Bytes of locked memory for keys.
    pub key_slab: usize,
}

/// Deadlines.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// Connecting to one upstream address list.
    pub connect: Duration,
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// A client's TLS handshake.
    pub handshake: Duration,
    /// How long a connection outlives a change of our certificate.
    pub identity_age: Duration,
    /// A connection without a request.
    pub idle: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
    /// From the request head to the response head.
    pub total: Duration,
    /// In-flight requests after SIGTERM.
    pub drain: Duration,
    /// Oldest age of an upstream connection.
    pub upstream_age: Duration,
    /// Waiting for a free upstream connection where their number is bounded.
    pub pool_wait: Duration,
}

/// Service listeners; none switches one off.
#[derive(Debug, Clone)]
pub struct Service {
    /// Admin, loopback only.
    pub admin: Option<Bind>,
    /// `/metrics`.
    pub metrics: Option<Bind>,
    /// `/live`, `/ready`.
    pub health: Option<Bind>,
}

/// Log settings.
#[derive(Debug, Clone)]
pub struct Log {
    /// Filter as `tracing` reads it.
    pub filter: String,
    /// Form; none is text on a terminal, else JSON.
    pub format: Option<LogFormat>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object a line.
    Json,
}

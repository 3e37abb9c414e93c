//! The composition root: the only file that joins all parts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use oilskin_config::{Bind, Config, Listener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::admin::{self, Servers, Source};
use crate::keys::{KeyError, Keyrings};
use crate::limits;
use crate::listen::{self, Bound, SocketFile};
use crate::names::Names;
use crate::ready::Readiness;
use crate::snapshot::{BuildError, Snapshot};
use crate::telemetry::Metrics;
use crate::tls::{Gathering, Identities, Refused, Server};
use crate::vault::{self, Vault};
use crate::worker::{self, Shared, Stop};

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration was read, but something it names cannot be served.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A limit that this machine cannot hold.
    #[error("{0}")]
    Limits(String),
    /// Keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A socket.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, #[source] io::Error),
    /// A thread or runtime.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// Whether the configuration, or what it names, must change before it can start; trying again does not help.
    pub(crate) fn is_configuration(&self) -> bool {
        match self {
            Self::Build(_) | Self::Limits(_) => true,
            Self::Keys(error) => error.is_configuration(),
            Self::Listen(..) | Self::Thread(_) => false,
        }
    }
}

/// Everything built and bound; nothing accepted yet.
pub struct App {
    config: Config,
    listeners: Vec<Bound>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    names: Arc<Names>,
    servers: Servers,
    source: Source,
    keyrings: Arc<Keyrings>,
    tls: Arc<[Option<Arc<Server>>]>,
    identities: Arc<Identities>,
    vault: Option<Arc<Vault>>,
    connections: usize,
}

impl App {
    /// Builds the whole state and binds all sockets.
    ///
    /// # Errors
    /// The first thing that cannot be had; nothing is left running.
    pub fn build(config: Config) -> Result<Self, StartError> {
        let (connections, lowered) = connections(&config)?;
        for warning in config.warnings.iter().chain(&lowered) {
            tracing::warn!("{warning}");
        }
        let metrics = Arc::new(Metrics::new());
        let keyrings = Keyrings::open(&config, &metrics)?;
        let mut identities = Gathering::new(&metrics);
        let snapshot = Snapshot::build(&config, &keyrings, &metrics, &mut identities)?;
        let tls = servers_of(&config, &mut identities)?;
        let vault = vault::open(&config, &metrics, &mut identities)?;
        let identities = identities.finish();
        let listeners = config
            .listeners
            .iter()
            .map(|listener| {
                listen::bind(&listener.bind).map_err(|error| StartError::Listen(shown(&listener.bind), error))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let servers = admin::bind(&config.service).map_err(|(at, error)| StartError::Listen(shown(&at), error))?;
        let readiness = Arc::new(Readiness::default());
        let missing = keyrings.missing();
        for name in &missing {
            tracing::error!(
                keyset = name,
                "a rule's keyset is not in the store: its requests get key_unavailable until it is"
            );
        }
        readiness.missing_keys(missing);
        metrics.config_taken(1);
        Ok(Self {
            config,
            listeners,
            servers,
            source: Source { metrics, readiness, identities: Arc::clone(&identities) },
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            names: Names::new(),
            keyrings,
            tls,
            identities,
            vault,
            connections,
        })
    }

    /// Does what [`App::build`] does with files and keys, and binds nothing. Returns warnings: what is no reason not to start.
    ///
    /// # Errors
    /// As [`App::build`].
    pub fn check(config: &Config) -> Result<Vec<String>, StartError> {
        connections(config)?;
        let metrics = Metrics::new();
        let keyrings = Keyrings::open(config, &metrics)?;
        let mut identities = Gathering::looking(&metrics);
        Snapshot::build(config, &keyrings, &metrics, &mut identities)?;
        servers_of(config, &mut identities)?;
        vault::open(config, &metrics, &mut identities)?;
        let warning = |name: String| {
            format!(
                "keyset {name} is not in the store: requests that need it get key_unavailable, and /ready says no, until it \
                 is there; `oilskin keys init --name {name}` makes it"
            )
        };
        Ok(keyrings.missing().into_iter().map(warning).collect())
    }

    /// Where the listener of that index listens; none for a Unix socket.
    pub fn address(&self, listener: usize) -> Option<SocketAddr> {
        self.listeners.get(listener).and_then(Bound::address)
    }

    /// Whether the listener of that index speaks TLS.
    pub(crate) fn speaks_tls(&self, listener: usize) -> bool {
        self.tls.get(listener).is_some_and(Option::is_some)
    }

    /// Every listener's name and where it really listens: an address with its port, or a path.
    pub(crate) fn listening(&self) -> Vec<(String, String)> {
        let bound = self.listeners.iter().map(ToString::to_string);
        self.config.listeners.iter().map(|listener| listener.name.clone()).zip(bound).collect()
    }

    /// Where metrics are read.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.servers.metrics_address()
    }

    /// Where health is asked.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.servers.health_address()
    }

    /// Starts all threads.
    ///
    /// # Errors
    /// [`StartError::Thread`]; threads started before it are stopped again.
    pub fn start(self) -> Result<Running, StartError> {
        let (stop, stopped) = watch::channel(Stop::Serve);
        let shared = Shared {
            snapshot: self.snapshot,
            names: self.names,
            metrics: Arc::clone(&self.source.metrics),
            connections: Arc::new(Semaphore::new(self.connections)),
            stop: stopped.clone(),
            tls: self.tls,
        };
        let files = self.listeners.iter().filter_map(SocketFile::of).collect();
        let mut running =
            Running { files, stop, workers: Vec::new(), control: None, drain: self.config.timeouts.drain };
        let workers = limits::workers(self.config.workers);
        let mut own = self.listeners;
        for id in 0..workers {
            let last = id + 1 == workers;
            let sockets = if last { std::mem::take(&mut own) } else { another(&own).map_err(StartError::Thread)? };
            let shared = shared.clone();
            let thread = spawn(format!("worker-{id}"), move || worker::run(id, shared, sockets))?;
            running.workers.push(thread);
        }
        let (servers, source) = (self.servers, self.source);
        let kept = Kept { keyrings: self.keyrings, identities: self.identities, vault: self.vault };
        let control = spawn("control".to_owned(), move || control(servers, source, kept, stopped))?;
        running.control = Some(control);
        Ok(running)
    }
}

/// TLS of each listener.
fn servers_of(config: &Config, identities: &mut Gathering<'_>) -> Result<Arc<[Option<Arc<Server>>]>, BuildError> {
    let one = |listener: &Listener| {
        let wrong = |refused: Refused| BuildError::Listener(listener.name.clone(), refused.to_string());
        listener.tls.as_ref().map(|tls| identities.server(tls).map_err(wrong)).transpose()
    };
    config.listeners.iter().map(one).collect()
}

fn connections(config: &Config) -> Result<(usize, Option<String>), StartError> {
    let accepting = limits::workers(config.workers) * config.listeners.len();
    limits::connections(config.limits.connections, accepting).map_err(StartError::Limits)
}

fn another(sockets: &[Bound]) -> io::Result<Vec<Bound>> {
    sockets.iter().map(Bound::another).collect()
}

fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<JoinHandle<io::Result<T>>, StartError> {
    std::thread::Builder::new().name(name).spawn(work).map_err(StartError::Thread)
}

/// What is kept fresh off the data path.
struct Kept {
    keyrings: Arc<Keyrings>,
    identities: Arc<Identities>,
    vault: Option<Arc<Vault>>,
}

/// What is not on the data path: admin, metrics, health, keys.
fn control(
    servers: Servers,
    source: Source,
    Kept { keyrings, identities, vault }: Kept,
    mut stopped: watch::Receiver<Stop>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let mut tasks = JoinSet::new();
        servers.serve(&source, &mut tasks)?;
        let readiness = Arc::clone(&source.readiness);
        let changed = move |missing| readiness.missing_keys(missing);
        tasks.spawn(keyrings.keep_fresh(Arc::clone(&source.metrics), changed));
        tasks.spawn(identities.keep_fresh(vault.clone()));
        if let Some(vault) = vault.clone() {
            tasks.spawn(vault.keep_fresh());
        }
        // Health and metrics answer while requests drain, too. An error means that the sender is gone: the end as well.
        let _ = stopped.wait_for(|stop| *stop != Stop::Serve).await;
        source.readiness.drain();
        let _ = stopped.wait_for(|stop| *stop == Stop::Now).await;
        tasks.shutdown().await;
        if let Some(vault) = vault {
            vault.leave().await;
        }
        Ok(())
    })
}

pub(crate) fn shown(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => address.to_string(),
        Bind::AnyPort(port) => format!("[::]:{port}"),
        Bind::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Ends a running process' threads.
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: watch::Sender<Stop>,
    drain: Duration,
}

impl Stopper {
    /// Takes nothing new; what is in work may end within the drain time.
    pub fn drain(&self) {
        self.stop.send_replace(Stop::DrainUntil(Instant::now() + self.drain));
    }

    /// Cuts everything.
    pub fn stop(&self) {
        self.stop.send_replace(Stop::Now);
    }

    /// Whether it was told to end already.
    pub(crate) fn is_draining(&self) -> bool {
        *self.stop.borrow() != Stop::Serve
    }

    /// How long a drain may take, in milliseconds.
    pub(crate) fn drain_ms(&self) -> u64 {
        u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A running process' threads.
pub struct Running {
    files: Vec<SocketFile>,
    stop: watch::Sender<Stop>,
    workers: Vec<JoinHandle<io::Result<usize>>>,
    control: Option<JoinHandle<io::Result<()>>>,
    drain: Duration,
}

impl Running {
    /// Tells it to end while something else waits in [`Running::join`].
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: self.stop.clone(), drain: self.drain }
    }

    /// Waits for the workers, then ends the rest; returns how many connections were cut with a request in work.
    ///
    /// # Errors
    /// What ended a thread early.
    pub fn join(mut self) -> io::Result<usize> {
        let mut cut = 0;
        let mut outcome = Ok(());
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(Ok(count)) => cut += count,
                Ok(Err(error)) => outcome = Err(error),
                Err(_) => outcome = Err(io::Error::other("a worker panicked")),
            }
        }
        // Sockets are gone: so are their files.
        self.files.clear();
        self.stop.send_replace(Stop::Now);
        if let Some(control) = self.control.take()
            && let Ok(Err(error)) = control.join()
        {
            outcome = Err(error);
        }
        outcome.map(|()| cut)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
    }
}

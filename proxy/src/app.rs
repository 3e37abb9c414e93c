//! The composition root: the only file that joins all parts.

mod running;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use oilskin_config::{Bind, Config, Listener};
use oilskin_crypto::Remembered;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

pub use running::{Running, Stopper};

use crate::admin::{self, Servers, Source};
use crate::alloc;
use crate::keys::{self, Begun, KeyError, Keyrings, Reach};
use crate::limits;
use crate::listen::{self, Bound, SocketFile};
use crate::names::Names;
use crate::ready::Readiness;
use crate::rules::Homes;
use crate::secrets;
use crate::snapshot::{BuildError, Snapshot};
use crate::telemetry::Metrics;
use crate::tls::{Gathering, Identities, Refused, Server};
use crate::transit;
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
    homes: Homes,
    /// Read already, where that needs nothing but this machine.
    begun: Option<Begun>,
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
        for warning in config.warnings.iter().chain(&lowered).chain(&secrets::warnings(&config)) {
            tracing::warn!("{warning}");
        }
        let metrics = Arc::new(Metrics::new());
        let homes = Homes::new(Keyrings::new(&config)?);
        let keyrings = &homes.keyrings;
        let mut identities = Gathering::new(&metrics);
        let snapshot = Snapshot::build(&config, &homes, &metrics, &mut identities)?;
        let tls = servers_of(&config, &mut identities)?;
        let vault = vault::open(config.vault.as_ref(), &metrics, &mut identities)?;
        let identities = identities.finish();
        let listeners = config
            .listeners
            .iter()
            .map(|listener| {
                listen::bind(&listener.bind).map_err(|error| StartError::Listen(shown(&listener.bind), error))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let servers = admin::bind(&config.service).map_err(|(at, error)| StartError::Listen(shown(&at), error))?;
        let reach = Reach::new(&metrics, vault.as_ref());
        let begun = if keyrings.is_local() { Some(keys::at_once(keyrings.begin(&reach))??) } else { None };
        let readiness = Arc::new(Readiness::new(&homes));
        metrics.config_taken(1);
        Ok(Self {
            config,
            listeners,
            servers,
            source: Source { metrics, readiness, identities: Arc::clone(&identities) },
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            names: Names::new(),
            homes,
            begun,
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
        let metrics = Arc::new(Metrics::new());
        let homes = Homes::new(Keyrings::new(config)?);
        let keyrings = &homes.keyrings;
        let mut identities = Gathering::looking(&metrics);
        Snapshot::build(config, &homes, &metrics, &mut identities)?;
        servers_of(config, &mut identities)?;
        let vault = vault::open(config.vault.as_ref(), &metrics, &mut identities)?;
        let reach = Reach::new(&metrics, vault.as_ref());
        let mut warnings = secrets::warnings(config);
        if !keyrings.is_local() {
            keyrings.look(&reach)?;
            warnings.push("root keys or key store are not on this machine: they were not asked".to_owned());
            return Ok(warnings);
        }
        keys::at_once(keyrings.begin(&reach))??;
        let warning = |(name, _): (String, String)| {
            format!(
                "keyset {name} is not in the store: requests that need it get key_unavailable, and /ready says no, until it \
                 is there; `oilskin keys init --name {name}` makes it"
            )
        };
        warnings.extend(keyrings.troubled().into_iter().map(warning));
        Ok(warnings)
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
            vault: self.vault.clone(),
            denials: Arc::default(),
        };
        let files = self.listeners.iter().filter_map(SocketFile::of).collect();
        let (opened, keys) = oneshot::channel();
        let mut running =
            Running { files, stop, workers: Vec::new(), others: Vec::new(), keys, drain: self.config.timeouts.drain };
        let workers = limits::workers(self.config.workers);
        let mut own = self.listeners;
        for id in 0..workers {
            let last = id + 1 == workers;
            let sockets = if last { std::mem::take(&mut own) } else { another(&own).map_err(StartError::Thread)? };
            let shared = shared.clone();
            let remembered = remembered(&self.config, workers)?;
            let thread = spawn(format!("worker-{id}"), move || worker::run(id, shared, sockets, remembered))?;
            running.workers.push(thread);
        }
        let (servers, source) = (self.servers, self.source);
        let (identities, vault) = (self.identities, self.vault);
        let reach = Reach::new(&source.metrics, vault.as_ref());
        let until = stopped.clone();
        let transit = self.homes.transit;
        let vault = vault.map(|vault| (vault, transit));
        let control = spawn("control".to_owned(), move || control(servers, source, identities, vault, until))?;
        running.others.push(control);
        let (keyrings, begun) = (self.homes.keyrings, self.begun);
        let keep = move || keep_keys(keyrings, &reach, begun, opened, stopped);
        running.others.push(spawn("keys".to_owned(), keep)?);
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

/// A worker's part of what is remembered of Vault's answers, where anything is.
fn remembered(config: &Config, workers: usize) -> Result<Option<Remembered>, StartError> {
    let bytes = config.vault.as_ref().map_or(0, |vault| vault.cache) / workers.max(1);
    let made = (bytes > 0).then(|| Remembered::new(bytes, config.unsafe_unlocked_keys)).transpose();
    made.map_err(|error| KeyError::from(error).into())
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

/// What is not on the data path: admin, metrics, health, certificates.
fn control(
    servers: Servers,
    source: Source,
    identities: Arc<Identities>,
    vault: Option<(Arc<Vault>, Arc<transit::Keys>)>,
    mut stopped: watch::Receiver<Stop>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let mut tasks = JoinSet::new();
        servers.serve(&source, &mut tasks)?;
        tasks.spawn(identities.keep_fresh(vault.as_ref().map(|(vault, _)| Arc::clone(vault))));
        if let Some((vault, keys)) = vault.clone() {
            tasks.spawn(transit::keep_known(keys, Arc::clone(&vault)));
            tasks.spawn(vault.keep_fresh());
        }
        // Health and metrics answer while requests drain, too. An error means that the sender is gone: the end as well.
        let _ = stopped.wait_for(|stop| *stop != Stop::Serve).await;
        source.readiness.drain();
        let _ = stopped.wait_for(|stop| *stop == Stop::Now).await;
        tasks.shutdown().await;
        if let Some((vault, _)) = vault {
            vault.leave().await;
        }
        Ok(())
    })
}

/// Keys have a thread of their own: providers' libraries leave copies of them in memory that is freed, and this one wipes it.
fn keep_keys(
    keyrings: Arc<Keyrings>,
    reach: &Reach,
    begun: Option<Begun>,
    opened: oneshot::Sender<Result<(), KeyError>>,
    mut stopped: watch::Receiver<Stop>,
) -> io::Result<()> {
    alloc::wipe_what_is_freed();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().on_thread_start(alloc::wipe_what_is_freed).build()?;
    runtime.block_on(async move {
        let work = async {
            let begun = match begun {
                Some(begun) => Ok(begun),
                None => keyrings.begin(reach).await,
            };
            match begun {
                Ok(begun) => {
                    // Nobody listens any more where the process ends already.
                    let _ = opened.send(Ok(()));
                    keyrings.keep_fresh(begun).await;
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stopped.wait_for(|stop| *stop == Stop::Now) => {}
        }
    });
    // A call that hangs must not keep the process.
    runtime.shutdown_background();
    Ok(())
}

pub(crate) fn shown(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => address.to_string(),
        Bind::AnyPort(port) => format!("[::]:{port}"),
        Bind::Unix(path) => format!("unix:{}", path.display()),
    }
}

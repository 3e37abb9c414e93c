//! Sources, what they gave, and who uses it. New material goes live everywhere at once or nowhere.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use oilskin_config::{ListenerTls, Protocol, Source, UpstreamTls};
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, TrustAnchor};

use super::configs::{self, Served};
use super::files::{self, Marks};
use super::material::{Facts, Material, Refused};
use crate::telemetry::{CertificateGauge, Metrics};

/// Names each state of ours that connections are made under, over all sources: a newer one is larger.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// TLS of one listener.
pub(crate) struct Server {
    settings: ListenerTls,
    sources: Vec<usize>,
    now: ArcSwap<Generation<Served>>,
}

/// TLS towards one upstream.
pub(crate) struct Client {
    settings: UpstreamTls,
    protocol: Protocol,
    pub(crate) name: ServerName<'static>,
    source: usize,
    native: Arc<[TrustAnchor<'static>]>,
    now: ArcSwap<Generation<Arc<ClientConfig>>>,
}

/// One state, and its number.
pub(crate) struct Generation<T> {
    pub(crate) number: u64,
    pub(crate) state: T,
}

impl<T> Generation<T> {
    fn new(state: T) -> Self {
        Self { number: GENERATIONS.fetch_add(1, Ordering::Relaxed), state }
    }
}

impl Server {
    /// Whether the app is told who the peer is.
    pub(crate) fn forwards(&self) -> bool {
        self.settings.forward_client_cert
    }

    /// What is served with now.
    pub(crate) fn now(&self) -> Arc<Generation<Served>> {
        self.now.load_full()
    }
}

impl Client {
    /// What is spoken with now.
    pub(crate) fn now(&self) -> Arc<Generation<Arc<ClientConfig>>> {
        self.now.load_full()
    }
}

/// Who uses a source.
enum User {
    Server(Arc<Server>),
    Client(Arc<Client>),
}

/// A user's next state, to be stored.
enum Prepared<'a> {
    Server(&'a Server, Served),
    Client(&'a Client, Arc<ClientConfig>),
}

/// One source.
struct Held {
    source: Source,
    name: String,
    material: ArcSwapOption<Material>,
    status: Mutex<Status>,
    /// What the files were just before they were first read.
    marks: Marks,
    gauge: CertificateGauge,
}

impl Held {
    /// What is held is what the source gives.
    fn settle(&self) {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).refused = None;
    }
}

/// What people are told of a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) swapped: Option<SystemTime>,
    pub(crate) refused: Option<(SystemTime, Refused)>,
}

/// A line of `/certs`.
pub(crate) struct Report {
    pub(crate) source: String,
    pub(crate) facts: Option<Facts>,
    pub(crate) status: Status,
}

/// All sources of a process.
pub(crate) struct Identities {
    provider: Arc<CryptoProvider>,
    held: Vec<Held>,
    users: Vec<User>,
}

/// Gathers sources and users while a configuration is compiled.
pub(crate) struct Gathering<'m> {
    identities: Identities,
    metrics: &'m Metrics,
    native: Option<Native>,
}

/// The system's authorities, and what kept some of them from being read.
#[derive(Clone)]
struct Native {
    anchors: Arc<[TrustAnchor<'static>]>,
    causes: String,
}

impl<'m> Gathering<'m> {
    pub(crate) fn new(metrics: &'m Metrics) -> Self {
        let identities = Identities { provider: super::provider(), held: Vec::new(), users: Vec::new() };
        Self { identities, metrics, native: None }
    }

    /// The place of a source, read now if it is new.
    fn source(&mut self, source: &Source) -> Result<usize, Refused> {
        if let Some(at) = self.identities.held.iter().position(|held| held.source == *source) {
            return Ok(at);
        }
        let name = shown(source);
        let marks = match source {
            Source::Files(files) => files::marks(files),
            _ => Marks::new(),
        };
        let material = load(source, &self.identities.provider)?;
        let gauge = self.metrics.certificate(&name);
        gauge.expires(material.certificate.as_ref().map(|certificate| certificate.facts.not_after));
        gauge.refreshed("ok");
        self.identities.held.push(Held {
            source: source.clone(),
            name,
            material: ArcSwapOption::from_pointee(material),
            status: Mutex::new(Status { swapped: Some(SystemTime::now()), refused: None }),
            marks,
            gauge,
        });
        Ok(self.identities.held.len() - 1)
    }

    /// TLS of a listener.
    ///
    /// # Errors
    /// Why it cannot serve.
    pub(crate) fn server(&mut self, settings: &ListenerTls) -> Result<Arc<Server>, Refused> {
        let sources = settings.identities.iter().map(|source| self.source(source)).collect::<Result<Vec<_>, _>>()?;
        let materials = self.identities.materials(&sources, None);
        let served = configs::server(settings, &materials, &self.identities.provider)?;
        let now = ArcSwap::from_pointee(Generation::new(served));
        let server = Arc::new(Server { settings: settings.clone(), sources, now });
        self.identities.users.push(User::Server(Arc::clone(&server)));
        Ok(server)
    }

    /// TLS towards an upstream.
    ///
    /// # Errors
    /// Why it cannot be spoken.
    pub(crate) fn client(
        &mut self,
        settings: &UpstreamTls,
        host: &str,
        protocol: Protocol,
    ) -> Result<Arc<Client>, Refused> {
        let name = settings.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Refused::new("name", format!("{name} is no name that a certificate can carry")))?;
        let source = self.source(&settings.identity)?;
        let Native { anchors: native, causes } = match settings.only_own_ca {
            true => Native { anchors: Arc::default(), causes: String::new() },
            false => self.native(),
        };
        let materials = self.identities.materials(&[source], None);
        let Some(material) = materials.first() else { return Err(Refused::new("file", "nothing was read")) };
        if native.is_empty() && material.trust.is_none() {
            let text = format!(
                "no root certificates: install ca-certificates, correct SSL_CERT_FILE and SSL_CERT_DIR, or name a ca_file{causes}"
            );
            return Err(Refused::new("authority", text));
        }
        let config = configs::client(settings, protocol, material, &native, &self.identities.provider)?;
        let client = Arc::new(Client {
            settings: settings.clone(),
            protocol,
            name,
            source,
            native,
            now: ArcSwap::from_pointee(Generation::new(Arc::new(config))),
        });
        self.identities.users.push(User::Client(Arc::clone(&client)));
        Ok(client)
    }

    /// Reading the system's roots costs tens of milliseconds, so it is done once, and only where something asks for them.
    fn native(&mut self) -> Native {
        let read = || {
            let found = rustls_native_certs::load_native_certs();
            // Systems carry roots that webpki cannot parse; the others must not suffer for them.
            let anchors = found.certs.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok());
            Native {
                anchors: anchors.map(|anchor| anchor.to_owned()).collect(),
                causes: found.errors.iter().map(|error| format!("; {error}")).collect(),
            }
        };
        self.native.get_or_insert_with(read).clone()
    }

    pub(crate) fn finish(self) -> Arc<Identities> {
        Arc::new(self.identities)
    }
}

impl Identities {
    /// The materials of sources, `new` in the place of its own.
    fn materials(&self, sources: &[usize], new: Option<(usize, &Arc<Material>)>) -> Vec<Arc<Material>> {
        let one = |at: &usize| match new {
            Some((place, material)) if place == *at => Some(Arc::clone(material)),
            _ => self.held.get(*at)?.material.load_full(),
        };
        sources.iter().filter_map(one).collect()
    }

    /// New material of a source: every user's next state is made and tried, and only then are all of them stored.
    ///
    /// # Errors
    /// What is wrong with it; everything is as it was.
    pub(crate) fn offer(&self, at: usize, material: Material) -> Result<(), Refused> {
        let Some(held) = self.held.get(at) else { return Ok(()) };
        if let Some(certificate) = &material.certificate {
            certificate.facts.check(SystemTime::now())?;
        }
        if held.material.load().as_ref().is_some_and(|now| now.is(&material)) {
            held.settle();
            return Ok(());
        }
        let expires = material.certificate.as_ref().map(|certificate| certificate.facts.not_after);
        let material = Arc::new(material);
        let mut prepared = Vec::new();
        for user in &self.users {
            match user {
                User::Server(server) if server.sources.contains(&at) => {
                    let materials = self.materials(&server.sources, Some((at, &material)));
                    prepared
                        .push(Prepared::Server(server, configs::server(&server.settings, &materials, &self.provider)?));
                }
                User::Client(client) if client.source == at => {
                    let next =
                        configs::client(&client.settings, client.protocol, &material, &client.native, &self.provider)?;
                    prepared.push(Prepared::Client(client, Arc::new(next)));
                }
                _ => {}
            }
        }
        for prepared in prepared {
            match prepared {
                Prepared::Server(server, next) => server.now.store(Arc::new(Generation::new(next))),
                Prepared::Client(client, next) => client.now.store(Arc::new(Generation::new(next))),
            }
        }
        held.material.store(Some(material));
        held.gauge.expires(expires);
        held.gauge.refreshed("ok");
        held.settle();
        held.status.lock().unwrap_or_else(PoisonError::into_inner).swapped = Some(SystemTime::now());
        tracing::info!(target: "oilskin::tls", source = held.name, "certificates, keys or authorities were changed");
        Ok(())
    }

    /// A source gave nothing that can be used: the old state serves on, and this is told.
    pub(crate) fn refuse(&self, at: usize, refused: &Refused) {
        let Some(held) = self.held.get(at) else { return };
        let before = {
            let mut status = held.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.refused.replace((SystemTime::now(), refused.clone()))
        };
        if before.is_some_and(|(_, before)| before == *refused) {
            return;
        }
        held.gauge.refreshed(refused.reason);
        tracing::error!(
            target: "oilskin::tls",
            source = held.name,
            reason = refused.reason,
            "a change of certificates is refused, the old ones serve on: {refused}"
        );
    }

    /// A source whose certificate cannot be used now.
    pub(crate) fn expired(&self) -> Option<String> {
        let now = SystemTime::now();
        self.held.iter().find_map(|held| {
            let material = held.material.load();
            let facts = &material.as_ref()?.certificate.as_ref()?.facts;
            facts.check(now).err().map(|refused| format!("{}: {refused}", held.name))
        })
    }

    /// What people are told.
    pub(crate) fn report(&self) -> Vec<Report> {
        let one = |held: &Held| {
            let material = held.material.load();
            let certificate = material.as_ref().and_then(|material| material.certificate.as_ref());
            Report {
                source: held.name.clone(),
                facts: certificate.map(|certificate| certificate.facts.clone()),
                status: held.status.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            }
        };
        self.held.iter().map(one).collect()
    }

    /// Keeps every source fresh until the process ends.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        for (at, held) in self.held.iter().enumerate() {
            if let Source::Files(files) = &held.source {
                tasks.spawn(files::watch(Arc::clone(&self), at, files.clone(), held.marks.clone()));
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }
}

fn load(source: &Source, provider: &CryptoProvider) -> Result<Material, Refused> {
    match source {
        Source::Files(files) => files::load(files, provider).and_then(|material| {
            let now = SystemTime::now();
            match &material.certificate {
                Some(certificate) => certificate.facts.check(now).map(|()| material),
                None => Ok(material),
            }
        }),
        _ => Err(Refused::new("source", "this source is not built in")),
    }
}

/// The source as people know it: its paths.
fn shown(source: &Source) -> String {
    let Source::Files(files) = source else { return "other".to_owned() };
    let mut text = String::new();
    let mut add = |path: &Path| {
        let between = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{between}{}", path.display());
    };
    if let Some((certificate, _)) = &files.certificate {
        add(certificate);
    }
    for path in [&files.ca, &files.crl].into_iter().flatten() {
        add(path);
    }
    if text.is_empty() { "system".to_owned() } else { text }
}

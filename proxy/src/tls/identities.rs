//! Sources, what they gave, and who uses it. New material goes live everywhere at once or nowhere.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use oilskin_config::{ListenerTls, Protocol, Source, UpstreamTls};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, TrustAnchor};

use super::configs::{self, Served, Spoken};
use super::dev;
use super::files::{self, Marks};
use super::material::{self, Certificate, Facts, Material, Refused};
use super::peers::Peers;
use super::sds;
#[cfg(feature = "spiffe")]
use super::spiffe;
use crate::telemetry::{CertificateGauge, Metrics};
use crate::vault::Vault;

/// Names each state of ours that connections are made under, over all sources: a newer one is larger.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// How often it is looked whether what is held has ended.
const LOOK: Duration = Duration::from_secs(1);

/// TLS of one listener.
pub(crate) struct Server {
    pub(super) settings: ListenerTls,
    pub(super) sources: Vec<usize>,
    /// None until all sources have given something.
    pub(super) now: ArcSwapOption<Generation<Served>>,
}

/// TLS towards one upstream.
pub(crate) struct Client {
    pub(super) settings: UpstreamTls,
    pub(super) protocol: Protocol,
    pub(crate) name: ServerName<'static>,
    pub(super) source: usize,
    pub(super) native: Arc<[TrustAnchor<'static>]>,
    /// None until the source has given something.
    pub(super) now: ArcSwapOption<Generation<Spoken>>,
}

/// One state, and its number.
pub(crate) struct Generation<T> {
    pub(crate) number: u64,
    pub(crate) state: T,
}

impl<T> Generation<T> {
    pub(super) fn new(state: T) -> Self {
        Self { number: GENERATIONS.fetch_add(1, Ordering::Relaxed), state }
    }
}

impl Server {
    /// Whether the app is told who the peer is.
    pub(crate) fn forwards(&self) -> bool {
        self.settings.forward_client_cert
    }

    /// What is served with now; none before there was anything.
    pub(crate) fn now(&self) -> Option<Arc<Generation<Served>>> {
        self.now.load_full()
    }
}

impl Client {
    /// What is spoken with now; none before there was anything.
    pub(crate) fn now(&self) -> Option<Arc<Generation<Spoken>>> {
        self.now.load_full()
    }
}

/// Who uses a source.
pub(super) enum User {
    Server(Arc<Server>),
    Client(Arc<Client>),
}

/// A user's next state, to be stored.
enum Prepared<'a> {
    Server(&'a Server, Served),
    Client(&'a Client, Spoken),
}

/// One source.
pub(super) struct Held {
    pub(super) source: Source,
    name: String,
    material: ArcSwapOption<Material>,
    status: Mutex<Status>,
    /// When the first of its revocation lists ends that no newer one replaces.
    lists_end: Mutex<Option<SystemTime>>,
    /// What the files were just before they were first read.
    pub(super) marks: Marks,
    gauge: CertificateGauge,
}

impl Held {
    /// Nothing is held yet.
    pub(super) fn new(source: &Source, metrics: &Metrics) -> Self {
        let name = shown(source);
        Self {
            source: source.clone(),
            gauge: metrics.certificate(&name),
            name,
            material: ArcSwapOption::empty(),
            status: Mutex::default(),
            lists_end: Mutex::default(),
            marks: Marks::new(),
        }
    }

    /// It is this that is held now.
    pub(super) fn hold(&self, material: Arc<Material>) {
        self.gauge.expires(material.certificate.as_ref().map(|certificate| certificate.facts.not_after));
        self.gauge.refreshed("ok");
        *self.lists_end.lock().unwrap_or_else(PoisonError::into_inner) = material::lists_end(&material.crls);
        self.material.store(Some(material));
        let status = Status { swapped: Some(SystemTime::now()), refused: None };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Notes why nothing came of a reading; false where that was known.
    fn noted(&self, refused: &Refused) -> bool {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = status.refused.replace((SystemTime::now(), refused.clone()));
        let new = before.is_none_or(|(_, before)| before != *refused);
        if new {
            self.gauge.refreshed(refused.reason);
        }
        new
    }

    /// Why it cannot be used now.
    fn unusable(&self, now: SystemTime) -> Option<String> {
        let Some(material) = self.material.load_full() else {
            let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(match &status.refused {
                Some((_, refused)) => refused.to_string(),
                None => "it has given nothing yet".to_owned(),
            });
        };
        let certificate = material.certificate.as_ref().and_then(|one| one.facts.check(now).err());
        let ended = self.lists_end.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|end| now >= end);
        certificate.map(|refused| refused.to_string()).or_else(|| {
            ended.then(|| {
                "a revocation list has ended: whom its authority vouches for is refused until there is a new one"
                    .to_owned()
            })
        })
    }

    /// What becomes of it where nothing new can be had.
    fn stays(&self) -> &'static str {
        match self.material.load().is_some() {
            true => "what is held serves on",
            false => "and nothing is held yet",
        }
    }

    /// Whether this certificate is the one that is held.
    fn has(&self, certificate: &Certificate) -> bool {
        let held = self.material.load();
        let held = held.as_ref().and_then(|material| material.certificate.as_ref());
        held.is_some_and(|held| held.key.cert == certificate.key.cert)
    }

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
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) held: Vec<Held>,
    pub(super) users: Vec<User>,
}

impl Identities {
    /// The materials of sources, `new` in the place of its own; none where one has given nothing yet.
    pub(super) fn materials(
        &self,
        sources: &[usize],
        new: Option<(usize, &Arc<Material>)>,
    ) -> Option<Vec<Arc<Material>>> {
        let one = |at: &usize| match new {
            Some((place, material)) if place == *at => Some(Arc::clone(material)),
            _ => self.held.get(*at)?.material.load_full(),
        };
        sources.iter().map(one).collect()
    }

    /// A listener's judge, if authorities and lists are as they were: nobody need be judged again because a certificate of ours changed.
    fn judge(&self, server: &Server, materials: &[Arc<Material>]) -> Option<Arc<Peers>> {
        let before = self.materials(&server.sources, None)?;
        let same = before.first()?.judges_as(materials.first()?);
        server.now().filter(|_| same)?.state.peers.clone()
    }

    /// New material of a source: every user's next state is made and tried, and only then are all of them stored.
    ///
    /// # Errors
    /// What is wrong with it; everything is as it was.
    pub(crate) fn offer(&self, at: usize, material: Material) -> Result<(), Refused> {
        let Some(held) = self.held.get(at) else { return Ok(()) };
        // One that has ended since it was taken keeps new authorities and lists from nobody.
        if let Some(certificate) = material.certificate.as_ref().filter(|one| !held.has(one)) {
            certificate.facts.check(SystemTime::now())?;
        }
        if held.material.load().as_ref().is_some_and(|now| now.is(&material)) {
            held.settle();
            return Ok(());
        }
        let material = Arc::new(material);
        let mut prepared = Vec::new();
        for user in &self.users {
            match user {
                User::Server(server) if server.sources.contains(&at) => {
                    let Some(materials) = self.materials(&server.sources, Some((at, &material))) else { continue };
                    let judge = self.judge(server, &materials);
                    let next = configs::server(&server.settings, &materials, &self.provider, judge)?;
                    prepared.push(Prepared::Server(server, next));
                }
                User::Client(client) if client.source == at => {
                    let next =
                        configs::client(&client.settings, client.protocol, &material, &client.native, &self.provider)?;
                    prepared.push(Prepared::Client(client, next));
                }
                _ => {}
            }
        }
        for prepared in prepared {
            match prepared {
                Prepared::Server(server, next) => server.now.store(Some(Arc::new(Generation::new(next)))),
                Prepared::Client(client, next) => client.now.store(Some(Arc::new(Generation::new(next)))),
            }
        }
        let serial = material.certificate.as_ref().map(|one| one.facts.serial.clone());
        held.hold(material);
        tracing::info!(
            target: "oilskin::tls",
            source = held.name,
            serial = serial.as_deref().unwrap_or_default(),
            "certificates, keys or authorities were changed"
        );
        Ok(())
    }

    /// A source gave nothing that can be used: the old state, if there is one, serves on, and this is told.
    pub(crate) fn refuse(&self, at: usize, refused: &Refused) {
        if let Some(held) = self.held.get(at).filter(|held| held.noted(refused)) {
            tracing::error!(
                target: "oilskin::tls",
                source = held.name,
                reason = refused.reason,
                "certificates are refused, {}: {refused}",
                held.stays()
            );
        }
    }

    /// A source cannot be reached.
    pub(super) fn lost(&self, at: usize, refused: &Refused) {
        if let Some(held) = self.held.get(at).filter(|held| held.noted(refused)) {
            tracing::warn!(
                target: "oilskin::tls",
                source = held.name,
                reason = refused.reason,
                "a source of certificates is gone, {}: {refused}",
                held.stays()
            );
        }
    }

    /// Whether a source has ever given anything.
    pub(super) fn holds(&self, at: usize) -> bool {
        self.held.get(at).is_some_and(|held| held.material.load().is_some())
    }

    /// A source that cannot be used now, and why.
    pub(crate) fn unusable(&self) -> Option<String> {
        let now = SystemTime::now();
        self.held.iter().find_map(|held| held.unusable(now).map(|why| format!("{}: {why}", held.name)))
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

    /// Says once when what is held has ended.
    async fn watch_ends(self: Arc<Self>) {
        let mut told = vec![false; self.held.len()];
        loop {
            tokio::time::sleep(LOOK).await;
            let now = SystemTime::now();
            for (held, told) in self.held.iter().zip(&mut told).filter(|(held, _)| held.material.load().is_some()) {
                let why = held.unusable(now);
                if let Some(why) = why.as_ref().filter(|_| !*told) {
                    tracing::error!(target: "oilskin::tls", source = held.name, "what is held cannot be used any more: {why}");
                }
                *told = why.is_some();
            }
        }
    }

    /// Keeps every source fresh until the process ends.
    pub(crate) async fn keep_fresh(self: Arc<Self>, vault: Option<Arc<Vault>>) {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&self).watch_ends());
        for (at, held) in self.held.iter().enumerate() {
            match &held.source {
                Source::Files(files) => {
                    tasks.spawn(files::watch(Arc::clone(&self), at, files.clone(), held.marks.clone()));
                }
                Source::Sds(sds) => {
                    tasks.spawn(sds::watch(Arc::clone(&self), at, sds.clone()));
                }
                #[cfg(feature = "spiffe")]
                Source::Spiffe(spiffe) => {
                    tasks.spawn(spiffe::watch(Arc::clone(&self), at, spiffe.clone()));
                }
                Source::Dev(dev) => {
                    tasks.spawn(dev::watch(Arc::clone(&self), at, dev.clone()));
                }
                Source::Vault(pki) => {
                    // The configuration has it where a source asks.
                    let Some(vault) = vault.clone() else { continue };
                    tasks.spawn(vault.issue(Arc::clone(&self), at, pki.clone()));
                }
                _ => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }
}

/// The source as people know it: its paths.
fn shown(source: &Source) -> String {
    let files = match source {
        Source::Files(files) => files,
        Source::Sds(sds) => {
            let names: Vec<&str> = [&sds.certificate, &sds.trust].into_iter().flatten().map(String::as_str).collect();
            return format!("sds:unix:{} ({})", sds.socket.display(), names.join(", "));
        }
        Source::Vault(pki) => {
            return pki.to_string();
        }
        Source::Spiffe(spiffe) => {
            let hint = spiffe.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            return format!("spiffe:unix:{}{hint}", spiffe.socket.display());
        }
        Source::Dev(dev) => return format!("dev:{}", dev.dir.display()),
        _ => return "other".to_owned(),
    };
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

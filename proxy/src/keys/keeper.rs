//! Keeps one keyset: reads its document again and again, asks the roots once in a while, and takes the keys away when it must.

use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;
use oilskin_crypto::document::{Document, Line, Opened, State as VersionState};
use oilskin_crypto::{Cipher, Keyset, State};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::entry::{Entry, NEWEST};
use super::life::{self, DENIED_AGAIN, Denial, Life, Right};
use super::opening::{Heard, Others};
use super::provider::Stored;
use super::rotation::{Step, Watch, is_due};
use super::{Change, Changer, Fault, KeyError, Source, opening};
use crate::backoff;
use crate::telemetry::KeysetMetrics;

/// How often rights that end by themselves are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Longest wait between two attempts to come by keys that are not held.
const LONGEST: Duration = Duration::from_secs(5);

/// One keyset's keeper.
pub(super) struct Keeper {
    entry: Arc<Entry>,
    source: Arc<Source>,
    life: Life,
    /// The document in force, as it was read and what it says, and its keys while they are held.
    stored: Option<Stored>,
    document: Option<Document>,
    keyset: Option<Arc<Keyset>>,
    /// Since when a version has been pending here.
    watch: Watch,
    /// The longest interval at which anyone refreshes: the document's own.
    longest: Duration,
    right: Right,
    /// What was last said to be wrong.
    said: Option<String>,
    /// Made when it is first held: names of tenants that have no keyset are not bounded.
    metrics: Option<KeysetMetrics>,
    /// Roots that it did not take to open it, to be asked; and while they are.
    others: Option<Others>,
    hearing: JoinSet<Vec<Heard>>,
}

impl Keeper {
    pub(super) fn new(entry: Arc<Entry>, source: Arc<Source>) -> Self {
        let life = Life::new(source.terms);
        Self {
            entry,
            life,
            stored: None,
            document: None,
            watch: Watch::default(),
            keyset: None,
            longest: source.terms.refresh,
            right: Right::Neither("not loaded"),
            said: None,
            metrics: None,
            others: None,
            hearing: JoinSet::new(),
            source,
        }
    }

    /// Refreshes for as long as the keyset is kept. `first` was the outcome of a refresh before.
    pub(super) async fn keep(mut self, mut last: Result<(), Fault>) {
        let mut waits: Option<ExponentialBackoff> = None;
        loop {
            let wait = match last {
                Ok(()) => {
                    waits = None;
                    self.interval()
                }
                // The second no is asked for as soon as it counts.
                Err(Fault::Denied) if !matches!(self.right, Right::Neither(_)) => DENIED_AGAIN,
                Err(_) => waits.get_or_insert_with(|| backoff::waits(LONGEST)).next().unwrap_or(LONGEST),
            };
            self.wait(Instant::now() + wait).await;
            last = self.refresh().await.map_err(|error| error.fault());
        }
    }

    /// The declared interval or the document's, whichever is shorter.
    pub(super) fn longest_interval(&self) -> Duration {
        self.source.terms.refresh.min(self.longest)
    }

    /// That, less up to a fifth: replicas must not come all at once.
    fn interval(&self) -> Duration {
        self.longest_interval().mul_f64(1.0 - backoff::share() / 5.0)
    }

    /// Until then, or until someone wants it sooner: then not before the document that is held may be old.
    async fn wait(&mut self, until: Instant) {
        let begun = Instant::now();
        let mut wanted = false;
        loop {
            self.hear();
            let soonest = if wanted { until.min(begun + NEWEST) } else { until };
            if Instant::now() >= soonest {
                return;
            }
            let entry = Arc::clone(&self.entry);
            tokio::select! {
                () = sleep_until(soonest) => return,
                () = sleep(TICK) => self.look(),
                () = entry.wanted(), if !wanted => wanted = true,
            }
        }
    }

    /// Reads the store, and asks the roots where that is due or the document is another. Everything that comes of it is done.
    ///
    /// # Errors
    /// Why it is not as it should be.
    pub(super) async fn refresh(&mut self) -> Result<(), KeyError> {
        // Known before it is asked: a login that comes meanwhile is not the one that was denied. Where no keys are held none are lost.
        let first = self.life.first_denial().filter(|_| self.keyset.is_some());
        let is_fresh = first.is_none_or(|first| self.source.has_logins_since(first));
        // From here on: a login may follow the denial before we hear of it.
        let begun = life::now();
        let outcome = self.ask().await;
        match outcome.as_ref().map_err(KeyError::fault) {
            Ok(()) => {}
            Err(Fault::Denied) => {
                if self.life.denied(begun, is_fresh) == Denial::Final {
                    tracing::error!(keyset = self.name(), "denied twice: its keys are dropped");
                }
            }
            Err(_) => self.life.unanswered(),
        }
        self.source.metrics.keyset_refreshed(outcome.as_ref().map_or_else(|error| error.fault().as_str(), |()| "ok"));
        self.say(outcome.as_ref().err());
        self.look();
        self.entry.refresh_ended(outcome.is_ok(), self.trouble());
        if outcome.is_ok() {
            self.rotate().await;
        }
        outcome
    }

    async fn ask(&mut self) -> Result<(), KeyError> {
        let source = Arc::clone(&self.source);
        let stored = source.store.read(self.entry.handle().name()).await?;
        let same = self.keyset.is_some() && self.stored.as_ref().is_some_and(|held| held.bytes == stored.bytes);
        if same {
            self.life.store_answered(life::now());
            if !self.life.root_check_is_due(life::now()) {
                return Ok(());
            }
        }
        let (opened, others) =
            opening::open_by_some(&stored.bytes, self.name(), &source.roots, &source.slab, source.policy).await?;
        if !same {
            self.take(&opened, stored)?;
        }
        // A root that is lost unseen is one that is missing when it is needed. Of tenants' keysets there may be thousands, under the same.
        self.others = self.entry.is_expected().then_some(others);
        self.life.all_answered(life::now());
        Ok(())
    }

    fn take(&mut self, opened: &Opened, stored: Stored) -> Result<(), KeyError> {
        let document = opened.document();
        // Lower is an old document put back; equal with other bytes is a second history. Keys that were dropped come back with the
        // document that was in force.
        if self.stored.as_ref().is_some_and(|known| document.epoch <= self.epoch() && known.bytes != stored.bytes) {
            return Err(KeyError::Unsupported("its epoch did not grow, so it was not taken"));
        }
        let keyset = Arc::new(opened.keyset(self.keyset.as_deref(), self.source.max_uses)?);
        self.longest = Duration::from_secs(document.refresh.max(1));
        let name = self.entry.handle().name();
        self.metrics.get_or_insert_with(|| self.source.metrics.keyset(name)).epoch(document.epoch);
        self.document = Some(document.clone());
        self.stored = Some(stored);
        self.keyset = Some(keyset);
        // A right that is the same must hand out the new keys all the same.
        self.right = Right::Neither("not loaded");
        Ok(())
    }

    fn epoch(&self) -> u64 {
        self.document.as_ref().map_or(0, |document| document.epoch)
    }

    /// Where a rotation is due it shows, and where replicas rotate it is begun; what has waited for long enough is promoted. Whoever is
    /// slower than another leaves it.
    async fn rotate(&mut self) {
        let Some(document) = &self.document else { return };
        let step = self.watch.see(document, Line::Field, life::now());
        let uses = self.keyset.iter().flat_map(|keyset| keyset.versions());
        let most = uses.filter(|version| version.state == VersionState::Active).map(|version| version.sealed).max();
        let used_up = most.unwrap_or(0) >= self.source.max_uses / 5 * 4 && step == Step::Idle;
        let due = used_up || is_due(document, Line::Field, self.source.rotate_after, life::unix_now());
        if let Some(metrics) = &self.metrics {
            metrics.overdue(due);
        }
        if !self.source.sidecars_rotate || !matches!((step, due), (Step::Idle, true) | (Step::Promote(_), _)) {
            return;
        }
        let (source, now) = (Arc::clone(&self.source), life::unix_now());
        let changer = Changer {
            store: &source.store,
            roots: &source.roots,
            slab: &source.slab,
            policy: source.policy,
            signer: None,
        };
        let epoch = document.epoch;
        let changed = changer.change(self.name(), |opened| {
            // Someone else was faster; what that means is seen with the next refresh.
            if opened.document().epoch != epoch {
                return Ok(Change::Leave(None));
            }
            let (id, state) = match step {
                Step::Promote(id) => {
                    opened.promote(&id, now)?;
                    (id, "active")
                }
                _ => {
                    let active = opened.document().active(Line::Field).map(|version| version.alg.cipher);
                    (opened.add_pending(Line::Field, active.unwrap_or(Cipher::XChaCha20Poly1305), now)?, "pending")
                }
            };
            Ok(Change::Write(Some((id, state))))
        });
        match changed.await {
            Ok(Some((id, state))) => {
                let key_id: String = id.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                tracing::info!(keyset = self.name(), key_id, state, "keys were rotated");
            }
            Ok(None) => {}
            Err(error) => tracing::error!(keyset = self.name(), %error, "keys cannot be rotated"),
        }
    }

    /// Asks roots that have not been asked for their shares, and takes in what they said where all have answered. Not while the process
    /// starts: nobody waits for them.
    fn hear(&mut self) {
        if let Some(others) = self.others.take_if(|_| self.hearing.is_empty()) {
            self.hearing.spawn(others.heard());
        }
        let Some(Ok(mut heard)) = self.hearing.try_join_next() else { return };
        heard.extend(self.source.lost.iter().map(|root| {
            let why = "it could not be used when this process was started: see its log";
            (root.clone(), Some(KeyError::Unsupported(why)))
        }));
        for (root, error) in &heard {
            if let Some(metrics) = &mut self.metrics {
                metrics.root(root, error.is_none());
            }
            match (error, self.entry.root_said(root, error.as_ref().map(ToString::to_string))) {
                (_, false) => {}
                (None, true) => tracing::info!(keyset = self.name(), root, "this root key opens the keyset again"),
                (Some(error), true) => tracing::warn!(
                    keyset = self.name(),
                    root,
                    "this root key does not open the keyset, which others do: mend it before it is needed: {error}"
                ),
            }
        }
    }

    /// Gives what may be given now.
    fn look(&mut self) {
        let now = life::now();
        let right = self.life.right(now);
        if let Some(keyset) = &self.keyset {
            self.entry.look_at_use(keyset, life::unix_now());
        }
        if let Some(metrics) = &self.metrics {
            let (encrypt, decrypt) = self.life.left(now);
            metrics.left(encrypt, decrypt);
        }
        if right != self.right {
            self.right = right;
            let handle = self.entry.handle();
            match (right, &self.keyset) {
                (Right::Both, Some(keyset)) => handle.store(State::Held(Arc::clone(keyset))),
                (Right::Reading, Some(keyset)) => {
                    tracing::error!(keyset = self.name(), "stale_encrypt is over: its keys do not encrypt any more");
                    handle.store(State::ReadOnly(Arc::clone(keyset)));
                }
                (Right::Neither(why), None) => handle.store(State::Unavailable(why)),
                (Right::Neither(why), Some(_)) => {
                    tracing::error!(keyset = self.name(), why, "its keys are not given any more");
                    handle.store(State::Unavailable(why));
                    self.keyset = None;
                }
                (_, None) => handle.store(State::Unavailable("not loaded")),
            }
        }
        self.entry.set_trouble(self.trouble());
    }

    fn trouble(&self) -> Option<String> {
        match (self.right, self.life.cut_off(life::now(), self.longest)) {
            (Right::Neither(why), _) => Some(why.to_owned()),
            (Right::Reading, _) => Some("stale_encrypt is over".to_owned()),
            (Right::Both, Some(age)) => Some(format!("not refreshed for {} s", age.as_secs())),
            (Right::Both, None) => None,
        }
    }

    /// Once, and again when it is another.
    fn say(&mut self, error: Option<&KeyError>) {
        // Whoever may name a tenant could fill the log.
        let is_strange = !self.entry.is_expected() && self.metrics.is_none();
        if is_strange && error.is_some_and(|error| error.fault() == Fault::Missing) {
            return;
        }
        let text = error.map(ToString::to_string);
        if text != self.said {
            match (&text, error.map(KeyError::fault)) {
                (Some(error), Some(fault)) => {
                    tracing::error!(keyset = self.name(), reason = fault.as_str(), "cannot refresh keys: {error}");
                }
                _ if self.said.is_none() => {}
                _ => tracing::info!(keyset = self.name(), epoch = self.epoch(), "keys are refreshed again"),
            }
        }
        self.said = text;
    }

    fn name(&self) -> &str {
        self.entry.handle().name()
    }
}

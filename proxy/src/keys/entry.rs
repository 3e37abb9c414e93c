//! A keyset as the data path knows it: a handle, and whom to wake.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oilskin_crypto::{Keyset, KeysetHandle};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::life;

/// How long a request waits for keys that are being fetched.
const PATIENCE: Duration = Duration::from_secs(1);

/// A document that was read so recently has every version there is.
pub(super) const NEWEST: Duration = Duration::from_secs(5);

/// One keyset of this process.
pub(crate) struct Entry {
    handle: KeysetHandle,
    /// A rule names it: without it the process is not ready.
    expected: AtomicBool,
    /// Someone met a token of a version that is not known here.
    wanted: Notify,
    /// Another keyset needs its room.
    gone: Notify,
    /// How many refreshes have ended.
    refreshes: watch::Sender<u64>,
    /// When the store last answered, in milliseconds since the machine was started.
    answered: AtomicU64,
    /// The last refresh came to nothing.
    failing: AtomicBool,
    /// When a message last asked for it, in seconds since the machine was started.
    used: AtomicU64,
    /// What this process did with its versions.
    use_of: Mutex<UseOf>,
    /// What each root said of its share, by its URI: nothing where it unwrapped it.
    roots: Mutex<BTreeMap<String, Option<String>>>,
    /// Why it is not as it should be.
    trouble: Mutex<Option<String>>,
}

/// When versions were last met, by their short ids.
#[derive(Debug, Default)]
struct UseOf(BTreeMap<[u8; 8], (u64, Option<u64>)>);

/// What to think of a key version that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The document is fresh, and it is not in it: no version of this keyset.
    Foreign,
    /// It may be newer than the document.
    Perhaps,
    /// It may be newer, and the store does not answer.
    CutOff,
}

fn millis() -> u64 {
    millis_of(life::now())
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Entry {
    pub(super) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            handle: KeysetHandle::new(name),
            expected: AtomicBool::new(false),
            wanted: Notify::new(),
            gone: Notify::new(),
            refreshes: watch::Sender::new(0),
            answered: AtomicU64::new(0),
            failing: AtomicBool::new(true),
            used: AtomicU64::new(life::now().as_secs()),
            use_of: Mutex::default(),
            roots: Mutex::default(),
            trouble: Mutex::new(Some("not loaded".to_owned())),
        })
    }

    /// What gives its keys.
    pub(crate) fn handle(&self) -> &KeysetHandle {
        &self.handle
    }

    /// What a token says of a version that is not known here.
    pub(crate) fn unknown(&self) -> Unknown {
        let age = millis().saturating_sub(self.answered.load(Ordering::Relaxed));
        match self.failing.load(Ordering::Relaxed) {
            // Whatever the id: who makes some up must not make us call.
            false if age < millis_of(NEWEST) => Unknown::Foreign,
            false => Unknown::Perhaps,
            true => Unknown::CutOff,
        }
    }

    /// Someone met a token of a version that is not known here.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits, not for long, for the refresh that everybody waits for who met a token of a version that is not known here.
    pub(crate) async fn refreshed(&self) {
        let mut refreshes = self.refreshes.subscribe();
        refreshes.mark_unchanged();
        self.want();
        // That nothing came of it shows in the keys, which are then as they were.
        let _ = timeout(PATIENCE, refreshes.changed()).await;
    }

    /// Waits, not for long, for the first refresh.
    pub(crate) async fn loaded(&self) {
        let mut refreshes = self.refreshes.subscribe();
        let _ = timeout(PATIENCE, refreshes.wait_for(|refreshes| *refreshes > 0)).await;
    }

    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(super) fn evict(&self) {
        self.gone.notify_one();
    }

    pub(super) async fn evicted(&self) {
        self.gone.notified().await;
    }

    /// A refresh has ended, with an answer of the store or not.
    pub(super) fn refresh_ended(&self, answered: bool, trouble: Option<String>) {
        self.failing.store(!answered, Ordering::Relaxed);
        if answered {
            self.answered.store(millis(), Ordering::Relaxed);
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        self.refreshes.send_modify(|refreshes| *refreshes += 1);
    }

    /// What is wrong with it while nothing is refreshed.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a root said of its share. True where that is news: good news is none the first time.
    pub(super) fn root_said(&self, root: &str, error: Option<String>) -> bool {
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let before = roots.insert(root.to_owned(), error.clone()).flatten();
        before != error
    }

    /// Looks at what this process did with the versions since it last looked; `now` in Unix seconds.
    pub(super) fn look_at_use(&self, keyset: &Keyset, now: u64) {
        let mut use_of = self.use_of.lock().unwrap_or_else(PoisonError::into_inner);
        for version in keyset.versions() {
            let (opened, last) = use_of.0.entry(version.key_id).or_default();
            if *opened != version.opened {
                (*opened, *last) = (version.opened, Some(now));
            }
        }
    }

    /// What is known of it, without secrets.
    pub(super) fn document(&self) -> Value {
        let keyset = self.handle.held();
        if let Some(keyset) = &keyset {
            self.look_at_use(keyset, life::unix_now());
        }
        let use_of = self.use_of.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = keyset.iter().flat_map(|keyset| keyset.versions()).map(|version| {
            let last_read = use_of.0.get(&version.key_id).and_then(|(_, last)| *last);
            json!({
                "key_id": version.key_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                "line": version.line,
                "state": version.state,
                "messages_written": version.sealed,
                "messages_read": version.opened,
                "last_read": last_read,
            })
        });
        let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = roots.iter().map(|(root, error)| json!({"root": root, "opens": error.is_none(), "error": error}));
        json!({
            "name": self.handle.name(),
            "roots": roots.collect::<Vec<_>>(),
            "epoch": keyset.as_ref().map(|keyset| keyset.epoch()),
            "trouble": self.trouble(),
            "versions": versions.collect::<Vec<_>>(),
        })
    }

    pub(super) fn expect(&self) {
        self.expected.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_expected(&self) -> bool {
        self.expected.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self) {
        self.used.store(life::now().as_secs(), Ordering::Relaxed);
    }

    /// Seconds since the machine was started.
    pub(super) fn last_used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

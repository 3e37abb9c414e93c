//! Readiness: a usable key is held, and the process is not on its way out. Liveness never depends on any of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::keys::Keyrings;
use crate::rules::Homes;
use crate::transit;

/// Why the process is not ready, if it is not.
pub(crate) struct Readiness {
    draining: AtomicBool,
    keyrings: Arc<Keyrings>,
    transit: Arc<transit::Keys>,
}

impl Readiness {
    /// Ready once these keys are there.
    pub(crate) fn new(homes: &Homes) -> Self {
        let (keyrings, transit) = (Arc::clone(&homes.keyrings), Arc::clone(&homes.transit));
        Self { draining: AtomicBool::new(false), keyrings, transit }
    }

    /// The process drains: it never becomes ready again.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The keys that it depends on.
    pub(crate) fn keyrings(&self) -> &Keyrings {
        &self.keyrings
    }

    /// The reason, or none when it is ready.
    pub(crate) fn reason(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("draining".to_owned());
        }
        let shown = |troubled: Vec<(String, String)>| {
            let shown: Vec<String> = troubled.into_iter().map(|(name, why)| format!("{name} ({why})")).collect();
            shown.join(", ")
        };
        let keysets = self.keyrings.troubled();
        if !keysets.is_empty() {
            return Some(format!("keysets not held: {}", shown(keysets)));
        }
        let keys = self.transit.troubled();
        (!keys.is_empty()).then(|| format!("keys that cannot be used: {}", shown(keys)))
    }
}

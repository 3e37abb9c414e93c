//! Readiness: a usable key is held, and the process is not on its way out. Liveness never depends on any of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Why the process is not ready, if it is not.
#[derive(Default)]
pub(crate) struct Readiness {
    draining: AtomicBool,
    missing_keys: Mutex<Vec<String>>,
}

impl Readiness {
    /// The process drains: it never becomes ready again.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Names of keysets that rules need and that are not held.
    pub(crate) fn missing_keys(&self, names: Vec<String>) {
        *self.missing_keys.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// The reason, or none when it is ready.
    pub(crate) fn reason(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("draining".to_owned());
        }
        let missing = self.missing_keys.lock().unwrap_or_else(PoisonError::into_inner);
        (!missing.is_empty()).then(|| format!("keysets not held: {}", missing.join(", ")))
    }
}

//! Sessions with something that gives material, one after the other, and the waits between them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::time::sleep;

use super::identities::Identities;
use super::material::Refused;
use crate::backoff;

/// Connecting, and handing over a request.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Longest wait before another connection.
const LONGEST: Duration = Duration::from_secs(30);

/// Longest one while nothing is held: the agent may be starting beside us, and everyone waits.
const EAGER: Duration = Duration::from_secs(4);

/// Sessions of one source.
pub(super) struct Sessions {
    pub(super) identities: Arc<Identities>,
    pub(super) at: usize,
    /// Before the next sessions; none after one in which something was taken.
    waits: Mutex<Option<ExponentialBackoff>>,
}

impl Sessions {
    pub(super) fn new(identities: Arc<Identities>, at: usize) -> Self {
        Self { identities, at, waits: Mutex::default() }
    }

    /// What was pushed is held.
    pub(super) fn took(&self) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A session has ended: tells why, and waits until it is time for the next.
    pub(super) async fn ended(&self, why: &Refused) {
        self.identities.lost(self.at, why);
        self.wait().await;
    }

    /// Waits until it is time for the next attempt.
    pub(super) async fn wait(&self) {
        let longest = if self.identities.holds(self.at) { LONGEST } else { EAGER };
        let wait = {
            let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            waits.get_or_insert_with(|| backoff::waits(longest)).next()
        };
        sleep(wait.unwrap_or(longest)).await;
    }
}

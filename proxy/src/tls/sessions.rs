//! Sessions with something that pushes material, one after the other, and the waits between them.

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

/// What is kept of a message that a service sends, in characters.
const MAX_MESSAGE: usize = 200;

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
        let longest = if self.identities.holds(self.at) { LONGEST } else { EAGER };
        let wait = {
            let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            waits.get_or_insert_with(|| backoff::waits(longest)).next()
        };
        sleep(wait.unwrap_or(longest)).await;
    }
}

/// A service's message, as much of it as is kept.
pub(super) fn shortened(message: &str) -> String {
    message.chars().take(MAX_MESSAGE).collect()
}

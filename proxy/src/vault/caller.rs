//! One runtime's way to Vault: connections to each address, and which of them is asked.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::client::Client;
use super::error::Error;
use super::{Vault, wire};
use crate::backoff;

/// How long a call waits for the first token.
const FIRST: Duration = Duration::from_secs(5);

/// How long another address is asked than the one that should be, before that is tried again.
const ELSEWHERE: Duration = Duration::from_secs(30);

/// What a call does there, which says where it is best asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// It goes to the active one: the first address.
    Writes,
    /// A standby will do, where that is wanted.
    Reads,
}

/// One runtime's way to Vault: connections belong to the runtime that made them.
pub(crate) struct Caller {
    pub(super) vault: Arc<Vault>,
    state: Mutex<State>,
}

struct State {
    /// A connection to each address, once it was asked.
    wires: Vec<Option<wire::Wire>>,
    writes: Choice,
    reads: Choice,
}

/// Which address is asked.
struct Choice {
    /// Which one it should be.
    home: usize,
    at: usize,
    /// Since when it is another one.
    since: Option<Instant>,
}

impl Choice {
    fn new(home: usize) -> Self {
        Self { home, at: home, since: None }
    }

    fn at(&mut self) -> usize {
        if self.since.is_some_and(|since| since.elapsed() >= ELSEWHERE) {
            (self.at, self.since) = (self.home, None);
        }
        self.at
    }

    fn turn(&mut self, of: usize) {
        self.at = (self.at + 1) % of;
        self.since = (self.at != self.home).then(Instant::now);
    }
}

impl Caller {
    pub(crate) fn new(vault: &Arc<Vault>) -> Self {
        let standbys = vault.ways.len().saturating_sub(1);
        let reads = match vault.settings.standby_reads && standbys > 0 {
            // Workers and replicas spread over them.
            true => 1 + spread(standbys),
            false => 0,
        };
        let wires = std::iter::repeat_with(|| None).take(vault.ways.len()).collect();
        let state = State { wires, writes: Choice::new(0), reads: Choice::new(reads) };
        Self { vault: Arc::clone(vault), state: Mutex::new(state) }
    }

    /// Whose way it is.
    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// A client with the token that is held now; waits a moment for the first one.
    ///
    /// # Errors
    /// Why there is no token.
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        self.client_within(FIRST).await
    }

    /// The same; waits for the first token for no longer than this.
    ///
    /// # Errors
    /// Why there is no token.
    pub(crate) async fn client_within(&self, first: Duration) -> Result<Client, Error> {
        self.client_to(Does::Writes, first).await
    }

    /// The same for calls that do this.
    ///
    /// # Errors
    /// Why there is no token.
    pub(super) async fn client_to(&self, does: Does, first: Duration) -> Result<Client, Error> {
        let held = || self.vault.token.load_full();
        let mut token = held();
        if token.is_none() {
            let mut changed = pin!(self.vault.changed.notified());
            changed.as_mut().enable();
            token = held();
            if token.is_none() {
                // Its elapsing shows in there being none still.
                let _ = timeout(first, changed).await;
                token = held();
            }
        }
        match token {
            Some(token) => self.client_at(does, token.text()),
            None => Err(self.vault.failed.load().as_deref().cloned().unwrap_or_else(|| Error::slow(first))),
        }
    }

    /// A client with this token; an empty one is none.
    pub(super) fn client_with(&self, token: &str) -> Result<Client, Error> {
        self.client_at(Does::Writes, token)
    }

    fn client_at(&self, does: Does, token: &str) -> Result<Client, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { wires, writes, reads } = &mut *state;
        let at = if does == Does::Reads { reads.at() } else { writes.at() };
        let place = wires.get_mut(at).zip(self.vault.ways.get(at));
        let Some((place, way)) = place else { return Err(Error::settings("it has no address")) };
        let number = wire::number(way.tls.as_deref());
        let wire = match place.take().filter(|wire| wire.is(number)) {
            Some(wire) => wire,
            None => wire::Wire::new(&self.vault.settings, way)?,
        };
        place.insert(wire).client(&self.vault, token)
    }

    /// How many addresses there are beside the one that is asked.
    pub(crate) fn others(&self) -> usize {
        self.vault.ways.len().saturating_sub(1)
    }

    /// The next call goes to the next address, where there are several and this one does not answer.
    pub(super) fn turn(&self, does: Does, error: Option<&Error>) {
        let ways = self.vault.ways.len();
        if error.is_none_or(Error::is_answer) || ways < 2 {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match does {
            Does::Writes => state.writes.turn(ways),
            Does::Reads => state.reads.turn(ways),
        }
    }

    /// The same as [`Caller::counted`]; a denial wakes who looks after the token.
    ///
    /// # Errors
    /// What the answer means.
    pub(crate) async fn within<T>(
        &self,
        deadline: Duration,
        operation: &'static str,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = self.counted(deadline, operation, asked).await;
        self.notice(answer.as_ref().err());
        answer
    }

    /// Wakes who looks after the token where this is a denial; for calls that have their deadline and count elsewhere.
    pub(crate) fn notice(&self, error: Option<&Error>) {
        if error.is_some_and(Error::is_denied) {
            self.vault.denied.notify_one();
        }
    }

    /// An answer within a deadline, counted under `operation`.
    pub(super) async fn counted<T>(
        &self,
        deadline: Duration,
        operation: &'static str,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = match timeout(deadline, asked).await {
            Err(_) => Err(Error::slow(deadline)),
            Ok(answer) => answer,
        };
        self.vault.calls.ended(operation, answer.as_ref().map_or_else(Error::reason, |_| "ok"));
        self.turn(Does::Writes, answer.as_ref().err());
        answer
    }
}

/// A number below `of`, by chance.
fn spread(of: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of addresses"
    )]
    let chosen = (backoff::share() * of as f64) as usize;
    chosen.min(of - 1)
}

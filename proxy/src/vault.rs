//! Vault or OpenBao, by `vaultrs`: one token, come by and kept fresh in a task of its own, for everyone who asks.
//!
//! `client` asks, `error` says what an answer means, `wire` how the server is reached, `login` how a token is come by, `token` is its life.

mod client;
mod error;
mod login;
mod token;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use oilskin_config::{self as config, Config, Protocol, VaultAddress, VaultPki};
use tokio::sync::Notify;
use tokio::time::timeout;

pub(crate) use client::Client;
pub(crate) use error::Error;

use crate::snapshot::BuildError;
use crate::telemetry::{Metrics, ProviderCalls};
use crate::tls::{self, Gathering, Identities};
use token::Token;

/// How long a call waits for the first token.
const FIRST: Duration = Duration::from_secs(5);

/// Vault as the process knows it: where, and with which token now.
pub(crate) struct Vault {
    settings: config::Vault,
    /// None in clear text.
    tls: Option<Arc<tls::Client>>,
    /// None until a login succeeded.
    token: ArcSwapOption<Token>,
    /// Why there is none yet.
    failed: ArcSwapOption<Error>,
    /// The token was changed.
    changed: Notify,
    /// Someone was told that the token may not: perhaps it has ended.
    denied: Notify,
    calls: ProviderCalls,
}

/// Vault, where something asks for it; nothing is called yet.
///
/// # Errors
/// The certificates that it is reached with.
pub(crate) fn open(
    config: &Config,
    metrics: &Metrics,
    identities: &mut Gathering<'_>,
) -> Result<Option<Arc<Vault>>, BuildError> {
    let Some(settings) = &config.vault else { return Ok(None) };
    let tls = match &settings.address {
        VaultAddress::Tcp { tls: true, host, .. } => {
            let client = identities.client(&settings.tls, host, Protocol::H1);
            Some(client.map_err(|refused| BuildError::Vault(refused.to_string()))?)
        }
        _ => None,
    };
    Ok(Some(Arc::new(Vault {
        settings: settings.clone(),
        tls,
        token: ArcSwapOption::empty(),
        failed: ArcSwapOption::empty(),
        changed: Notify::new(),
        denied: Notify::new(),
        calls: metrics.provider("vault"),
    })))
}

impl Vault {
    /// Comes by a token and keeps it fresh until the process ends.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        token::keep_fresh(self).await;
    }

    /// Keeps a source's certificate issued until the process ends.
    pub(crate) async fn issue(self: Arc<Self>, identities: Arc<Identities>, at: usize, pki: VaultPki) {
        tls::watch_issued(identities, at, pki, self).await;
    }

    /// Gives the token back, if it was made for us.
    pub(crate) async fn leave(self: &Arc<Self>) {
        token::leave(self).await;
    }

    /// Where it is, for people.
    pub(crate) fn shown(&self) -> String {
        match &self.settings.address {
            VaultAddress::Unix(path) => format!("unix:{}", path.display()),
            VaultAddress::Tcp { .. } => wire::base(&self.settings),
        }
    }

    fn hold(&self, token: Token) {
        self.token.store(Some(Arc::new(token)));
        self.changed.notify_waiters();
    }
}

/// One runtime's way to Vault: connections belong to the runtime that made them.
pub(crate) struct Caller {
    vault: Arc<Vault>,
    wire: Mutex<Option<wire::Wire>>,
}

impl Caller {
    pub(crate) fn new(vault: &Arc<Vault>) -> Self {
        Self { vault: Arc::clone(vault), wire: Mutex::default() }
    }

    /// A client with the token that is held now; waits a moment for the first one.
    ///
    /// # Errors
    /// Why there is no token.
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        let changed = self.vault.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if self.vault.token.load().is_none() {
            // Its elapsing shows in there being none still.
            let _ = timeout(FIRST, changed).await;
        }
        match self.vault.token.load_full() {
            Some(token) => self.client_with(token.text()),
            None => Err(self.vault.failed.load().as_deref().cloned().unwrap_or_else(|| Error::slow(FIRST))),
        }
    }

    /// A client with this token; an empty one is none.
    fn client_with(&self, token: &str) -> Result<Client, Error> {
        let mut held = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        let number = wire::number(self.vault.tls.as_deref());
        let wire = match held.take().filter(|wire| wire.is(number)) {
            Some(wire) => wire,
            None => wire::Wire::new(&self.vault.settings, self.vault.tls.as_deref())?,
        };
        let client = wire.client(&self.vault.settings, token);
        *held = Some(wire);
        Ok(client)
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
        if answer.as_ref().is_err_and(Error::is_denied) {
            self.vault.denied.notify_one();
        }
        answer
    }

    /// An answer within a deadline, counted under `operation`.
    async fn counted<T>(
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
        answer
    }
}

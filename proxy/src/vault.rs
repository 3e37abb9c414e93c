//! Vault or OpenBao, by `vaultrs`: one token, come by and kept fresh in a task of its own, for everyone who asks.
//!
//! `caller` chooses an address and a token, `client` asks, `batch` asks for many fields at once, `error` says what an answer means, `wire` how the server is reached, `login` how a token is come by, `token` is its life.

mod batch;
mod caller;
mod client;
mod error;
mod login;
mod token;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use oilskin_config::{self as config, Protocol, VaultAddress, VaultPki};
use tokio::sync::Notify;

#[doc(hidden)]
pub use batch::vault_answers;
pub(crate) use caller::Caller;
pub(crate) use client::{Client, Get};
pub(crate) use error::Error;

use crate::snapshot::BuildError;
use crate::telemetry::{Metrics, ProviderCalls};
use crate::tls::{self, Gathering, Identities};
use client::Seen;
use token::Token;

/// Vault as the process knows it: where, and with which token now.
pub(crate) struct Vault {
    settings: config::Vault,
    /// The first one is asked, the others where it does not answer. At least one.
    ways: Vec<Way>,
    seen: Arc<Seen>,
    /// None until a login succeeded.
    token: ArcSwapOption<Token>,
    /// Why there is none yet.
    failed: ArcSwapOption<Error>,
    /// The token was changed.
    changed: Notify,
    /// Someone was told that the token may not: perhaps it has ended.
    denied: Notify,
    /// A denial counts only once there is a token of a new login.
    wanted: Notify,
    calls: ProviderCalls,
}

/// Vault, where something asks for it; nothing is called yet.
///
/// # Errors
/// The certificates that it is reached with.
pub(crate) fn open(
    settings: Option<&config::Vault>,
    metrics: &Metrics,
    identities: &mut Gathering<'_>,
) -> Result<Option<Arc<Vault>>, BuildError> {
    let Some(settings) = settings else { return Ok(None) };
    let mut way = |address: &VaultAddress| {
        let tls = match address {
            VaultAddress::Tcp { tls: true, host, .. } => {
                let client = identities.client(&settings.tls, host, Protocol::H1);
                Some(client.map_err(|refused| BuildError::Vault(refused.to_string()))?)
            }
            _ => None,
        };
        Ok(Way { address: address.clone(), tls })
    };
    let ways = settings.addresses.iter().map(&mut way).collect::<Result<_, BuildError>>()?;
    Ok(Some(Arc::new(Vault {
        settings: settings.clone(),
        ways,
        seen: Arc::default(),
        token: ArcSwapOption::empty(),
        failed: ArcSwapOption::empty(),
        changed: Notify::new(),
        denied: Notify::new(),
        wanted: Notify::new(),
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

    /// The namespace of all that is asked.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.settings.namespace.as_deref()
    }

    /// Whether the token that is held is of a login later than that, since the machine was started; asks for one where it is not. For a
    /// token that was given a login is to read it again and have Vault say that it lives.
    pub(crate) fn has_login_since(&self, moment: Duration) -> bool {
        let has = self.token.load().as_deref().is_some_and(|token| token.login() > moment);
        if !has {
            self.wanted.notify_one();
        }
        has
    }

    /// Where it is, for people.
    pub(crate) fn shown(&self) -> String {
        let shown = |way: &Way| match &way.address {
            VaultAddress::Unix(path) => format!("unix:{}", path.display()),
            VaultAddress::Tcp { .. } => wire::base(&self.settings, &way.address),
        };
        self.ways.iter().map(shown).collect::<Vec<_>>().join(",")
    }

    fn hold(&self, token: Token) {
        self.token.store(Some(Arc::new(token)));
        self.changed.notify_waiters();
    }
}

/// One address.
struct Way {
    address: VaultAddress,
    /// None in clear text.
    tls: Option<Arc<tls::Client>>,
}

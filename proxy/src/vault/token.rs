//! A token's life: renewed at two thirds of it, come by anew where that cannot be or was denied, given back at the end.

use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::time::{Instant, sleep, sleep_until};
use vaultrs::api::token::requests::{RenewTokenSelfRequest, RevokeTokenSelfRequest};
use zeroize::Zeroizing;

use super::error::Error;
use super::login::{self, DEADLINE};
use super::{Caller, Vault};
use crate::backoff;
use crate::tls::{self, Mark};

/// Longest wait between two attempts at a login.
const LONGEST: Duration = Duration::from_secs(30);

/// Denials within this time after a login are not the token's fault.
const FRESH: Duration = Duration::from_secs(10);

/// Longest time that denials are not believed to be the token's fault: what is denied then is not ours to have.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a token's file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How long giving a token back may take while the process ends.
const LEAVE: Duration = Duration::from_secs(1);

/// A token and how long it is good for.
pub(super) struct Token {
    text: Zeroizing<String>,
    lease: Lease,
    since: Instant,
}

/// For how long a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// None is for ever.
    life: Option<Duration>,
    renewable: bool,
}

impl Lease {
    /// `seconds` of 0 are for ever.
    pub(super) fn new(seconds: u64, renewable: bool) -> Self {
        Self { life: (seconds > 0).then(|| Duration::from_secs(seconds)), renewable }
    }
}

impl Token {
    pub(super) fn new(text: Zeroizing<String>, lease: Lease) -> Self {
        Self { text, lease, since: Instant::now() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// When something has to be done for it: at two thirds of its life.
    fn due(&self) -> Option<Instant> {
        self.lease.life.map(|life| self.since + life * 2 / 3)
    }

    fn ended(&self) -> bool {
        self.lease.life.is_some_and(|life| self.since.elapsed() >= life)
    }
}

/// What happened to a token that is held.
enum Event {
    Due,
    Denied,
    Replaced,
}

/// Comes by a token and keeps it fresh until the process ends.
pub(super) async fn keep_fresh(vault: Arc<Vault>) {
    let mut keeper = Keeper { caller: Caller::new(&vault), vault, patience: FRESH };
    let mut waits: Option<ExponentialBackoff> = None;
    let mut last: Option<Error> = None;
    loop {
        let mark = keeper.mark();
        match login::login(&keeper.caller).await {
            Ok(token) => {
                (waits, last) = (None, None);
                keeper.say_life(&token);
                keeper.vault.hold(token);
                keeper.until_useless(mark).await;
            }
            Err(error) => {
                if last.as_ref() != Some(&error) {
                    tracing::error!(
                        target: "oilskin::vault",
                        vault = keeper.vault.shown(),
                        reason = error.reason(),
                        "no token of Vault's: {}",
                        error.in_full()
                    );
                }
                keeper.vault.failed.store(Some(Arc::new(error.clone())));
                last = Some(error);
                let wait = waits.get_or_insert_with(|| backoff::waits(LONGEST)).next();
                tokio::select! {
                    () = sleep(wait.unwrap_or(LONGEST)) => {}
                    () = keeper.replaced(mark) => {}
                }
            }
        }
    }
}

/// Gives the token back, if it was made for us.
pub(super) async fn leave(vault: &Arc<Vault>) {
    let Some(token) = vault.token.swap(None).filter(|_| vault.logs_in()) else { return };
    let caller = Caller::new(vault);
    let Ok(client) = caller.client_with(token.text()) else { return };
    // It ends by itself, too; nothing more can be done here.
    let _ = caller.counted(LEAVE, "revoke", client.done(RevokeTokenSelfRequest {})).await;
}

struct Keeper {
    vault: Arc<Vault>,
    caller: Caller,
    /// Grows with each login that a denial made.
    patience: Duration,
}

impl Keeper {
    fn mark(&self) -> Mark {
        self.vault.token_file().and_then(tls::mark)
    }

    /// Waits until the token's file is another than when it was read.
    async fn replaced(&self, read: Mark) {
        if self.vault.token_file().is_none() {
            return std::future::pending().await;
        }
        while self.mark() == read {
            sleep(LOOK).await;
        }
    }

    fn say_life(&self, token: &Token) {
        let vault = self.vault.shown();
        match token.lease {
            Lease { life: Some(life), renewable: false } if !self.vault.logs_in() => tracing::warn!(
                target: "oilskin::vault",
                vault,
                seconds = life.as_secs(),
                "the token given cannot be renewed: put a new one into its place before it ends"
            ),
            Lease { life, .. } => tracing::info!(
                target: "oilskin::vault",
                vault,
                seconds = life.map_or(0, |life| life.as_secs()),
                "a token of Vault's is held"
            ),
        }
    }

    /// Renews the token as long as that goes well; returns when another is needed.
    async fn until_useless(&mut self, read: Mark) {
        loop {
            let Some(token) = self.vault.token.load_full() else { return };
            match self.event(&token, read).await {
                Event::Due if token.lease.renewable => {
                    if !self.renewed(&token).await {
                        return;
                    }
                }
                Event::Denied => {
                    self.patience = (self.patience * 2).min(PATIENCE);
                    return;
                }
                Event::Due | Event::Replaced => return,
            }
            self.patience = FRESH;
        }
    }

    /// Waits for what comes first.
    async fn event(&self, token: &Token, read: Mark) -> Event {
        let due = async {
            match token.due().filter(|_| token.lease.renewable || self.vault.logs_in()) {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let denied = async {
            self.vault.denied.notified().await;
            sleep_until(token.since + self.patience).await;
        };
        tokio::select! {
            () = due => Event::Due,
            () = denied => Event::Denied,
            () = self.replaced(read) => Event::Replaced,
        }
    }

    /// Renews until that is done, denied, or the token has ended. False where another is needed.
    async fn renewed(&self, token: &Token) -> bool {
        let mut waits = backoff::waits(LONGEST);
        loop {
            let Ok(client) = self.caller.client_with(token.text()) else { return false };
            match self
                .caller
                .within(DEADLINE, "renew", client.auth(RenewTokenSelfRequest::default()))
                .await
                .and_then(login::token)
            {
                Ok(renewed) => {
                    // Near the end of what it may live a renewal gives less and less.
                    let enough = renewed.lease.life >= token.lease.life.map(|life| life / 2) || !self.vault.logs_in();
                    self.vault.hold(renewed);
                    return enough;
                }
                Err(error) => {
                    tracing::warn!(
                        target: "oilskin::vault",
                        vault = self.vault.shown(),
                        reason = error.reason(),
                        "a token could not be renewed: {}",
                        error.in_full()
                    );
                    if error.is_answer() || token.ended() {
                        return false;
                    }
                }
            }
            sleep(waits.next().unwrap_or(LONGEST)).await;
        }
    }
}

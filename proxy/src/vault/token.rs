//! A token's life: renewed at two thirds of it, come by anew where that cannot be or was denied, given back at the end.

use std::path::Path;
use std::pin::pin;
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
use crate::keys::boot_now;
use crate::tls::{self, Mark};

/// Longest wait between two attempts at a login.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits after logins that Vault refuses (400: another secret): it locks a role out for a quarter of an hour after five of them (`user_lockout`), and
/// then who mends the secret is locked out, too. The last one is for all that follow.
/// <https://openbao.org/docs/concepts/user-lockout/>
const REFUSED: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(30), Duration::from_secs(180), Duration::from_secs(300)];

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
    /// When the login that made it was begun; a renewal leaves that as it is, since it changes no policy.
    login: Duration,
    /// Whether it may look itself up, so that a lookup which is denied says that it has ended.
    may_look: bool,
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
        Self { text, lease, since: Instant::now(), login: boot_now(), may_look: false }
    }

    /// Of one that has looked itself up, or was seen whether it may.
    pub(super) fn looking(self, may_look: bool) -> Self {
        Self { may_look, ..self }
    }

    /// Of a login that was begun then.
    fn of_login(self, login: Duration) -> Self {
        Self { login, ..self }
    }

    pub(super) fn login(&self) -> Duration {
        self.login
    }

    pub(super) fn may_look(&self) -> bool {
        self.may_look
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
    /// Something, for longer than one is patient.
    Denied,
    /// Before its time.
    Ended,
    Wanted,
    Replaced,
}

/// Comes by a token and keeps it fresh until the process ends.
pub(super) async fn keep_fresh(vault: Arc<Vault>) {
    let mut keeper = Keeper { caller: Caller::new(&vault), vault, patience: FRESH };
    let mut waits = Waits::default();
    let mut last: Option<Error> = None;
    loop {
        let (token_file, secret_file) = (keeper.vault.token_file(), keeper.vault.secret_file());
        let (mark, secret, begun) = (mark(token_file), mark(secret_file), boot_now());
        let mut came = login::login(&keeper.caller).await;
        for _ in 0..keeper.caller.others() {
            match came {
                Err(error) if !error.is_answer() => came = login::login(&keeper.caller).await,
                _ => break,
            }
        }
        match came {
            Ok(token) => {
                (waits, last) = (Waits::default(), None);
                keeper.say_life(&token);
                keeper.vault.hold(token.of_login(begun));
                keeper.see_whether_it_may_look().await;
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
                let wait = waits.next(error.refused().is_some() && keeper.vault.logs_in());
                last = Some(error);
                tokio::select! {
                    () = sleep(wait) => {}
                    () = replaced(secret_file, secret) => {}
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

/// Between attempts at a login.
#[derive(Default)]
struct Waits {
    usual: Option<ExponentialBackoff>,
    /// Logins that were answered with no.
    refused: usize,
}

impl Waits {
    fn next(&mut self, was_refused: bool) -> Duration {
        if was_refused {
            let wait = REFUSED.get(self.refused).or(REFUSED.last()).copied();
            self.refused += 1;
            return wait.unwrap_or(LONGEST).mul_f64(1.0 + backoff::share() / 4.0);
        }
        self.usual.get_or_insert_with(|| backoff::waits(LONGEST)).next().unwrap_or(LONGEST)
    }
}

/// What a file is like now, where there is one.
fn mark(path: Option<&Path>) -> Mark {
    path.and_then(tls::mark)
}

/// Waits until a file is another than then; for ever where there is none.
async fn replaced(path: Option<&Path>, then: Mark) {
    if path.is_none() {
        return std::future::pending().await;
    }
    while mark(path) == then {
        sleep(LOOK).await;
    }
}

struct Keeper {
    vault: Arc<Vault>,
    caller: Caller,
    /// Grows with each login that a denial made.
    patience: Duration,
}

impl Keeper {
    /// Asked once, while it is known to live: `default`, the policy that allows it, can be left out of a role. Nobody waits for this.
    async fn see_whether_it_may_look(&self) {
        let Some(token) = self.vault.token.load_full().filter(|token| !token.may_look) else { return };
        if self.caller.look_up(token.text()).await.is_ok() {
            let (lease, since, login) = (token.lease, token.since, token.login);
            self.vault.hold(Token { text: token.text.clone(), lease, since, login, may_look: true });
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
                event @ (Event::Denied | Event::Ended) => {
                    let why = match event {
                        Event::Ended => "Vault does not know the token any more, so another is come by: it was revoked",
                        _ => "something was denied, so the token is come by anew: another may be allowed more",
                    };
                    tracing::warn!(target: "oilskin::vault", vault = self.vault.shown(), reason = "denied", "{why}");
                    self.patience = (self.patience * 2).min(PATIENCE);
                    return;
                }
                Event::Due | Event::Wanted | Event::Replaced => return,
            }
            self.patience = FRESH;
        }
    }

    /// Whether Vault says so; where it says nothing, it has not.
    async fn has_ended(&self, token: &Token) -> bool {
        match self.caller.client_with(token.text()) {
            Ok(client) => self.caller.has_ended(&client).await == Some(true),
            Err(_) => false,
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
            let mut patience = pin!(sleep_until(token.since + self.patience));
            // One that has ended is no use to anyone; one that lives may get more by another login, but not with each denial. It may still end
            // while it is borne with.
            while !self.has_ended(token).await {
                let again = async {
                    sleep(FRESH).await;
                    self.vault.denied.notified().await;
                };
                tokio::select! {
                    () = &mut patience => return Event::Denied,
                    () = again => {}
                }
            }
            Event::Ended
        };
        // Keys hang on it: patience with denials must not make them outlive their policy.
        let wanted = async {
            self.vault.wanted.notified().await;
            sleep_until(token.since + FRESH).await;
        };
        tokio::select! {
            () = due => Event::Due,
            event = denied => event,
            () = wanted => Event::Wanted,
            () = replaced(self.vault.token_file(), read) => Event::Replaced,
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
                    self.vault.hold(renewed.of_login(token.login).looking(token.may_look));
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

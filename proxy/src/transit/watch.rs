//! Learns what keys are, and looks again: a key may be rotated, or replaced by one of another kind.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Keys;
use super::key::{About, Key};
use crate::backoff;
use crate::vault::{Caller, Vault};

/// How often keys are looked at: the latest version is known that late.
const LOOK: Duration = Duration::from_secs(60);

/// And while one cannot be used.
const AGAIN: Duration = Duration::from_secs(2);

/// Learns what `keys` are until the process ends.
pub(crate) async fn keep_known(keys: Arc<Keys>, vault: Arc<Vault>) {
    if keys.are_none() {
        return;
    }
    let caller = Caller::new(&vault);
    let mut said: Vec<(String, String)> = Vec::new();
    loop {
        for key in keys.all() {
            look(&caller, &key).await;
        }
        let troubled = keys.troubled();
        for (key, why) in troubled.iter().filter(|one| !said.contains(one)) {
            tracing::error!(target: "oilskin::vault", key, "a key of Vault's cannot be used: {why}");
        }
        for (key, _) in said.iter().filter(|(key, _)| !troubled.iter().any(|(other, _)| other == key)) {
            tracing::info!(target: "oilskin::vault", key, "a key of Vault's can be used again");
        }
        let wait = if troubled.is_empty() { LOOK } else { AGAIN };
        said = troubled;
        sleep(wait.mul_f64(1.0 + backoff::share() / 4.0)).await;
    }
}

async fn look(caller: &Caller, key: &Key) {
    let name = key.name();
    match caller.about(name).await {
        Ok(about) => key.learn(About::read(&about)),
        Err(error) => key.unknown(match error.refused() {
            _ if error.is_denied() => {
                format!("Vault denies to say what it is (403): the policy needs `read` on {}/keys/{}, or the token has ended", name.mount, name.key)
            }
            Some(404) if error.says("no handler") => format!("nothing is mounted at {}", name.mount),
            Some(404) => format!("there is no such key: `vault write -f {}/keys/{} derived=true` makes it", name.mount, name.key),
            _ => error.in_full(),
        }),
    }
}

//! The way to Vault's transit engine where no worker has one: a runtime that runs while something is asked.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use oilskin_config as config;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::StartError;
use crate::keys::KeyError;
use crate::rules::Homes;
use crate::telemetry::Metrics;
use crate::tls::Gathering;
use crate::transit::{self, Lanes, Memory};
use crate::vault::{self, Caller, Vault};

/// How long it is waited for a token, and for what keys are.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Asking {
    lanes: Rc<Lanes>,
    vault: Arc<Vault>,
    local: LocalSet,
    runtime: Runtime,
}

impl Asking {
    /// The way, where a rule needs one.
    ///
    /// # Errors
    /// Vault, or a key there, that cannot be used.
    pub(super) fn of(
        homes: &Homes,
        settings: Option<&config::Vault>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, StartError> {
        let keys = Arc::clone(&homes.transit);
        let mut identities = Gathering::new(metrics);
        let vault = if keys.are_none() { None } else { vault::open(settings, metrics, &mut identities)? };
        let Some(vault) = vault else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let local = LocalSet::new();
        let lanes = Lanes::new(Caller::new(&vault), Memory::default());
        local.spawn_local(identities.finish().keep_fresh(Some(Arc::clone(&vault))));
        local.spawn_local(Arc::clone(&vault).keep_fresh());
        local.spawn_local(transit::keep_known(Arc::clone(&keys), Arc::clone(&vault)));
        let this = Self { lanes, vault, local, runtime };
        let known = this.during(async {
            let known = async {
                while !keys.troubled().is_empty() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, known).await
        });
        let troubled = keys.troubled().into_iter().next();
        match (known, troubled) {
            (Err(_), Some((key, why))) => Err(KeyError::Settings(format!("{key}: {why}")).into()),
            _ => Ok(Some(this)),
        }
    }

    pub(super) fn lanes(&self) -> &Rc<Lanes> {
        &self.lanes
    }

    /// Runs `work`, and all that it waits for.
    pub(super) fn during<T>(&self, work: impl Future<Output = T>) -> T {
        self.local.block_on(&self.runtime, work)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let vault = Arc::clone(&self.vault);
        self.during(async move { vault.leave().await });
    }
}

//! How providers are reached, and who looks after the way to them where no process does.

use std::sync::Arc;

use oilskin_config as config;
use tokio::task::JoinSet;

use super::KeyError;
use crate::telemetry::Metrics;
use crate::tls::{Gathering, Identities};
use crate::vault::{self, Caller, Vault};

/// How providers are reached from one runtime.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) metrics: Arc<Metrics>,
    /// Where something is in Vault; shared, so that roots and store need one connection.
    #[cfg_attr(not(feature = "vault"), expect(dead_code, reason = "nothing is asked of it"))]
    pub(crate) vault: Option<Arc<Caller>>,
}

impl Reach {
    /// Connections belong to the runtime that first asks.
    pub(crate) fn new(metrics: &Arc<Metrics>, vault: Option<&Arc<Vault>>) -> Self {
        Self { metrics: Arc::clone(metrics), vault: vault.map(|vault| Arc::new(Caller::new(vault))) }
    }
}

/// Vault's token and the certificates on the way to it, for the time of a command.
pub(crate) struct Away {
    identities: Arc<Identities>,
    vault: Option<Arc<Vault>>,
}

impl Away {
    /// Nothing is called yet.
    ///
    /// # Errors
    /// The certificates that it is reached with.
    pub(crate) fn open(settings: Option<&config::Vault>, metrics: &Arc<Metrics>) -> Result<(Self, Reach), KeyError> {
        let mut identities = Gathering::new(metrics);
        let vault = vault::open(settings, metrics, &mut identities);
        let vault = vault.map_err(|error| KeyError::Settings(error.to_string()))?;
        let reach = Reach::new(metrics, vault.as_ref());
        Ok((Self { identities: identities.finish(), vault }, reach))
    }

    /// Looks after both for as long as `work` takes, and gives the token back.
    pub(crate) async fn during<T>(self, work: impl Future<Output = T>) -> T {
        let Some(vault) = self.vault else { return work.await };
        let mut tasks = JoinSet::new();
        tasks.spawn(self.identities.keep_fresh(Some(Arc::clone(&vault))));
        tasks.spawn(Arc::clone(&vault).keep_fresh());
        let done = work.await;
        tasks.shutdown().await;
        vault.leave().await;
        done
    }
}

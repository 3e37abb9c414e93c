//! What stands for Vault in a build without it.

use std::sync::Arc;

use oilskin_config::{Config, VaultPki};

use crate::snapshot::BuildError;
use crate::telemetry::Metrics;
use crate::tls::{Gathering, Identities};

/// There is none.
pub(crate) enum Vault {}

/// None, where none is asked for.
///
/// # Errors
/// It is asked for.
pub(crate) fn open(config: &Config, _: &Metrics, _: &mut Gathering<'_>) -> Result<Option<Arc<Vault>>, BuildError> {
    match config.vault {
        None => Ok(None),
        Some(_) => {
            Err(BuildError::Vault("this program was built without it: build with the feature `vault`".to_owned()))
        }
    }
}

impl Vault {
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        match *self {}
    }

    pub(crate) async fn issue(self: Arc<Self>, _: Arc<Identities>, _: usize, _: VaultPki) {
        match *self {}
    }

    pub(crate) async fn leave(&self) {
        match *self {}
    }
}

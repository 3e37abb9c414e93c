//! What stands for Vault in a build without it.

#[path = "error.rs"]
mod error;

use std::sync::Arc;

use oilskin_config::{self as config, VaultKey, VaultPki};
use serde_json::Value;

pub(crate) use error::Error;

use crate::snapshot::BuildError;
use crate::telemetry::Metrics;
use crate::tls::{Gathering, Identities};
use crate::transit::{Item, ItemResult, Operation};

/// There is none.
pub(crate) enum Vault {}

/// None, where none is asked for.
///
/// # Errors
/// It is asked for.
pub(crate) fn open(
    settings: Option<&config::Vault>,
    _: &Metrics,
    _: &mut Gathering<'_>,
) -> Result<Option<Arc<Vault>>, BuildError> {
    match settings {
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

    pub(crate) fn shown(&self) -> String {
        match *self {}
    }

    pub(crate) async fn leave(&self) {
        match *self {}
    }
}

/// Nobody's way to it.
pub(crate) struct Caller {
    vault: Arc<Vault>,
}

impl Caller {
    pub(crate) fn new(vault: &Arc<Vault>) -> Self {
        Self { vault: Arc::clone(vault) }
    }

    pub(crate) async fn batch(&self, _: &VaultKey, _: Operation, _: &[Item]) -> Result<Vec<ItemResult>, Error> {
        match *self.vault {}
    }

    pub(crate) fn ended(&self, _: Operation, _: Option<&Error>) {
        match *self.vault {}
    }

    pub(crate) async fn make_key(&self, _: &str, _: &str) -> Result<(), Error> {
        match *self.vault {}
    }

    pub(crate) async fn about(&self, _: &VaultKey) -> Result<Value, Error> {
        match *self.vault {}
    }
}

#[cfg(test)]
mod tests {
    use oilskin_config::Vars;

    use super::open;
    use crate::telemetry::Metrics;
    use crate::tls::Gathering;

    #[test]
    fn who_asks_for_vault_is_told_that_it_is_not_built_in() {
        let vars = [
            ("OILSKIN_UPSTREAM", "http://127.0.0.1:9"),
            ("OILSKIN_TLS_SOURCE", "vault:pki/issue/web?common_name=a"),
            ("VAULT_ADDR", "http://127.0.0.1:8200"),
            ("VAULT_TOKEN_FILE", "/x"),
        ];
        let vars: Vars = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let config = oilskin_config::parse(&vars, &|_| Err(String::new())).unwrap();
        let metrics = Metrics::new();
        let refused = open(config.vault.as_ref(), &metrics, &mut Gathering::new(&metrics)).err().unwrap();
        assert!(refused.to_string().contains("feature `vault`"), "{refused}");
    }
}

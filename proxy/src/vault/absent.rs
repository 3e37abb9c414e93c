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
        let refused = open(&config, &metrics, &mut Gathering::new(&metrics)).err().unwrap();
        assert!(refused.to_string().contains("feature `vault`"), "{refused}");
    }
}

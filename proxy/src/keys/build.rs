//! Providers from their configuration.

use std::sync::Arc;

use oilskin_config::{self as config, Secreted};
use oilskin_crypto::Slab;
use zeroize::Zeroizing;

use super::files::{Folder, RootInFile};
use super::provider::{Root, Store};
use super::{KeyError, Reach};

/// The roots of a configuration, and everything that is wrong with them. Nothing is called yet that is not on this machine.
pub(crate) fn roots(keys: &config::Keys, slab: &Arc<Slab>, reach: &Reach) -> (Vec<Arc<Root>>, Vec<KeyError>) {
    let (mut roots, mut wrong) = (Vec::new(), Vec::new());
    for root in &keys.roots {
        match self::root(root, keys, slab, reach) {
            Ok(root) => roots.push(root),
            Err(error) => wrong.push(error),
        }
    }
    (roots, wrong)
}

/// One of them.
///
/// # Errors
/// What is wrong with it.
fn root(root: &config::Root, keys: &config::Keys, slab: &Arc<Slab>, reach: &Reach) -> Result<Arc<Root>, KeyError> {
    match root {
        config::Root::File(path) => {
            let shown = root.to_string();
            let passphrase = passphrase(keys)?;
            let passphrase = passphrase.as_ref().map(|passphrase| passphrase.as_slice());
            let key = RootInFile::open(path, passphrase, shown.clone(), slab)?;
            Ok(Root::new(Box::new(key), "file", shown, reach.metrics.provider("file")))
        }
        #[cfg(feature = "pkcs11")]
        config::Root::Pkcs11(key) => {
            let shown = root.to_string();
            let key = super::pkcs11::KeyInToken::new(key, shown.clone(), slab)?;
            Ok(Root::new(Box::new(key), "pkcs11", shown, reach.metrics.provider("pkcs11")))
        }
        #[cfg(not(feature = "pkcs11"))]
        config::Root::Pkcs11(_) => {
            Err(KeyError::Unsupported("root keys of pkcs11: are not in this build (feature pkcs11)"))
        }
        #[cfg(feature = "aws")]
        config::Root::AwsKms(key) => {
            let shown = root.to_string();
            let key = super::aws::Kms::new(key, shown.clone());
            Ok(Root::new(Box::new(key), "awskms", shown, reach.metrics.provider("awskms")))
        }
        #[cfg(not(feature = "aws"))]
        config::Root::AwsKms(_) => {
            Err(KeyError::Unsupported("root keys of awskms: are not in this build (feature aws)"))
        }
        #[cfg(feature = "vault")]
        config::Root::Vault(key) => {
            let shown = root.to_string();
            let key = super::vault::Transit::new(key, shown.clone(), caller(reach)?);
            Ok(Root::new(Box::new(key), "vault", shown, reach.metrics.provider("vault")))
        }
        #[cfg(not(feature = "vault"))]
        config::Root::Vault(_) => {
            Err(KeyError::Unsupported("root keys of vault: are not in this build (feature vault)"))
        }
    }
}

/// The store of a configuration.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn store(keys: &config::Keys, reach: &Reach) -> Result<Store, KeyError> {
    let shown = keys.store.to_string();
    match &keys.store {
        config::Store::File(folder) => {
            Ok(Store::new(Box::new(Folder::new(folder, shown.clone())), shown, reach.metrics.provider("file")))
        }
        #[cfg(feature = "vault")]
        config::Store::Vault(place) => {
            let store = super::vault::Kv::new(place, shown.clone(), caller(reach)?);
            Ok(Store::new(Box::new(store), shown, reach.metrics.provider("vault")))
        }
        #[cfg(not(feature = "vault"))]
        config::Store::Vault(_) => {
            Err(KeyError::Unsupported("key stores of vault: are not in this build (feature vault)"))
        }
        #[cfg(feature = "aws")]
        config::Store::AwsSecret(name) => {
            let store = super::aws::Secrets::new(name, shown.clone());
            Ok(Store::new(Box::new(store), shown, reach.metrics.provider("awssm")))
        }
        #[cfg(not(feature = "aws"))]
        config::Store::AwsSecret(_) => {
            Err(KeyError::Unsupported("key stores of awssm: are not in this build (feature aws)"))
        }
        #[cfg(feature = "k8s")]
        config::Store::Kubernetes(place) => {
            let store = super::kubernetes::Secrets::new(place, shown.clone());
            Ok(Store::new(Box::new(store), shown, reach.metrics.provider("k8s")))
        }
        #[cfg(not(feature = "k8s"))]
        config::Store::Kubernetes(_) => {
            Err(KeyError::Unsupported("key stores of k8s: are not in this build (feature k8s)"))
        }
    }
}

/// The way to Vault. The configuration has it where something is there; roots of the command line may be the first to ask.
#[cfg(feature = "vault")]
fn caller(reach: &Reach) -> Result<Arc<crate::vault::Caller>, KeyError> {
    let none = || KeyError::Unsupported("something is in Vault, and VAULT_ADDR does not say where that is");
    reach.vault.clone().ok_or_else(none)
}

/// The passphrase of root keys in files. White space at a file's end does not count.
///
/// # Errors
/// A file that cannot be read, or holds none.
pub(crate) fn passphrase(keys: &config::Keys) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let path = match &keys.passphrase {
        None => return Ok(None),
        Some(Secreted::Here(secret)) => return Ok(Some(Zeroizing::new(secret.reveal().as_bytes().to_vec()))),
        Some(Secreted::File(path)) => path,
    };
    let wrong = |why: &str| KeyError::Settings(format!("{}: {why}", path.display()));
    let read = crate::tls::read(path).map_err(|refused| KeyError::Settings(refused.text))?;
    let mut read = Zeroizing::new(read);
    let length = read.trim_ascii_end().len();
    read.truncate(length);
    match read.is_empty() {
        true => Err(wrong("there is no passphrase in it")),
        false => Ok(Some(read)),
    }
}

//! `vault:MOUNT/keys/NAME`: shares are wrapped by a key of the transit engine, bound to their place as associated data.

use std::sync::Arc;
use std::time::Duration;

use base64_simd::{Out, STANDARD};
use oilskin_config::VaultKey;
use oilskin_crypto::document::Share;
use vaultrs::api::transit::requests::{DecryptDataRequest, EncryptDataRequest};
use zeroize::Zeroizing;

use super::{Way, usual};
use crate::keys::provider::{Answer, RootKey};
use crate::keys::{Failed, Fault};
use crate::transit::About;
use crate::vault::{Caller, Client, Error, Get};

/// What every ciphertext of transit begins with.
const PREFIX: &str = "vault:v";

/// A share as base64.
const SHARE_TEXT: usize = 44;

/// A key of the transit engine.
pub(in crate::keys) struct Transit {
    way: Way,
    key: VaultKey,
}

impl Transit {
    pub(in crate::keys) fn new(key: &VaultKey, shown: String, caller: Arc<Caller>) -> Self {
        Self { way: Way { caller, shown }, key: key.clone() }
    }

    async fn wrap(&self, share: &[u8; 32], bound: &Share) -> Result<Vec<u8>, Failed> {
        let client = self.way.client().await?;
        self.check(&client).await?;
        let asked = EncryptDataRequest {
            mount: self.key.mount.clone(),
            name: self.key.key.clone(),
            // The library's own copy; this thread wipes what it frees.
            plaintext: STANDARD.encode_to_string(share),
            associated_data: Some(STANDARD.encode_to_string(bound.aad())),
            ..EncryptDataRequest::default()
        };
        let wrapped = self.way.ask(&client, client.data(asked), meaning).await?.ciphertext;
        match wrapped.starts_with(PREFIX) {
            true => Ok(wrapped.into_bytes()),
            false => Err(self.way.failed(Fault::Unreachable, "what answers is no Vault, or of another version")),
        }
    }

    /// Before anything is wrapped: whether the key binds what it wraps to its place. A convergent one ignores associated data, and
    /// two such ciphertexts give its authentication key away.
    async fn check(&self, client: &Client) -> Result<(), Failed> {
        let VaultKey { mount, key } = &self.key;
        let about =
            self.way.ask(client, client.data(Get(format!("{mount}/keys/{key}"))), |error| match error.refused() {
                _ if error.is_denied() => Some((
                    Fault::Denied,
                    "What wraps must also read the key's settings: the policy needs `read` on MOUNT/keys/NAME",
                )),
                Some(404) if !error.says("no handler") => Some((
                    Fault::Wrong,
                    "There is no such key: `vault write -f MOUNT/keys/NAME type=aes256-gcm96` makes it",
                )),
                _ => None,
            });
        let about = About::read(&about.await?);
        let why = if about.soft_deleted {
            "the key is soft deleted: restore it, or name another"
        } else if about.convergent {
            "the key is convergent: it cannot bind what it wraps. Make one without convergent_encryption and derived"
        } else if about.derived {
            "the key is derived: it asks for a context, which a root key has none of. Make one without derived"
        } else if !about.authenticates {
            "the key's type does not authenticate: make one of type aes256-gcm96"
        } else {
            return Ok(());
        };
        Err(self.way.failed(Fault::Wrong, why))
    }

    async fn unwrap(&self, wrapped: &[u8], bound: &Share, into: &mut [u8; 32]) -> Result<(), Failed> {
        let wrong = |why: &str| self.way.failed(Fault::Wrong, why);
        let text = std::str::from_utf8(wrapped).ok().filter(|text| text.starts_with(PREFIX));
        let text = text.ok_or_else(|| wrong("the document's share of this root is none of transit's"))?;
        let client = self.way.client().await?;
        let asked = DecryptDataRequest {
            mount: self.key.mount.clone(),
            name: self.key.key.clone(),
            ciphertext: text.to_owned(),
            associated_data: Some(STANDARD.encode_to_string(bound.aad())),
            ..DecryptDataRequest::default()
        };
        let plain = Zeroizing::new(self.way.ask(&client, client.data(asked), meaning).await?.plaintext);
        let is_share = plain.len() == SHARE_TEXT
            && STANDARD.decode(plain.as_bytes(), Out::from_slice(into)).is_ok_and(|share| share.len() == 32);
        // Its tag was right, so it is what someone wrapped; but not we.
        if is_share { Ok(()) } else { Err(wrong("what it unwraps is no share")) }
    }
}

fn meaning(error: &Error) -> Option<(Fault, &'static str)> {
    if error.refused() != Some(400) {
        return Some(match usual(error) {
            (Fault::Missing, _) => (Fault::Wrong, "Is the transit engine mounted there? `vault secrets list` shows it"),
            usual => usual,
        });
    }
    // Whoever deletes a key means it; a restored one serves again.
    if error.says("key not found") || error.says("soft deleted") || error.says("soft-deleted") {
        return Some((Fault::Denied, "Restore the key from a backup of Vault; without it this root opens nothing"));
    }
    if error.says("disallowed by policy") {
        let advice = "min_decryption_version was raised over what this document is wrapped with: lower it, run \
                      `oilskin keys rewrap`, and raise it again";
        return Some((Fault::Wrong, advice));
    }
    if error.says("authentication failed") {
        return Some((Fault::Wrong, "The document was wrapped by another key of that name, or was altered"));
    }
    None
}

impl RootKey for Transit {
    /// Its path as the root namespace sees it: the same key has the same id, by whatever address and namespace it is asked.
    fn id(&self) -> Vec<u8> {
        let VaultKey { mount, key } = &self.key;
        match self.way.caller.vault().namespace().map(|namespace| namespace.trim_matches('/')) {
            None | Some("" | "root") => format!("{mount}/keys/{key}").into_bytes(),
            Some(namespace) => format!("{namespace}/{mount}/keys/{key}").into_bytes(),
        }
    }

    fn has_login_since(&self, moment: Duration) -> bool {
        self.way.caller.vault().has_login_since(moment)
    }

    fn wrap<'a>(&'a self, share: &'a [u8; 32], bound: &'a Share) -> Answer<'a, Vec<u8>> {
        Box::pin(self.wrap(share, bound))
    }

    fn unwrap<'a>(&'a self, wrapped: &'a [u8], bound: &'a Share, into: &'a mut [u8; 32]) -> Answer<'a, ()> {
        Box::pin(self.unwrap(wrapped, bound, into))
    }
}

//! `awskms:///KEY`: a symmetric key of KMS wraps shares. KMS binds each to its place and says of which key it is.

use std::collections::HashMap;
use std::sync::OnceLock;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use oilskin_config::AwsKey;
use oilskin_crypto::document::Share;

use super::client::{Service, until};
use crate::keys::provider::{Answer, RootKey};
use crate::keys::{Failed, Fault};

/// A key of KMS.
pub(in crate::keys) struct Kms {
    /// As it is configured.
    key: String,
    /// Its ARN, which every name of it leads to: configured, or answered once.
    arn: OnceLock<String>,
    service: Service<Client>,
}

impl Kms {
    pub(in crate::keys) fn new(key: &AwsKey, shown: String) -> Self {
        let key = key.key.clone();
        let region = key.strip_prefix("arn:").and_then(|_| key.split(':').nth(3)).map(str::to_owned);
        let arn = OnceLock::new();
        if is_key_arn(&key) {
            // It was empty.
            let _ = arn.set(key.clone());
        }
        Self { key, arn, service: Service::new(shown, region, |config| Client::new(config)) }
    }

    /// The key for a call: never what a document says.
    fn named(&self) -> &str {
        self.arn.get().unwrap_or(&self.key)
    }

    fn learn(&self, arn: Option<&str>) -> Result<(), Failed> {
        let arn = arn.filter(|arn| is_key_arn(arn));
        let arn = arn.ok_or_else(|| self.service.failed(Fault::Unreachable, "its answer names no key"))?;
        let known = self.arn.get_or_init(|| arn.to_owned());
        match id(known) == id(arn) {
            true => Ok(()),
            false => Err(self.service.failed(Fault::Wrong, "another key answered than the one that was asked")),
        }
    }

    async fn resolve(&self) -> Result<(), Failed> {
        if self.arn.get().is_some() {
            return Ok(());
        }
        let answer = self.service.call(until(), |kms| kms.describe_key().key_id(&self.key).send()).await?;
        self.learn(answer.key_metadata().and_then(|metadata| metadata.arn()))
    }

    async fn wrap(&self, share: &[u8; 32], bound: &Share) -> Result<Vec<u8>, Failed> {
        let ask = |kms: Client| {
            let call = kms.encrypt().key_id(self.named()).plaintext(Blob::new(*share));
            call.set_encryption_context(Some(context(bound))).send()
        };
        let answer = self.service.call(until(), ask).await?;
        self.learn(answer.key_id())?;
        let wrapped = answer.ciphertext_blob.ok_or_else(|| self.nothing())?;
        Ok(wrapped.into_inner())
    }

    async fn unwrap(&self, wrapped: &[u8], bound: &Share, into: &mut [u8; 32]) -> Result<(), Failed> {
        let ask = |kms: Client| {
            let call = kms.decrypt().key_id(self.named()).ciphertext_blob(Blob::new(wrapped));
            call.set_encryption_context(Some(context(bound))).send()
        };
        let answer = self.service.call(until(), ask).await?;
        self.learn(answer.key_id())?;
        let share = answer.plaintext().ok_or_else(|| self.nothing())?.as_ref();
        if share.len() != into.len() {
            return Err(self.service.failed(Fault::Wrong, "what it wraps is no share: it has another length"));
        }
        into.copy_from_slice(share);
        Ok(())
    }

    fn nothing(&self) -> Failed {
        self.service.failed(Fault::Unreachable, "its answer is empty")
    }
}

/// The key's encryption context, which CloudTrail shows and policies may ask for: nothing secret stands in it.
fn context(bound: &Share) -> HashMap<String, String> {
    HashMap::from([
        ("oilskin:keyset".to_owned(), bound.name.clone()),
        ("oilskin:share".to_owned(), bound.x.to_string()),
        ("oilskin:k".to_owned(), bound.k.to_string()),
    ])
}

fn is_key_arn(text: &str) -> bool {
    text.starts_with("arn:") && text.split(':').nth(5).is_some_and(|resource| resource.starts_with("key/"))
}

/// What an ARN is called in documents. Keys of several regions (`mrk-`) are one key, so theirs has no region.
fn id(arn: &str) -> Vec<u8> {
    let mut parts: Vec<&str> = arn.split(':').collect();
    if let [_, _, _, region, _, resource] = parts.as_mut_slice()
        && resource.starts_with("key/mrk-")
    {
        *region = "";
    }
    parts.join(":").into_bytes()
}

impl RootKey for Kms {
    fn id(&self) -> Vec<u8> {
        self.arn.get().map(|arn| id(arn)).unwrap_or_default()
    }

    fn is_known(&self) -> bool {
        self.arn.get().is_some()
    }

    fn resolve(&self) -> Answer<'_, ()> {
        Box::pin(self.resolve())
    }

    fn wrap<'a>(&'a self, share: &'a [u8; 32], bound: &'a Share) -> Answer<'a, Vec<u8>> {
        Box::pin(self.wrap(share, bound))
    }

    fn unwrap<'a>(&'a self, wrapped: &'a [u8], bound: &'a Share, into: &'a mut [u8; 32]) -> Answer<'a, ()> {
        Box::pin(self.unwrap(wrapped, bound, into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_id_in_every_region_that_holds_it_and_keys_have_different_ones() {
        let at = |region: &str, key: &str| id(&format!("arn:aws:kms:{region}:111122223333:key/{key}"));
        assert_eq!(at("eu-west-1", "mrk-12"), at("us-east-1", "mrk-12"));
        assert_ne!(at("eu-west-1", "12"), at("us-east-1", "12"));
        assert_ne!(at("eu-west-1", "mrk-12"), at("eu-west-1", "mrk-13"));
    }

    #[test]
    fn an_alias_is_no_key_until_it_is_resolved() {
        let kms = |key: &str| Kms::new(&AwsKey { key: key.to_owned() }, String::new());
        for key in ["alias/root", "1234abcd", "arn:aws:kms:eu-west-1:111122223333:alias/root"] {
            assert!(!kms(key).is_known(), "{key}");
        }
        assert!(kms("arn:aws:kms:eu-west-1:111122223333:key/12").is_known());
    }
}

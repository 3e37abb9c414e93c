//! A document as the SealedSecret manifest that a Sealed Secrets controller opens, for Git.
//!
//! Its hybrid encryption (`docs/developer/crypto.md` of bitnami-labs/sealed-secrets): a single-use AES-256-GCM key with an all-zero nonce,
//! wrapped by RSA-OAEP (SHA-256) whose label binds it to its scope: length(2) ‖ wrapped key ‖ ciphertext ‖ tag, in base64.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64_simd::STANDARD;
use clap::{Args, ValueEnum};
use oilskin_config::{KubernetesPlace, Store};
use oilskin_crypto::document;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rsa::pkcs8::DecodePublicKey;
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::sha2::Sha256;
use rsa::{Oaep, PublicKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use super::Desk;
use crate::keys::{KeyError, SECRET_MEMBER};

/// What a manifest is made by.
#[derive(Debug, Args)]
pub(super) struct Words {
    /// Write a SealedSecret manifest that the controller of --cert opens, instead of the document.
    #[arg(long, requires = "cert")]
    sealed_secret: bool,
    /// The controller's certificate (PEM): `kubeseal --fetch-cert`.
    #[arg(long, requires = "sealed_secret")]
    cert: Option<PathBuf>,
    /// The Secret's namespace; the store's unless given.
    #[arg(long, requires = "sealed_secret")]
    namespace: Option<String>,
    /// The Secret's name; the store's unless given.
    #[arg(long, requires = "sealed_secret")]
    secret_name: Option<String>,
    /// Where the controller opens it: under that name, anywhere in the namespace, or anywhere.
    #[arg(long, value_enum, default_value_t = Scope::Strict)]
    scope: Scope,
}

/// Sealed Secrets' scopes, in its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// That name in that namespace.
    Strict,
    /// That namespace.
    NamespaceWide,
    /// The cluster.
    ClusterWide,
}

impl Words {
    pub(super) fn is_asked(&self) -> bool {
        self.sealed_secret
    }

    /// A keyset's document as it is to be printed: as it is, or as a manifest.
    ///
    /// # Errors
    /// As [`manifest`].
    pub(super) fn formed(&self, keyset: &str, desk: &Desk, document: Vec<u8>) -> Result<Vec<u8>, KeyError> {
        match &self.cert {
            Some(cert) => Ok(format!("{:#}\n", manifest(self, keyset, desk, &document, cert)?).into_bytes()),
            None => Ok(document),
        }
    }
}

/// A manifest's member that says which epoch is in it, which it keeps from everyone else.
const EPOCH: &str = "oilskin-epoch";

/// The epoch of the document in a manifest of [`manifest`]; none where it is something else.
pub(super) fn epoch(manifest: &[u8]) -> Option<u64> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    manifest.get("metadata")?.get("annotations")?.get(EPOCH)?.as_str()?.parse().ok()
}

/// The manifest, as JSON, which is YAML too.
///
/// # Errors
/// A certificate that is none, or has ended; a place that is not named; what is no document.
fn manifest(words: &Words, keyset: &str, desk: &Desk, document: &[u8], cert: &Path) -> Result<Value, KeyError> {
    let (namespace, name) = place(words, keyset, desk)?;
    let key = public_key(cert)?;
    let (label, annotation) = match words.scope {
        Scope::Strict => (format!("{namespace}/{name}"), None),
        Scope::NamespaceWide => (namespace.clone(), Some("sealedsecrets.bitnami.com/namespace-wide")),
        Scope::ClusterWide => (String::new(), Some("sealedsecrets.bitnami.com/cluster-wide")),
    };
    let encrypted = STANDARD.encode_to_string(encrypt(&key, label.into_bytes(), document)?);
    let annotations = annotation.map_or_else(|| json!({}), |annotation| json!({annotation: "true"}));
    let mut own = annotations.clone();
    if let Some(members) = own.as_object_mut() {
        members.insert(EPOCH.to_owned(), document::read(document, keyset)?.epoch.to_string().into());
    }
    let metadata = json!({"name": name, "namespace": namespace, "annotations": own});
    let labels = json!({"app.kubernetes.io/managed-by": "oilskin"});
    let template = json!({"name": name, "namespace": namespace, "annotations": annotations, "labels": labels});
    Ok(json!({
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": metadata,
        "spec": {
            "encryptedData": {SECRET_MEMBER: encrypted},
            "template": {"metadata": template, "type": "Opaque"},
        },
    }))
}

/// As said, or as the store's URI says.
fn place(words: &Words, keyset: &str, desk: &Desk) -> Result<(String, String), KeyError> {
    let (namespace, name) = match &desk.keys.store {
        Store::Kubernetes(KubernetesPlace { namespace, name }) => (Some(namespace.clone()), Some(name.of(keyset))),
        _ => (None, None),
    };
    let missing = |what| KeyError::Settings(format!("{what} is missing: the store's URI does not say it"));
    Ok((
        words.namespace.clone().or(namespace).ok_or_else(|| missing("--namespace"))?,
        words.secret_name.clone().or(name).ok_or_else(|| missing("--secret-name"))?,
    ))
}

fn public_key(path: &Path) -> Result<PublicKey, KeyError> {
    let wrong = |why: &str| KeyError::Settings(format!("{}: {why}", path.display()));
    let der = CertificateDer::from_pem_file(path)
        .map_err(|_| wrong("no certificate in it (PEM); `kubeseal --fetch-cert` prints the controller's"))?;
    let (_, certificate) = parse_x509_certificate(&der).map_err(|_| wrong("its certificate cannot be read"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if certificate.validity().not_after.timestamp() < i64::try_from(now).unwrap_or(i64::MAX) {
        return Err(wrong("its certificate has ended; `kubeseal --fetch-cert` prints the controller's newest"));
    }
    PublicKey::from_public_key_der(certificate.public_key().raw).map_err(|_| wrong("its key is not RSA"))
}

fn encrypt(key: &PublicKey, label: Vec<u8>, document: &[u8]) -> Result<Vec<u8>, KeyError> {
    let failed = || KeyError::Unsupported("the document cannot be encrypted for that key");
    let mut once = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(once.as_mut()).map_err(|_| failed())?;
    let wrapped =
        key.encrypt(&mut System, Oaep::<Sha256>::new_with_label(label), once.as_ref()).map_err(|_| failed())?;
    let mut sealed = u16::try_from(wrapped.len()).map_err(|_| failed())?.to_be_bytes().to_vec();
    sealed.extend_from_slice(&wrapped);
    let mut text = document.to_vec();
    let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, once.as_ref()).map_err(|_| failed())?);
    // The key is used this once, so its nonce may be what the controller expects: zeros.
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    aead.seal_in_place_append_tag(nonce, Aad::empty(), &mut text).map_err(|_| failed())?;
    sealed.extend_from_slice(&text);
    Ok(sealed)
}

/// The system's random bytes, as `rsa` asks for them.
struct System;

impl TryRng for System {
    type Error = ring::error::Unspecified;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        SystemRandom::new().fill(out)
    }
}

impl TryCryptoRng for System {}

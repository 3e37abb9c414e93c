//! Where root keys and keyset documents are at home, as URIs say it.

mod pkcs11;

use std::fmt;
use std::path::PathBuf;

pub use pkcs11::{Pkcs11, Pkcs11Profile};

use crate::value::Read;
use crate::vault::is_mount;

/// What stands in a store's URI for the keyset's name.
const KEYSET: &str = "{keyset}";

/// A root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// `file:PATH`.
    File(PathBuf),
    /// `pkcs11:…`, a key in a token.
    Pkcs11(Pkcs11),
    /// `awskms:///KEY`.
    AwsKms(AwsKey),
    /// `vault:MOUNT/keys/NAME`, a key of Vault's transit engine.
    Vault(VaultKey),
}

/// A key of AWS KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKey {
    /// Its ARN, its id, or `alias/NAME`.
    pub key: String,
}

/// A key of Vault's transit engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VaultKey {
    /// Where the engine is mounted.
    pub mount: String,
    /// The key's name.
    pub key: String,
}

/// A key store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// `file:DIR`; `DIR/NAME.json` is a keyset's.
    File(PathBuf),
    /// `vault:MOUNT/PATH`, a secret of a KV engine, version 2.
    Vault(VaultPlace),
    /// `awssm:NAME`, a secret of AWS Secrets Manager.
    AwsSecret(Named),
    /// `k8s:NAMESPACE/NAME`, a Kubernetes Secret.
    Kubernetes(KubernetesPlace),
}

/// A secret's name. With `{keyset}` in it there is one for every keyset, else there is one keyset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named(String);

impl Named {
    /// The name of a keyset's secret.
    pub fn of(&self, keyset: &str) -> String {
        self.0.replace(KEYSET, keyset)
    }

    /// What stands before and behind the keyset's name; none where it is one secret.
    pub fn around(&self) -> Option<(&str, &str)> {
        self.0.split_once(KEYSET)
    }
}

/// A secret of a KV engine, version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultPlace {
    /// Where the engine is mounted.
    pub mount: String,
    /// The secret's path below it.
    pub path: Named,
}

/// A Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesPlace {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: Named,
}

/// `vault:MOUNT/keys/NAME`.
impl fmt::Display for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mount, key } = self;
        write!(f, "vault:{mount}/keys/{key}")
    }
}

const ROOTS: &str = "a root key is file:PATH, pkcs11:token=…;object=…?module-path=…&pin-source=file:…, awskms:///KEY or vault:MOUNT/keys/NAME; spaces stand between several";
const STORES: &str = "a key store is file:DIR, vault:MOUNT/PATH, awssm:NAME or k8s:NAMESPACE/NAME, where {keyset} may stand for the keyset's name";

impl Root {
    /// Reads a root key's URI.
    pub(crate) fn parse(text: &str) -> Read<Self> {
        match text.split_once(':') {
            Some(("file", path)) => file(path, ROOTS).map(Self::File),
            Some(("pkcs11", rest)) => Pkcs11::parse(rest).map(Self::Pkcs11),
            Some(("awskms", rest)) => aws_key(rest).map(Self::AwsKms),
            Some(("vault", rest)) => vault_key(rest).map(Self::Vault),
            _ => Err(ROOTS.to_owned()),
        }
    }

    /// How its URI begins.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Pkcs11(_) => "pkcs11",
            Self::AwsKms(_) => "awskms",
            Self::Vault(_) => "vault",
        }
    }
}

impl Store {
    /// Reads a key store's URI.
    pub(crate) fn parse(text: &str) -> Read<Self> {
        match text.split_once(':') {
            Some(("file", path)) => file(path, STORES).map(Self::File),
            Some(("vault", rest)) => vault_place(rest).map(Self::Vault),
            Some(("awssm", rest)) => aws_secret(rest).map(Self::AwsSecret),
            Some(("k8s", rest)) => kubernetes(rest).map(Self::Kubernetes),
            _ => Err(STORES.to_owned()),
        }
    }

    /// How its URI begins.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Vault(_) => "vault",
            Self::AwsSecret(_) => "awssm",
            Self::Kubernetes(_) => "k8s",
        }
    }
}

/// As it was written; nothing secret stands in it.
impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Pkcs11(key) => key.fmt(f),
            Self::AwsKms(AwsKey { key }) => write!(f, "awskms:///{key}"),
            Self::Vault(key) => key.fmt(f),
        }
    }
}

/// As it was written; nothing secret stands in it.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Vault(VaultPlace { mount, path }) => write!(f, "vault:{mount}/{}", path.0),
            Self::AwsSecret(name) => write!(f, "awssm:{}", name.0),
            Self::Kubernetes(KubernetesPlace { namespace, name }) => write!(f, "k8s:{namespace}/{}", name.0),
        }
    }
}

fn file(path: &str, form: &str) -> Read<PathBuf> {
    if path.is_empty() || path.contains('\0') {
        return Err(form.to_owned());
    }
    if path.starts_with('~') {
        return Err("~ is the shell's, which does not read this: write the whole path".to_owned());
    }
    if ["file:", "pkcs11:", "awskms:", "vault:"].iter().any(|kind| path.contains(&format!(",{kind}"))) {
        return Err("several are separated by spaces, not by commas".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// With at most one `{keyset}`, and what `fits` asks for around it.
fn named(text: &str, fits: impl Fn(&str) -> bool) -> Option<Named> {
    let whole = text.replacen(KEYSET, "a", 1);
    (fits(&whole)).then(|| Named(text.to_owned()))
}

fn aws_key(rest: &str) -> Read<AwsKey> {
    let key = rest.strip_prefix("///").unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/:".contains(&byte);
    match !key.is_empty() && key.len() <= 2_048 && key.bytes().all(fits) {
        true => Ok(AwsKey { key: key.to_owned() }),
        false => Err("must be awskms:///ARN, awskms:///KEY-ID or awskms:///alias/NAME".to_owned()),
    }
}

pub(crate) fn vault_key(rest: &str) -> Read<VaultKey> {
    let rule = || "must be vault:MOUNT/keys/NAME, a key of a transit engine".to_owned();
    let (mount, key) = rest.trim_start_matches('/').rsplit_once("/keys/").ok_or_else(rule)?;
    match is_mount(mount) && is_mount(key) && !key.contains('/') {
        true => Ok(VaultKey { mount: mount.to_owned(), key: key.to_owned() }),
        false => Err(rule()),
    }
}

fn vault_place(rest: &str) -> Read<VaultPlace> {
    let rule = || "must be vault:MOUNT/PATH, a secret of a KV engine (version 2); vault:PATH?mount=MOUNT where the mount has slashes";
    let rest = rest.trim_start_matches('/');
    let (mount, path) = match rest.split_once("?mount=") {
        Some((path, mount)) => (mount, path),
        None => rest.split_once('/').ok_or_else(rule)?,
    };
    let path = named(path, is_mount).filter(|_| is_mount(mount)).ok_or_else(rule)?;
    Ok(VaultPlace { mount: mount.to_owned(), path })
}

fn aws_secret(name: &str) -> Read<Named> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    let fits = |name: &str| (1..=512).contains(&name.len()) && name.bytes().all(fits);
    named(name, fits).ok_or_else(|| "must be awssm:NAME, with letters, digits and /_+=.@- in it".to_owned())
}

fn kubernetes(rest: &str) -> Read<KubernetesPlace> {
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let subdomain = |name: &str| {
        let part =
            |part: &str| !part.is_empty() && part.bytes().all(label) && !part.starts_with('-') && !part.ends_with('-');
        name.len() <= 253 && name.split('.').all(part)
    };
    let place = rest.split_once('/').filter(|(namespace, _)| subdomain(namespace) && !namespace.contains('.'));
    let place = place.and_then(|(namespace, name)| named(name, subdomain).map(|name| (namespace.to_owned(), name)));
    let (namespace, name) = place.ok_or_else(|| "must be k8s:NAMESPACE/NAME, as Kubernetes names things".to_owned())?;
    Ok(KubernetesPlace { namespace, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_read_and_shown_as_they_were_written() {
        for text in [
            "file:/var/lib/oilskin/root.key",
            "awskms:///alias/root",
            "awskms:///arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "vault:transit/keys/root",
            "vault:team/transit/keys/root",
        ] {
            assert_eq!(Root::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "file:/keys",
            "vault:secret/oilskin/pii",
            "vault:secret/oilskin/{keyset}",
            "awssm:prod/oilskin",
            "k8s:crm/oilskin-{keyset}",
        ] {
            assert_eq!(Store::parse(text).unwrap().to_string(), text);
        }
        let place = Store::parse("vault:oilskin/pii?mount=team/secret").unwrap();
        assert_eq!(place.to_string(), "vault:team/secret/oilskin/pii");
        let Ok(Store::AwsSecret(name)) = Store::parse("awssm:prod/{keyset}.v1") else { panic!() };
        assert_eq!((name.of("pii").as_str(), name.around()), ("prod/pii.v1", Some(("prod/", ".v1"))));
    }

    #[test]
    fn homes_that_are_none_are_refused_without_repeating_them() {
        for text in [
            "",
            "file:",
            "file",
            "http://x",
            "awskms:alias/root",
            "awskms:///",
            "vault:transit/root",
            "vault:../keys/a",
            "vault:a/keys/b/c",
        ] {
            let error = Root::parse(text).unwrap_err();
            assert!(text.len() < 12 || !error.contains(text), "{text}: {error}");
        }
        for text in [
            "vault:secret",
            "vault:secret/../x",
            "awssm:",
            "awssm:a b",
            "k8s:a",
            "k8s:A/b",
            "k8s:a/b_c",
            "k8s:a.b/c",
            "vault:s/{keyset}/{keyset}",
        ] {
            assert!(Store::parse(text).is_err(), "{text}");
        }
    }
}

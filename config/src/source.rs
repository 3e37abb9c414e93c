//! Where certificates come from.

mod dev;
mod sds;
mod spiffe;
mod vault;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use dev::{Dev, DevName};
pub use sds::Sds;
pub use spiffe::Spiffe;
pub use vault::VaultPki;

use crate::env::Settings;
use crate::value::Read;

/// Where certificates, keys, trust bundles and revocation lists come from. Equal sources are one, and are read once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// PEM files, watched.
    Files(Files),
    /// Envoy's secret discovery service over a Unix socket.
    Sds(Sds),
    /// Certificates that Vault's or OpenBao's PKI issues.
    Vault(VaultPki),
    /// A SPIFFE Workload API over a Unix socket.
    Spiffe(Spiffe),
    /// An authority for development, made on first use.
    Dev(Dev),
}

/// PEM files; those that are there make one state together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// A chain, leaf first, and its private key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Certificates of the authorities that peers are checked against.
    pub ca: Option<PathBuf>,
    /// Revocation lists.
    pub crl: Option<PathBuf>,
}

impl Source {
    /// Whether it gives a certificate of our own.
    pub fn gives_certificate(&self) -> bool {
        match self {
            Self::Files(files) => files.certificate.is_some(),
            Self::Sds(sds) => sds.certificate.is_some(),
            Self::Spiffe(_) | Self::Dev(_) | Self::Vault(_) => true,
        }
    }

    /// Whether it gives authorities to check peers against.
    pub fn gives_trust(&self) -> bool {
        match self {
            Self::Files(files) => files.ca.is_some(),
            Self::Sds(sds) => sds.trust.is_some(),
            Self::Spiffe(spiffe) => spiffe.trust,
            Self::Dev(dev) => dev.trust,
            Self::Vault(pki) => pki.trust,
        }
    }

    /// Reads a source's words; files have settings of their own.
    pub(crate) fn parse(text: &str, vars: &Settings) -> Read<Self> {
        match text.split_once(':') {
            Some(("sds", rest)) => sds::parse(rest).map(Self::Sds),
            Some(("spiffe", rest)) => spiffe::parse(rest, vars).map(Self::Spiffe),
            Some(("vault", rest)) => vault::parse(rest).map(Self::Vault),
            Some(("dev", rest)) => dev::parse(rest).map(Self::Dev),
            _ => {
                Err("must be sds:unix:/path, spiffe:unix:/path, spiffe:, vault:MOUNT/issue/ROLE or dev:, perhaps with a ? and options"
                    .to_owned())
            }
        }
    }
}

/// What stands before the `?`, and the options behind it by name.
fn options<'t>(text: &'t str, known: &[&str]) -> Read<(&'t str, BTreeMap<&'t str, &'t str>)> {
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    let mut options = BTreeMap::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=').filter(|(name, _)| known.contains(name)) else {
            let known: Vec<String> = known.iter().map(|name| format!("{name}=")).collect();
            return Err(format!("behind the ? only {} are known", known.join(" and ")));
        };
        if options.insert(name, value).is_some() {
            return Err(format!("{name}= stands twice"));
        }
    }
    Ok((address, options))
}

/// Whether something can be named so in a query that knows no escapes.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'#' | b'?'))
}

/// `trust=` can only say that no authorities are asked for.
fn no_trust(options: &BTreeMap<&str, &str>) -> Read<bool> {
    match options.get("trust") {
        None => Ok(true),
        Some(&"") => Ok(false),
        Some(_) => {
            Err("its authorities have no names: an empty trust= asks for none, and without it they are given"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn what_is_no_source_is_refused() {
        for wrong in ["", "sds", "file:/x", "other:https://x", "SPIFFE:unix:/x"] {
            assert!(Source::parse(wrong, &Default::default()).is_err(), "{wrong}");
        }
    }
}

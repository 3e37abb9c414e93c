//! Where certificates come from.

mod vault;

use std::path::PathBuf;

pub use vault::VaultPki;

use crate::value::{self, Read};

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

/// Two secrets of a secret discovery service; at least one is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sds {
    /// The service's socket.
    pub socket: PathBuf,
    /// The name of the secret that holds a chain and its private key.
    pub certificate: Option<String>,
    /// The name of the one that holds the authorities and revocation lists.
    pub trust: Option<String>,
}

impl Source {
    /// Whether it gives a certificate of our own.
    pub fn gives_certificate(&self) -> bool {
        match self {
            Self::Files(files) => files.certificate.is_some(),
            Self::Sds(sds) => sds.certificate.is_some(),
            Self::Vault(_) => true,
        }
    }

    /// Whether it gives authorities to check peers against.
    pub fn gives_trust(&self) -> bool {
        match self {
            Self::Files(files) => files.ca.is_some(),
            Self::Sds(sds) => sds.trust.is_some(),
            Self::Vault(pki) => pki.trust,
        }
    }

    /// Reads `sds:unix:/path?certificate=NAME&trust=NAME`, `vault:MOUNT/issue/ROLE?common_name=NAME`; files have settings of their own.
    pub(crate) fn parse(text: &str) -> Read<Self> {
        match text.split_once(':') {
            Some(("sds", rest)) => sds(rest).map(Self::Sds),
            Some(("vault", rest)) => vault::parse(rest).map(Self::Vault),
            _ => Err("must be sds:unix:/path or vault:MOUNT/issue/ROLE?common_name=NAME".to_owned()),
        }
    }
}

/// istio-agent's names are what is asked for where none are given; an empty one is not asked for.
fn sds(text: &str) -> Read<Sds> {
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    let path = address.strip_prefix("unix:").ok_or("the service is reached by unix:/path alone")?;
    let (mut certificate, mut trust) = (None, None);
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let place = match part.split_once('=') {
            Some(("certificate", name)) => (&mut certificate, name),
            Some(("trust", name)) => (&mut trust, name),
            _ => return Err("behind the ? only certificate=NAME and trust=NAME are known".to_owned()),
        };
        let (place, name) = place;
        if name.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'%' | b'#' | b'?')) {
            return Err("a secret's name is visible ASCII without %, # and ?".to_owned());
        }
        if place.replace(name).is_some() {
            return Err("a secret is named twice".to_owned());
        }
    }
    let named = |name: Option<&str>, default: &str| match name.unwrap_or(default) {
        "" => None,
        name => Some(name.to_owned()),
    };
    let sds = Sds {
        socket: value::unix_path(path)?,
        certificate: named(certificate, "default"),
        trust: named(trust, "ROOTCA"),
    };
    match (&sds.certificate, &sds.trust) {
        (None, None) => Err("nothing is asked for: name a certificate, a trust, or both".to_owned()),
        _ => Ok(sds),
    }
}

#[cfg(test)]
mod tests {
    use super::{Sds, Source};

    fn read(text: &str) -> Sds {
        match Source::parse(text).unwrap() {
            Source::Sds(sds) => sds,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn istio_s_names_are_the_defaults_and_empty_ones_are_not_asked_for() {
        let sds = read("sds:unix:/run/socket");
        assert_eq!((sds.certificate.as_deref(), sds.trust.as_deref()), (Some("default"), Some("ROOTCA")));
        assert_eq!(sds.socket.to_str(), Some("/run/socket"));
        let sds = read("sds:unix:/run/socket?certificate=kubernetes://a-b&trust=");
        assert_eq!((sds.certificate.as_deref(), sds.trust.as_deref()), (Some("kubernetes://a-b"), None));
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for wrong in [
            "",
            "sds",
            "sds:/run/socket",
            "sds:unix:socket",
            "sds:unix:/s?other=x",
            "sds:unix:/s?trust",
            "sds:unix:/s?trust=a&trust=b",
            "sds:unix:/s?trust=a b",
            "sds:unix:/s?trust=%41",
            "sds:unix:/s?certificate=&trust=",
            "vault:https://x",
        ] {
            assert!(Source::parse(wrong).is_err(), "{wrong}");
        }
    }
}

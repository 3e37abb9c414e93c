//! `sds:unix:/path?certificate=NAME&trust=NAME`.

use std::path::PathBuf;

use super::{is_plain, options};
use crate::value::{self, Read};

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

/// istio-agent's names are what is asked for where none are given; an empty one is not asked for.
pub(super) fn parse(text: &str) -> Read<Sds> {
    let (address, options) = options(text, &["certificate", "trust"])?;
    let path = address.strip_prefix("unix:").ok_or("the service is reached by unix:/path alone")?;
    if !options.values().all(|name| is_plain(name)) {
        return Err("a secret's name is visible ASCII without %, # and ?".to_owned());
    }
    let named = |option: &str, default: &str| match options.get(option).copied().unwrap_or(default) {
        "" => None,
        name => Some(name.to_owned()),
    };
    let sds = Sds {
        socket: value::unix_path(path)?,
        certificate: named("certificate", "default"),
        trust: named("trust", "ROOTCA"),
    };
    match (&sds.certificate, &sds.trust) {
        (None, None) => Err("nothing is asked for: name a certificate, a trust, or both".to_owned()),
        _ => Ok(sds),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn istio_s_names_are_the_defaults_and_empty_ones_are_not_asked_for() {
        let sds = parse("unix:/run/socket").unwrap();
        assert_eq!((sds.certificate.as_deref(), sds.trust.as_deref()), (Some("default"), Some("ROOTCA")));
        assert_eq!(sds.socket.to_str(), Some("/run/socket"));
        let sds = parse("unix:/run/socket?certificate=kubernetes://a-b&trust=").unwrap();
        assert_eq!((sds.certificate.as_deref(), sds.trust.as_deref()), (Some("kubernetes://a-b"), None));
    }

    #[test]
    fn what_is_no_service_is_refused() {
        for wrong in [
            "",
            "/run/socket",
            "unix:socket",
            "unix:/s?other=x",
            "unix:/s?trust",
            "unix:/s?trust=a&trust=b",
            "unix:/s?trust=a b",
            "unix:/s?trust=%41",
            "unix:/s?certificate=&trust=",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

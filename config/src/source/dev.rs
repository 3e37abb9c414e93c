//! `dev:?dir=PATH&names=a,b&trust=`.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{no_trust, options};
use crate::tls::{is_dns_name, trust_domain};
use crate::value::Read;

/// Beside what `oilskin dev` keeps.
const DIR: &str = ".oilskin/ca";

const NAMES: &str = "localhost,127.0.0.1,::1";

/// An authority for development.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dev {
    /// Where it is kept.
    pub dir: PathBuf,
    /// The names in the certificate that it signs for us.
    pub names: Vec<DevName>,
    /// Whether peers must have a certificate of it.
    pub trust: bool,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevName {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A SPIFFE ID.
    Spiffe(String),
}

impl DevName {
    fn parse(text: &str) -> Read<Self> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        if text.starts_with("spiffe:") {
            return match trust_domain(text) {
                Some(_) => Ok(Self::Spiffe(text.to_owned())),
                None => Err("not a workload's SPIFFE ID (spiffe://domain/path)".to_owned()),
            };
        }
        match is_dns_name(text) {
            true => Ok(Self::Dns(text.to_ascii_lowercase())),
            false => Err("a name is a DNS name, an address or a SPIFFE ID; commas stand between several".to_owned()),
        }
    }
}

pub(super) fn parse(text: &str) -> Read<Dev> {
    let (address, options) = options(text, &["dir", "names", "trust"])?;
    if !address.is_empty() {
        return Err("the folder is named behind a ?: dev:?dir=PATH".to_owned());
    }
    let dir = options.get("dir").copied().unwrap_or(DIR);
    if dir.is_empty() || dir.contains('\0') {
        return Err("dir= must be a path".to_owned());
    }
    let names = options.get("names").copied().unwrap_or(NAMES);
    let names: Vec<DevName> = names.split(',').map(DevName::parse).collect::<Read<_>>()?;
    if names.iter().filter(|name| matches!(name, DevName::Spiffe(_))).count() > 1 {
        return Err("a certificate has one SPIFFE ID: of two nobody could say which is meant".to_owned());
    }
    Ok(Dev { dir: dir.into(), names, trust: no_trust(&options)? })
}

#[cfg(test)]
mod tests {
    use super::{Dev, DevName, parse};

    #[test]
    fn what_is_not_said_is_a_laptop_s() {
        let Dev { dir, names, trust } = parse("").unwrap();
        assert_eq!((dir.to_str(), names.len(), trust), (Some(".oilskin/ca"), 3, true));
        let dev = parse("?dir=/tmp/x y&names=Web.test,10.0.0.1,spiffe://dev.test/web&trust=").unwrap();
        assert_eq!((dev.dir.to_str(), dev.trust), (Some("/tmp/x y"), false));
        let names = [
            DevName::Dns("web.test".to_owned()),
            DevName::Ip([10, 0, 0, 1].into()),
            DevName::Spiffe("spiffe://dev.test/web".to_owned()),
        ];
        assert_eq!(dev.names, names);
    }

    #[test]
    fn what_no_certificate_can_carry_is_refused() {
        for wrong in [
            "/tmp/x",
            "?dir=",
            "?names=",
            "?names=a,,b",
            "?names=a b",
            "?names=ä",
            "?names=https://x",
            "?names=spiffe://dev.test",
            "?names=spiffe://dev.test/a,spiffe://dev.test/b",
            "?trust=x",
            "?days=1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

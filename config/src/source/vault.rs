//! Certificates that Vault's or OpenBao's PKI issues.

use std::fmt;
use std::time::Duration;

use super::{is_plain, no_trust, options};
use crate::value::{self, Read};
use crate::vault::is_mount;

/// A role of a PKI mount, and what is asked of it. The words are those of its API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultPki {
    /// Where the secrets engine is mounted.
    pub mount: String,
    /// The role that issues.
    pub role: String,
    /// Empty where the names below are enough for the role.
    pub common_name: String,
    /// DNS names, commas between them.
    pub alt_names: String,
    /// Addresses, commas between them.
    pub ip_sans: String,
    /// URIs, SPIFFE IDs among them, commas between them.
    pub uri_sans: String,
    /// How long it lives; none is the role's own.
    pub ttl: Option<Duration>,
    /// Whether its authorities are those that peers are checked against.
    pub trust: bool,
    /// How often the mount's revocation list is read; none is never.
    pub crl: Option<Duration>,
}

/// As it was written, its options in one order: two that differ are never shown alike.
impl fmt::Display for VaultPki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vault:{}/issue/{}", self.mount, self.role)?;
        let seconds = |time: Option<Duration>| time.map(|time| format!("{}s", time.as_secs())).unwrap_or_default();
        let options = [
            ("common_name", self.common_name.clone()),
            ("alt_names", self.alt_names.clone()),
            ("ip_sans", self.ip_sans.clone()),
            ("uri_sans", self.uri_sans.clone()),
            ("ttl", seconds(self.ttl)),
            ("crl", seconds(self.crl)),
        ];
        let mut between = '?';
        for (name, value) in options.iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, "{between}{name}={value}")?;
            between = '&';
        }
        if self.trust { Ok(()) } else { write!(f, "{between}trust=") }
    }
}

const FORM: &str = "must be vault:MOUNT/issue/ROLE?common_name=NAME, with more of alt_names=, ip_sans=, uri_sans=, ttl=24h, trust=, crl=60s";

/// What stands behind `vault:`.
pub(super) fn parse(text: &str) -> Read<VaultPki> {
    let known = ["common_name", "alt_names", "ip_sans", "uri_sans", "ttl", "trust", "crl"];
    let (path, given) = options(text, &known)?;
    let (mount, role) = path.trim_start_matches('/').rsplit_once("/issue/").ok_or(FORM)?;
    if !is_mount(mount) || !is_mount(role) || role.contains('/') {
        return Err("mount and role are letters, digits, dots, dashes and underscores".to_owned());
    }
    if !given.values().all(|given| is_plain(given)) {
        return Err("what stands behind the ? is visible ASCII without %, # and ?".to_owned());
    }
    let names = |key: &str| given.get(key).map_or_else(String::new, |names| (*names).to_owned());
    let time = |key: &str| {
        let read = given.get(key).map(|time| value::duration(time).map_err(|rule| format!("{key}: {rule}")));
        read.transpose()
    };
    let pki = VaultPki {
        mount: mount.to_owned(),
        role: role.to_owned(),
        common_name: names("common_name"),
        alt_names: names("alt_names"),
        ip_sans: names("ip_sans"),
        uri_sans: names("uri_sans"),
        ttl: time("ttl")?,
        trust: no_trust(&given)?,
        crl: time("crl")?,
    };
    if [&pki.common_name, &pki.alt_names, &pki.ip_sans, &pki.uri_sans].iter().all(|names| names.is_empty()) {
        return Err(format!("a certificate needs a name: {FORM}"));
    }
    if pki.ttl.is_some_and(|ttl| ttl < Duration::from_secs(10)) {
        return Err("ttl: at least 10s".to_owned());
    }
    if pki.crl.is_some_and(|crl| crl < Duration::from_secs(1)) {
        return Err("crl: at least 1s; it is how often the list is read".to_owned());
    }
    if pki.crl.is_some() && !pki.trust {
        return Err("crl: the list is of authorities that trust= takes away".to_owned());
    }
    Ok(pki)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn a_role_is_read_with_what_is_asked_of_it() {
        let pki = parse("infra/pki/issue/web?common_name=a.b&alt_names=a.b,*.a.b&uri_sans=spiffe://a.b/ns/x&ttl=24h")
            .unwrap();
        assert_eq!((pki.mount.as_str(), pki.role.as_str(), pki.common_name.as_str()), ("infra/pki", "web", "a.b"));
        assert_eq!((pki.alt_names.as_str(), pki.uri_sans.as_str()), ("a.b,*.a.b", "spiffe://a.b/ns/x"));
        assert_eq!((pki.ttl, pki.trust, pki.crl), (Some(Duration::from_secs(86_400)), true, None));
        let pki = parse("/pki/issue/web?ip_sans=127.0.0.1&trust=").unwrap();
        assert_eq!((pki.mount.as_str(), pki.trust, pki.ttl), ("pki", false, None));
        assert_eq!(parse("pki/issue/web?common_name=a&crl=30s").unwrap().crl, Some(Duration::from_secs(30)));
    }

    #[test]
    fn what_is_no_role_is_refused() {
        for wrong in [
            "",
            "pki",
            "pki/issue/",
            "/issue/web?common_name=a",
            "pki/sign/web?common_name=a",
            "pki/issue/web",
            "pki/issue/web?common_name=",
            "pki/issue/web?common_name=a&common_name=b",
            "pki/issue/web?common_name=a b",
            "pki/issue/web?common_name=%41",
            "pki/issue/web?common_name=a&ttl=1",
            "pki/issue/web?common_name=a&ttl=1s",
            "pki/issue/web?common_name=a&trust=other",
            "pki/issue/web?common_name=a&trust=&crl=30s",
            "pki/issue/web?common_name=a&crl=true",
            "pki/issue/web?common_name=a&crl=1ms",
            "pki/issue/web?common_name=a&other=x",
            "pki/issue/web?common_name",
            "../pki/issue/web?common_name=a",
            "pki//x/issue/web?common_name=a",
            "pki/issue/w/eb?common_name=a",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

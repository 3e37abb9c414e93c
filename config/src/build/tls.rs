//! TLS of listeners and upstreams.

use std::path::PathBuf;

use super::routes::Traffic;
use super::{Reader, join, one_of};
use crate::problem::Place;
use crate::value;
use crate::yaml::Node;
use crate::{ClientAuth, Files, ListenerTls, PeerPattern, Source, UpstreamTls};

pub(super) fn path(text: &str) -> value::Read<PathBuf> {
    match text.is_empty() || text.contains('\0') {
        true => Err("must be a path".to_owned()),
        false => Ok(text.into()),
    }
}

/// Whether the oldest version named is 1.2.
pub(super) fn tls12(text: &str) -> value::Read<bool> {
    one_of(&[("1.3", false), ("1.2", true)], text)
}

pub(super) const NOT_ON_UNIX: &str =
    "a Unix socket stays inside this machine and speaks no TLS: its peers are told by their file rights";

/// What stands in both places, however it was written.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) source: Option<Source>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) crl: Option<PathBuf>,
    pub(super) allow: Vec<PeerPattern>,
}

/// What parts lack, as a name of a part and a sentence.
type Lack = (&'static str, &'static str);

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.source.is_none() && self.has_no_files() && self.allow.is_empty()
    }

    fn has_no_files(&self) -> bool {
        self.cert.is_none() && self.key.is_none() && self.ca.is_none() && self.crl.is_none()
    }

    /// The source that is named, or the files as one.
    fn source(&mut self) -> Result<Source, Lack> {
        match self.source.take() {
            Some(_) if !self.has_no_files() => {
                Err(("source", "gives certificates, keys and authorities: no files can stand beside it"))
            }
            Some(source) => Ok(source),
            None => {
                Ok(Source::Files(Files { certificate: self.certificate()?, ca: self.ca.take(), crl: self.crl.take() }))
            }
        }
    }

    fn certificate(&mut self) -> Result<Option<(PathBuf, PathBuf)>, Lack> {
        match (self.cert.take(), self.key.take()) {
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(("key_file", "missing: a certificate needs its private key")),
            (None, Some(_)) => Err(("cert_file", "missing: a private key needs its certificate")),
        }
    }

    /// A listener's: it always has a certificate.
    pub(super) fn listener(mut self) -> Result<ListenerTls, Lack> {
        let (named, lists) = (self.source.is_some(), self.crl.is_some());
        let source = self.source()?;
        if !source.gives_certificate() {
            return Err(match named {
                true => ("source", "gives no certificate, which a listener that speaks TLS needs"),
                false => ("cert_file", "missing: a listener that speaks TLS needs a certificate"),
            });
        }
        let client_auth = if source.gives_trust() { ClientAuth::Required } else { ClientAuth::None };
        if client_auth == ClientAuth::None {
            if lists {
                return Err(("client_ca_file", "missing: revocation lists are of its authorities"));
            }
            if !self.allow.is_empty() {
                return Err(untold(named));
            }
        }
        Ok(ListenerTls {
            identities: vec![source],
            client_auth,
            allow: self.allow,
            tls12: false,
            forward_client_cert: false,
        })
    }

    /// An upstream's. A source's authorities are those of a mesh: the system's do not speak for it.
    pub(super) fn upstream(mut self) -> Result<UpstreamTls, Lack> {
        let named = self.source.is_some();
        let identity = self.source()?;
        let only_own_ca = named && identity.gives_trust();
        Ok(UpstreamTls { identity, only_own_ca, server_name: None, allow: self.allow, tls12: false })
    }
}

/// Clients are to be told apart, and nothing vouches for them.
fn untold(by_source: bool) -> Lack {
    match by_source {
        true => ("source", "gives no authorities, which vouch for clients' certificates: name a trust"),
        false => ("client_ca_file", "missing: who may connect is told by certificates, which authorities vouch for"),
    }
}

fn parts(r: &mut Reader<'_>, node: &Node, at: &str, ca: &str) -> Parts {
    let mut file = |key: &str| r.setting(node, at, key, path);
    let (cert, key, ca, crl) = (file("cert_file"), file("key_file"), file(ca), file("crl_file"));
    let vars = r.vars;
    let source = r.setting(node, at, "source", |text| Source::parse(text, vars));
    let mut allow = Vec::new();
    for item in r.list(node, at, "allow") {
        let Some(text) = r.text(item, at) else { continue };
        match PeerPattern::parse(&text) {
            Ok(pattern) => allow.push(pattern),
            Err(message) => r.problem(&item.place, &join(at, "allow"), message),
        }
    }
    Parts { source, cert, key, ca, crl, allow }
}

fn lacks(r: &mut Reader<'_>, place: &Place, at: &str, (key, message): Lack) {
    r.problem(place, &join(at, key), message);
}

pub(super) fn listener(r: &mut Reader<'_>, node: &Node, at: &str) -> Option<ListenerTls> {
    let node = node.get("tls")?;
    let at = &join(at, "tls");
    r.known_keys(node, at, "listeners[].tls");
    let parts = parts(r, node, at, "client_ca_file");
    let named = parts.source.is_some();
    let read = parts.listener();
    let words = [("required", ClientAuth::Required), ("optional", ClientAuth::Optional), ("none", ClientAuth::None)];
    let auth = r.setting(node, at, "client_auth", |text| one_of(&words, text));
    let tls12 = r.setting(node, at, "min_version", tls12);
    let forward_client_cert = r.setting(node, at, "forward_client_cert", value::boolean).unwrap_or(false);
    let mut more = Vec::new();
    for (index, item) in r.list(node, at, "more").into_iter().enumerate() {
        let at = &format!("{at}.more[{index}]");
        r.known_keys(item, at, "listeners[].tls.more[]");
        let mut parts = Parts {
            cert: r.required(item, at, "cert_file", path),
            key: r.required(item, at, "key_file", path),
            ..Parts::default()
        };
        more.extend(parts.certificate().ok().flatten());
    }
    let mut tls = match read {
        Ok(tls) => tls,
        Err(lack) => {
            lacks(r, &node.place, at, lack);
            return None;
        }
    };
    let asks = forward_client_cert || auth.is_some_and(|auth| auth != ClientAuth::None);
    if asks && tls.client_auth == ClientAuth::None {
        lacks(r, &node.place, at, untold(named));
    }
    if auth == Some(ClientAuth::None)
        && (asks || !tls.allow.is_empty() || (!named && tls.client_auth != ClientAuth::None))
    {
        lacks(r, &node.place, at, ("client_auth", "none asks no client for a certificate, and other settings here do"));
    }
    tls.client_auth = auth.unwrap_or(tls.client_auth);
    tls.tls12 = tls12.unwrap_or(false);
    tls.forward_client_cert = forward_client_cert;
    let further = more.into_iter().map(|pair| Source::Files(Files { certificate: Some(pair), ..Files::default() }));
    tls.identities.extend(further);
    Some(tls)
}

pub(super) fn upstream(r: &mut Reader<'_>, node: &Node, at: &str) -> Option<UpstreamTls> {
    let empty = Node::map(&node.place);
    let found = node.get("tls");
    let node = found.unwrap_or(&empty);
    let at = &join(at, "tls");
    if found.is_some() {
        r.known_keys(node, at, "upstreams.*.tls");
    }
    let parts = parts(r, node, at, "ca_file");
    let only_own_ca = r.setting(node, at, "roots", |text| one_of(&[("system", false), ("own", true)], text));
    let server_name = r.setting(node, at, "server_name", value::host);
    let tls12 = r.setting(node, at, "min_version", tls12).unwrap_or(false);
    let trusts = parts.ca.is_some() || parts.source.as_ref().is_some_and(Source::gives_trust);
    if only_own_ca == Some(true) && !trusts {
        lacks(r, &node.place, at, ("ca_file", "missing: with roots: own nothing else vouches for the upstream"));
    }
    match parts.upstream() {
        Ok(tls) => Some(UpstreamTls { only_own_ca: only_own_ca.unwrap_or(tls.only_own_ca), server_name, tls12, ..tls }),
        Err(lack) => {
            lacks(r, &node.place, at, lack);
            None
        }
    }
}

/// Whether a certificate comes from an authority for development.
pub(super) fn are_for_development(traffic: &Traffic) -> bool {
    let listeners = traffic.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let upstreams = traffic.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
    let sources = listeners.flat_map(|tls| &tls.identities).chain(upstreams.map(|tls| &tls.identity));
    sources.into_iter().any(|source| matches!(source, Source::Dev(_)))
}

#[cfg(test)]
mod tests {
    use super::Parts;
    use crate::{ClientAuth, Files, PeerPattern, Source};

    fn of(source: &str) -> Parts {
        Parts { source: Some(Source::parse(source, &Default::default()).unwrap()), ..Parts::default() }
    }

    #[test]
    fn a_source_with_authorities_asks_clients_for_certificates_and_stands_for_the_system_s() {
        assert_eq!(of("sds:unix:/s").listener().unwrap().client_auth, ClientAuth::Required);
        assert!(of("sds:unix:/s").upstream().unwrap().only_own_ca);
        assert_eq!(of("sds:unix:/s?trust=").listener().unwrap().client_auth, ClientAuth::None);
        assert!(!of("sds:unix:/s?trust=").upstream().unwrap().only_own_ca);
        let files = Parts { ca: Some("/ca".into()), ..Parts::default() }.upstream().unwrap();
        assert!(!files.only_own_ca && matches!(files.identity, Source::Files(Files { ca: Some(_), .. })));
    }

    #[test]
    fn files_beside_a_source_and_sources_that_lack_something_are_told() {
        let beside = Parts { cert: Some("/c".into()), ..of("sds:unix:/s") };
        assert_eq!(beside.listener().unwrap_err().0, "source");
        let beside = Parts { crl: Some("/c".into()), ..of("sds:unix:/s") };
        assert_eq!(beside.upstream().unwrap_err().0, "source");
        assert_eq!(of("sds:unix:/s?certificate=").listener().unwrap_err().0, "source");
        let allow = vec![PeerPattern::parse("dns:a").unwrap()];
        let untold = Parts { allow, ..of("sds:unix:/s?trust=") };
        assert_eq!(untold.listener().unwrap_err().0, "source");
    }
}

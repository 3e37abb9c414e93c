//! TLS of listeners and upstreams.

use std::path::PathBuf;

use super::{Reader, join, one_of};
use crate::problem::Place;
use crate::value;
use crate::yaml::Node;
use crate::{ClientAuth, Files, ListenerTls, PeerPattern, Source, UpstreamTls};

fn path(text: &str) -> value::Read<PathBuf> {
    match text.is_empty() || text.contains('\0') {
        true => Err("must be a path".to_owned()),
        false => Ok(text.into()),
    }
}

pub(super) const NOT_ON_UNIX: &str =
    "a Unix socket stays inside this machine and speaks no TLS: its peers are told by their file rights";

/// What stands in both places, however it was written.
#[derive(Default)]
pub(super) struct Parts {
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
        self.cert.is_none() && self.key.is_none() && self.ca.is_none() && self.crl.is_none() && self.allow.is_empty()
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
        let certificate = self.certificate()?;
        if certificate.is_none() {
            return Err(("cert_file", "missing: a listener that speaks TLS needs a certificate"));
        }
        let client_auth = match (&self.ca, &self.crl) {
            (Some(_), _) => ClientAuth::Required,
            (None, Some(_)) => return Err(("client_ca_file", "missing: revocation lists are of its authorities")),
            (None, None) if !self.allow.is_empty() => {
                return Err((
                    "client_ca_file",
                    "missing: who may connect is told by certificates, which authorities vouch for",
                ));
            }
            (None, None) => ClientAuth::None,
        };
        Ok(ListenerTls {
            identities: vec![Source::Files(Files { certificate, ca: self.ca, crl: self.crl })],
            client_auth,
            allow: self.allow,
            tls12: false,
            forward_client_cert: false,
        })
    }

    /// An upstream's.
    pub(super) fn upstream(mut self) -> Result<UpstreamTls, Lack> {
        let certificate = self.certificate()?;
        Ok(UpstreamTls {
            identity: Source::Files(Files { certificate, ca: self.ca, crl: self.crl }),
            only_own_ca: false,
            server_name: None,
            allow: self.allow,
        })
    }
}

fn parts(r: &mut Reader<'_>, node: &Node, at: &str, ca: &str) -> Parts {
    let mut file = |key: &str| r.setting(node, at, key, path);
    let (cert, key, ca, crl) = (file("cert_file"), file("key_file"), file(ca), file("crl_file"));
    let mut allow = Vec::new();
    for item in r.list(node, at, "allow") {
        let Some(text) = r.text(item, at) else { continue };
        match PeerPattern::parse(&text) {
            Ok(pattern) => allow.push(pattern),
            Err(message) => r.problem(&item.place, &join(at, "allow"), message),
        }
    }
    Parts { cert, key, ca, crl, allow }
}

fn lacks(r: &mut Reader<'_>, place: &Place, at: &str, (key, message): Lack) {
    r.problem(place, &join(at, key), message);
}

pub(super) fn listener(r: &mut Reader<'_>, node: &Node, at: &str) -> Option<ListenerTls> {
    let node = node.get("tls")?;
    let at = &join(at, "tls");
    r.known_keys(node, at, "listeners[].tls");
    let read = parts(r, node, at, "client_ca_file").listener();
    let auth = r.setting(node, at, "client_auth", |text| {
        one_of(&[("required", ClientAuth::Required), ("optional", ClientAuth::Optional)], text)
    });
    let tls12 = r.setting(node, at, "min_version", |text| one_of(&[("1.3", false), ("1.2", true)], text));
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
    if (auth.is_some() || forward_client_cert) && tls.client_auth == ClientAuth::None {
        lacks(r, &node.place, at, ("client_ca_file", "missing: authorities vouch for clients' certificates"));
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
    if only_own_ca == Some(true) && parts.ca.is_none() {
        lacks(r, &node.place, at, ("ca_file", "missing: with roots: own nothing else vouches for the upstream"));
    }
    match parts.upstream() {
        Ok(tls) => Some(UpstreamTls { only_own_ca: only_own_ca.unwrap_or(false), server_name, ..tls }),
        Err(lack) => {
            lacks(r, &node.place, at, lack);
            None
        }
    }
}

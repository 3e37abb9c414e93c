//! rustls' configurations, made whole from materials. A change makes a new one, with storage and ticket keys of its own: no session
//! of before is resumed under it.

use std::sync::Arc;
use std::time::SystemTime;

use oilskin_config::{ClientAuth, ListenerTls, Protocol, UpstreamTls};
use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, ConnectionCommon, Error, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use webpki::EndEntityCert;

use super::material::{Material, Refused};
use super::peers::Peers;

/// Sessions towards one upstream that can be resumed.
const SESSIONS: usize = 64;

/// Flights of a handshake with ourselves; three are enough.
const FLIGHTS: usize = 8;

/// What a listener serves with.
pub(crate) struct Served {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) peers: Option<Arc<Peers>>,
    /// Our first certificate.
    pub(crate) own: Option<CertificateDer<'static>>,
}

impl Served {
    /// Whether a client that came with this chain would be let in now.
    pub(super) fn takes(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.still_takes(chain, now))
    }
}

fn versions(tls12: bool) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    if tls12 { &BOTH } else { &BOTH[..1] }
}

fn unusable(error: &Error) -> Refused {
    Refused::new("configuration", format!("TLS cannot be set up: {error}"))
}

/// What an upstream is spoken to with.
pub(crate) struct Spoken {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) peers: Arc<Peers>,
}

/// A listener's, tried in memory. `judge` is the one of before, if authorities and lists are still the same.
///
/// # Errors
/// Why its materials cannot serve.
pub(crate) fn server(
    settings: &ListenerTls,
    materials: &[Arc<Material>],
    provider: &Arc<CryptoProvider>,
    judge: Option<Arc<Peers>>,
) -> Result<Served, Refused> {
    let keys: Vec<Arc<CertifiedKey>> = materials
        .iter()
        .filter_map(|material| material.certificate.as_ref())
        .map(|certificate| Arc::clone(&certificate.key))
        .collect();
    if keys.is_empty() {
        return Err(Refused::new("certificate", "there is no certificate to serve with"));
    }
    if materials.iter().filter_map(|material| material.certificate.as_ref()).any(|one| !one.facts.serves) {
        let text = "the certificate is not for servers: its extended key usage lacks serverAuth";
        return Err(Refused::new("purpose", text));
    }
    let judge = match (settings.client_auth, materials.first()) {
        (ClientAuth::None, _) | (_, None) => None,
        // Without authorities no client would be asked for a certificate at all.
        (_, Some(first)) if first.trust.is_none() => {
            return Err(Refused::new("authority", "there are no authorities to check clients' certificates against"));
        }
        (_, Some(_)) if judge.is_some() => judge,
        (auth, Some(first)) => {
            let optional = auth == ClientAuth::Optional;
            Some(Arc::new(Peers::new(provider, first, &[], &settings.allow, optional)?))
        }
    };
    let resolver = Arc::new(ByName(keys.clone()));
    let config = |judge: Option<Arc<Peers>>| -> Result<ServerConfig, Refused> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions(settings.tls12))
            .map_err(|error| unusable(&error))?;
        let builder = match judge {
            Some(judge) => builder.with_client_cert_verifier(judge),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // All of 1.3's ciphers are equals, and a client knows which of them its processor is good at; in 1.2 clients may prefer weak ones.
        config.ignore_client_order = settings.tls12;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| unusable(&error))?;
        // Each resumed session gets a new one.
        config.send_tls13_tickets = 1;
        Ok(config)
    };
    // We may hold no certificate that our own judge would take, so the trial asks for none.
    let trial = Arc::new(config(None)?);
    for key in &keys {
        try_server(&trial, key, &keys, provider)?;
    }
    let own = keys.first().and_then(|key| key.cert.first().cloned());
    Ok(Served { config: Arc::new(config(judge.clone())?), peers: judge, own })
}

/// An upstream's, its own certificate tried in memory.
///
/// # Errors
/// Why its material cannot be used.
pub(crate) fn client(
    settings: &UpstreamTls,
    protocol: Protocol,
    material: &Material,
    native: &[TrustAnchor<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Spoken, Refused> {
    let peers = Arc::new(Peers::new(provider, material, native, &settings.allow, false)?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions(settings.tls12))
        .map_err(|error| unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&peers) as Arc<dyn ServerCertVerifier>);
    let mut config = match &material.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) if !certificate.facts.connects => {
            let text = "the certificate is not for clients: its extended key usage lacks clientAuth";
            return Err(Refused::new("purpose", text));
        }
        Some(certificate) => {
            let own = SingleCertAndKey::from(Arc::clone(&certificate.key));
            let mut trial = ServerConfig::builder_with_provider(Arc::clone(provider))
                .with_protocol_versions(versions(true))
                .map_err(|error| unusable(&error))?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&certificate.key))));
            trial.session_storage = Arc::new(NoServerSessionStorage {});
            try_server(&Arc::new(trial), &certificate.key, std::slice::from_ref(&certificate.key), provider)?;
            builder.with_client_cert_resolver(Arc::new(own))
        }
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.alpn_protocols = match protocol {
        Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::H1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 => vec![b"h2".to_vec()],
    };
    Ok(Spoken { config: Arc::new(config), peers })
}

/// Chooses by the name that the client asks for; the first serves who asks for none or for another.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first()?;
        if self.0.len() == 1 {
            return Some(Arc::clone(first));
        }
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let carries = |key: &&Arc<CertifiedKey>| {
            let (Some(asked), Some(leaf)) = (&asked, key.cert.first()) else { return false };
            EndEntityCert::try_from(leaf).is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(asked).is_ok())
        };
        Some(Arc::clone(self.0.iter().find(carries).unwrap_or(first)))
    }
}

/// Shakes hands with ourselves as one who asks for `key`: the key signs, the chain can be sent, both sides come to one secret.
fn try_server(
    config: &Arc<ServerConfig>,
    key: &CertifiedKey,
    all: &[Arc<CertifiedKey>],
    provider: &Arc<CryptoProvider>,
) -> Result<(), Refused> {
    let failed = |error: Error| Refused::new("handshake", format!("a handshake with itself failed: {error}"));
    let leaves = all.iter().filter_map(|key| key.cert.first().cloned()).collect();
    let judge = Ours { leaves, provider: Arc::clone(provider) };
    let mut client = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions(true))
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge))
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    let name = asked_for(key);
    let mut client = ClientConnection::new(Arc::new(client), name).map_err(failed)?;
    let mut server = ServerConnection::new(Arc::clone(config)).map_err(failed)?;
    for _ in 0..FLIGHTS {
        carry(&mut client, &mut server).map_err(failed)?;
        carry(&mut server, &mut client).map_err(failed)?;
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err(failed(Error::General("it did not end".to_owned())))
}

/// Brings everything that one side has to say to the other.
fn carry<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), Error> {
    // Memory neither runs full nor ends early.
    let no_room = |_| Error::General("no room".to_owned());
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).map_err(no_room)?;
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).map_err(no_room)?;
        to.process_new_packets()?;
    }
    Ok(())
}

/// A name by which the resolver finds this certificate, so that each is tried.
fn asked_for(key: &CertifiedKey) -> ServerName<'static> {
    let own = key.cert.first().and_then(|leaf| {
        let leaf = EndEntityCert::try_from(leaf).ok()?;
        let name = leaf.valid_dns_names().next()?.replacen('*', "x", 1);
        ServerName::try_from(name).ok()
    });
    own.unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()))
}

/// Takes our own certificates.
#[derive(Debug)]
struct Ours {
    leaves: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Ours {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.leaves.iter().any(|own| own == leaf) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    signatures_by_provider!();
}

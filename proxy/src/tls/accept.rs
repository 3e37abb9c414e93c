//! Handshakes: with whoever connects to us, and what is remembered of peers on both sides.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::{
    AlertDescription, CertificateError, ClientConnection, CommonState, Error, HandshakeKind, OtherError,
    PeerIncompatible, ProtocolVersion,
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::configs::Spoken;
use super::forwarded;
use super::identities::{Client, Generation, Server};
use super::material::{WeakKey, not_after};
use super::peers::Peers;
use super::wide::Wide;
use crate::telemetry::Handshake;

/// What is remembered of a peer that was let in or spoken to, so that it can be asked again.
pub(crate) struct Secured {
    by: By,
    generation: Cell<u64>,
    /// The judge that has let it in.
    judge: Cell<Option<u64>>,
    chain: Vec<CertificateDer<'static>>,
    /// What the app is told of it.
    forwarded: Option<HeaderValue>,
    /// When the next certificate of its chain ends.
    expires: Cell<Option<SystemTime>>,
    /// When our certificate was first seen changed since.
    aged: Cell<Option<Instant>>,
}

/// By whose rules a peer was taken.
enum By {
    Listener(Arc<Server>),
    Upstream(Arc<Client>),
}

impl By {
    /// The number of the state in force now, and its judge.
    fn now(&self) -> Option<(u64, Option<Arc<Peers>>)> {
        match self {
            Self::Listener(server) => server.now().map(|now| (now.number, now.state.peers.clone())),
            Self::Upstream(client) => client.now().map(|now| (now.number, Some(Arc::clone(&now.state.peers)))),
        }
    }

    fn takes(&self, peers: &Peers, chain: &[CertificateDer<'static>]) -> bool {
        match self {
            Self::Listener(_) => peers.still_takes(chain, SystemTime::now()),
            Self::Upstream(client) => peers.still_trusts(chain, &client.name, SystemTime::now()),
        }
    }
}

/// Whom judges have taken or refused in one sweep: a client opens many connections with one certificate.
#[derive(Default)]
pub(crate) struct Judged<'c>(HashMap<(u64, &'c [CertificateDer<'static>]), bool>);

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stays,
    /// It finishes what is in work.
    Ages,
    /// It would not be let in any more.
    Out,
}

impl Secured {
    fn new(by: By, generation: u64, judge: Option<u64>, connection: &CommonState) -> Self {
        let chain: Vec<_> = connection.peer_certificates().unwrap_or_default().to_vec();
        Self {
            by,
            generation: Cell::new(generation),
            judge: Cell::new(judge),
            expires: Cell::new(ends(&chain)),
            chain,
            forwarded: None,
            aged: Cell::new(None),
        }
    }

    /// An upstream that was spoken to under this state.
    pub(crate) fn upstream(client: &Arc<Client>, state: &Generation<Spoken>, connection: &ClientConnection) -> Self {
        Self::new(By::Upstream(Arc::clone(client)), state.number, Some(state.state.peers.number), connection)
    }

    /// Which side it is on, for the log.
    pub(crate) fn side(&self) -> &'static str {
        match self.by {
            By::Listener(_) => "app",
            By::Upstream(_) => "upstream",
        }
    }

    /// What the app is told of it, where that is asked for and it came with a certificate.
    pub(crate) fn forwarded(&self) -> Option<&HeaderValue> {
        self.forwarded.as_ref()
    }

    /// Judges anew where something has changed.
    pub(crate) fn judge<'c>(&'c self, now: Instant, age: Duration, judged: &mut Judged<'c>) -> Verdict {
        let over = self.expires.get().is_some_and(|end| SystemTime::now() >= end);
        if let Some((number, peers)) = self.by.now()
            && (over || number != self.generation.get())
        {
            let judge = peers.as_ref().map(|peers| peers.number);
            let known = self.judge.replace(judge) == judge && !over;
            let takes = |peers: &Arc<Peers>| {
                known
                    || *judged.0.entry((peers.number, &self.chain)).or_insert_with(|| self.by.takes(peers, &self.chain))
            };
            if !peers.as_ref().is_none_or(takes) {
                return Verdict::Out;
            }
            if self.generation.replace(number) != number {
                self.aged.set(self.aged.get().or(Some(now)));
            }
            self.expires.set(ends(&self.chain));
        }
        match self.aged.get() {
            Some(since) if now.duration_since(since) >= age => Verdict::Ages,
            _ => Verdict::Stays,
        }
    }
}

/// Shakes hands.
///
/// # Errors
/// How it failed, for the metric.
pub(crate) async fn accept(
    server: &Arc<Server>,
    tcp: TcpStream,
    deadline: Duration,
) -> Result<(Box<TlsStream<Wide>>, Secured, Handshake), Handshake> {
    let failed = |outcome| Handshake { outcome, ..Handshake::default() };
    let Some(current) = server.now() else { return Err(failed("not_ready")) };
    let acceptor = TlsAcceptor::from(Arc::clone(&current.state.config));
    let stream = match tokio::time::timeout(deadline, acceptor.accept(Wide::new(tcp))).await {
        Err(_) => return Err(failed("timeout")),
        Ok(Err(error)) => return Err(failed(reason(&error))),
        Ok(Ok(stream)) => stream,
    };
    let (_, connection) = stream.get_ref();
    let done = settled(connection);
    if has_ended(connection)
        && !current.state.takes(connection.peer_certificates().unwrap_or_default(), SystemTime::now())
    {
        return Err(Handshake { outcome: "expired", ..done });
    }
    let judge = current.state.peers.as_ref().map(|peers| peers.number);
    let mut secured = Secured::new(By::Listener(Arc::clone(server)), current.number, judge, connection);
    secured.forwarded = match secured.chain.first() {
        Some(leaf) if server.forwards() => forwarded::value(leaf, current.state.own.as_ref()),
        _ => None,
    };
    Ok((Box::new(stream), secured, done))
}

impl Client {
    /// Shakes hands with whom it is for. Returns the state that this was done under, too.
    ///
    /// # Errors
    /// What the TLS library or the system says; `NotConnected` where there are no certificates or authorities yet.
    pub(crate) async fn shake_hands(
        &self,
        tcp: TcpStream,
    ) -> io::Result<(client::TlsStream<Wide>, Arc<Generation<Spoken>>)> {
        let Some(current) = self.now() else {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "no certificates or authorities are there yet"));
        };
        let connector = TlsConnector::from(Arc::clone(&current.state.config));
        let stream = connector.connect(self.name.clone(), Wide::new(tcp)).await?;
        let connection = stream.get_ref().1;
        let chain = connection.peer_certificates().unwrap_or_default();
        if has_ended(connection) && !current.state.peers.still_trusts(chain, &self.name, SystemTime::now()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Error::from(CertificateError::Expired)));
        }
        Ok((stream, current))
    }
}

/// Whether a certificate of the other side has ended, so that its judge is to be asked again: a resumed session brings the chain of its
/// first handshake, which nobody has looked at since. It need not matter: some send old certificates that nothing leads through.
fn has_ended(connection: &CommonState) -> bool {
    let now = SystemTime::now();
    connection.peer_certificates().unwrap_or_default().iter().filter_map(not_after).any(|end| now >= end)
}

/// When the next certificate of a chain has ended: the second that stands in it is still its own, for our judge, too.
fn ends(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let now = SystemTime::now();
    chain.iter().filter_map(not_after).map(|last| last + Duration::from_secs(1)).filter(|end| *end > now).min()
}

/// How a handshake ended that succeeded.
pub(crate) fn settled(connection: &CommonState) -> Handshake {
    Handshake {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "",
        },
        group: connection
            .negotiated_key_exchange_group()
            .map(|group| format!("{:?}", group.name()))
            .unwrap_or_default(),
        outcome: match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => "resumed",
            _ => "full",
        },
    }
}

/// Why one failed, in a word that a metric can carry.
pub(crate) fn reason(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(wrong)) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "early",
            CertificateError::Revoked => "revoked",
            CertificateError::UnknownIssuer => "unknown_authority",
            // It does not hold the certificate's key.
            CertificateError::BadSignature => "bad_signature",
            CertificateError::Other(OtherError(cause)) if cause.is::<WeakKey>() => "weak_key",
            CertificateError::UnknownRevocationStatus => "revocation_unknown",
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
                "revocation_list_expired"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "name",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "purpose",
            CertificateError::ApplicationVerificationFailure => "not_allowed",
            _ => "certificate",
        },
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ),
        ) => "tls_version",
        Some(Error::AlertReceived(_)) => "refused_by_peer",
        Some(Error::PeerIncompatible(_)) => "incompatible",
        Some(_) => "protocol",
        None if error.kind() == io::ErrorKind::TimedOut => "timeout",
        None => "closed",
    }
}

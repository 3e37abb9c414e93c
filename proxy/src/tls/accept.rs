//! Handshakes: with whoever connects to us, and what is remembered of them.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, CommonState, Error, HandshakeKind, ProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::forwarded;
use super::identities::Server;
use super::material::not_after;
use super::wide::Wide;
use crate::telemetry::Handshake;

/// What is remembered of a peer that was let in, so that it can be asked again.
pub(crate) struct Secured {
    server: Arc<Server>,
    generation: Cell<u64>,
    /// The judge that has let it in.
    judge: Cell<Option<u64>>,
    chain: Vec<CertificateDer<'static>>,
    /// What the app is told of it.
    forwarded: Option<HeaderValue>,
    /// When the first certificate of its chain ends.
    expires: Option<SystemTime>,
    /// When our certificate was first seen changed since.
    aged: Cell<Option<Instant>>,
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
    /// What the app is told of it, where that is asked for and it came with a certificate.
    pub(crate) fn forwarded(&self) -> Option<&HeaderValue> {
        self.forwarded.as_ref()
    }

    /// Judges anew where something has changed.
    pub(crate) fn judge<'c>(&'c self, now: Instant, age: Duration, judged: &mut Judged<'c>) -> Verdict {
        if self.expires.is_some_and(|end| SystemTime::now() >= end) {
            return Verdict::Out;
        }
        if let Some(current) = self.server.now()
            && current.number != self.generation.get()
        {
            self.generation.set(current.number);
            if let Some(peers) = &current.state.peers
                && self.judge.replace(Some(peers.number)) != Some(peers.number)
                && !*judged
                    .0
                    .entry((peers.number, &self.chain))
                    .or_insert_with(|| peers.still_takes(&self.chain, SystemTime::now()))
            {
                return Verdict::Out;
            }
            self.aged.set(self.aged.get().or(Some(now)));
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
    if has_expired(connection) {
        return Err(Handshake { outcome: "expired", ..done });
    }
    let chain: Vec<_> = connection.peer_certificates().unwrap_or_default().to_vec();
    let expires = ends(&chain);
    let forwarded = match chain.first() {
        Some(leaf) if server.forwards() => forwarded::value(leaf, current.state.own.as_ref()),
        _ => None,
    };
    let secured = Secured {
        forwarded,
        server: Arc::clone(server),
        generation: Cell::new(current.number),
        judge: Cell::new(current.state.peers.as_ref().map(|peers| peers.number)),
        chain,
        expires,
        aged: Cell::new(None),
    };
    Ok((Box::new(stream), secured, done))
}

/// Whether a certificate of the other side has ended. A resumed session brings the chain of its first handshake, which nobody has
/// looked at since.
pub(crate) fn has_expired(connection: &CommonState) -> bool {
    let chain = connection.peer_certificates().unwrap_or_default();
    ends(chain).is_some_and(|end| SystemTime::now() >= end)
}

/// When the first certificate of a chain ends.
fn ends(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    chain.iter().filter_map(not_after).min()
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
            // An issuer of that name, but not the one who signed.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_authority",
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
        Some(Error::AlertReceived(_)) => "refused_by_peer",
        Some(Error::PeerIncompatible(_)) => "incompatible",
        Some(_) => "protocol",
        None if error.kind() == io::ErrorKind::TimedOut => "timeout",
        None => "closed",
    }
}

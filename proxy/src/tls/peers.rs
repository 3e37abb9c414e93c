//! Who the other side is: the chain to an authority, revocation, and the names that are meant.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oilskin_config::{PeerPattern, trust_domain};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptionsBuilder,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::material::{MAX_CHAIN, Material, Refused, Trust, or_weak};

/// Names each judge.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Judges peers' certificates. One is made for each state of authorities and lists, and never changes.
pub(crate) struct Peers {
    /// Whom one judge has let in, the same one need not be asked about again.
    pub(super) number: u64,
    provider: Arc<CryptoProvider>,
    trust: Trust,
    /// Of whom `trust` by domain does not speak, since they have no SPIFFE ID.
    others: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    allow: Vec<PeerPattern>,
    /// Clients may come without a certificate.
    optional: bool,
    /// What clients are told that we know.
    hints: Vec<DistinguishedName>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("hints", &self.hints.len()).field("allow", &self.allow).finish()
    }
}

impl Peers {
    /// A judge by the authorities and lists of `material`, and `more` authorities.
    ///
    /// # Errors
    /// `crl`: a revocation list that cannot be read.
    pub(crate) fn new(
        provider: &Arc<CryptoProvider>,
        material: &Material,
        more: &[TrustAnchor<'static>],
        allow: &[PeerPattern],
        optional: bool,
    ) -> Result<Self, Refused> {
        let (trust, others) = match &material.trust {
            Some(Trust::ByDomain(domains)) => (Trust::ByDomain(domains.clone()), more.to_vec()),
            Some(Trust::Any(own)) => (Trust::Any([own, more].concat()), Vec::new()),
            None => (Trust::Any(more.to_vec()), Vec::new()),
        };
        // Of an issuer's lists that speak of a certificate webpki takes the first.
        let mut lists: Vec<_> = material.crls.iter().collect();
        lists.sort_by_key(|list| std::cmp::Reverse(updated(list)));
        let crls = lists
            .into_iter()
            .map(|list| {
                BorrowedCertRevocationList::from_der(list.as_ref())
                    .and_then(|list| list.to_owned())
                    .map(|list: OwnedCertRevocationList| CertRevocationList::from(list))
                    .map_err(|error| Refused::new("crl", format!("a revocation list cannot be used: {error}")))
            })
            .collect::<Result<_, _>>()?;
        let own: Vec<&TrustAnchor<'_>> = match &trust {
            Trust::Any(anchors) => anchors.iter().collect(),
            Trust::ByDomain(domains) => domains.values().flatten().collect(),
        };
        let hints = own.into_iter().map(|anchor| DistinguishedName::in_sequence(anchor.subject.as_ref())).collect();
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { number, provider: Arc::clone(provider), trust, others, crls, allow: allow.to_vec(), optional, hints })
    }

    /// The authorities that may vouch for this certificate (SPIFFE Trust Domain and Bundle: those of its own trust domain alone).
    fn anchors(&self, certificate: &EndEntityCert<'_>) -> &[TrustAnchor<'static>] {
        let domains = match &self.trust {
            Trust::Any(anchors) => return anchors,
            Trust::ByDomain(domains) => domains,
        };
        let mut uris = certificate.valid_uri_names();
        match (uris.next(), uris.next()) {
            (None, _) => &self.others,
            (Some(uri), None) => trust_domain(uri).and_then(|domain| domains.get(domain)).map_or(&[], Vec::as_slice),
            // Of two nobody can say which is meant.
            (Some(_), Some(_)) => &[],
        }
    }

    /// Whether the chain leads to an authority, now, is not revoked, and carries a name that is allowed.
    ///
    /// # Errors
    /// What is wrong, as an alert can say it.
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
        name: Option<&ServerName<'_>>,
    ) -> Result<(), Error> {
        // Each path is a signature to check; webpki has a budget of its own, which this keeps far from.
        if rest.len() >= MAX_CHAIN {
            return Err(CertificateError::BadEncoding.into());
        }
        let certificate = EndEntityCert::try_from(leaf).map_err(told)?;
        let lists: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // A certificate that no list speaks of is refused, and so is one whose list has expired.
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce).build());
        let algorithms = self.provider.signature_verification_algorithms.all;
        let anchors = self.anchors(&certificate);
        certificate
            .verify_for_usage(algorithms, anchors, rest, now, usage, revocation, None)
            .map_err(|error| or_weak(told(error), std::iter::once(leaf).chain(rest)))?;
        if std::iter::once(leaf).chain(rest).any(|one| self.is_listed(one)) {
            return Err(CertificateError::Revoked.into());
        }
        if self.allow.is_empty() {
            return match name {
                Some(name) => certificate.verify_is_valid_for_subject_name(name).map_err(told),
                None => Ok(()),
            };
        }
        // SPIFFE's X.509-SVID has exactly one URI (section 2 of that document): of two nobody can say which is meant.
        let uris: Vec<&str> = certificate.valid_uri_names().collect();
        let by_uri = match uris.as_slice() {
            [uri] => self.allow.iter().any(|pattern| pattern.is_uri(uri)),
            _ => false,
        };
        let by_dns = || certificate.valid_dns_names().any(|dns| self.allow.iter().any(|pattern| pattern.is_dns(dns)));
        match by_uri || by_dns() {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    /// Whether any list of its issuer has a certificate: its lists may each be a part of the whole.
    fn is_listed(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
        let mut lists = self.crls.iter().filter(|list| list.issuer() == certificate.issuer());
        lists.any(|list| !matches!(list.find_serial(certificate.serial()), Ok(None)))
    }

    /// Whether a client that was let in once would be let in now.
    pub(crate) fn still_takes(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
        match chain.split_first() {
            None => self.optional,
            Some((leaf, rest)) => self.check(leaf, rest, unix(now), KeyUsage::client_auth(), None).is_ok(),
        }
    }

    /// Whether an upstream that was trusted once would be trusted now.
    pub(crate) fn still_trusts(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>, now: SystemTime) -> bool {
        let Some((leaf, rest)) = chain.split_first() else { return false };
        self.check(leaf, rest, unix(now), KeyUsage::server_auth(), Some(name)).is_ok()
    }
}

/// When a list was issued; none where it cannot be read, which webpki says better.
fn updated(list: &CertificateRevocationListDer<'_>) -> Option<i64> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    Some(list.last_update().timestamp())
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

/// webpki's words in rustls' ones, which become alerts.
fn told(error: webpki::Error) -> Error {
    use webpki::Error as E;
    let told = match error {
        E::CertExpired { .. } | E::InvalidCertValidity => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::CertRevoked => CertificateError::Revoked,
        // An issuer of that name, but not the one who signed.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        // A list under the issuer's name that the issuer has not signed says nothing of its certificates.
        E::UnknownRevocationStatus | E::InvalidCrlSignatureForPublicKey | E::IssuerNotCrlSigner => {
            CertificateError::UnknownRevocationStatus
        }
        E::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        E::CertNotValidForName(_) => CertificateError::NotValidForName,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        _ => CertificateError::BadEncoding,
    };
    told.into()
}

impl ClientCertVerifier for Peers {
    fn offer_client_auth(&self) -> bool {
        // Even where there is no authority left: else everyone would come in without being asked.
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, rest, now, KeyUsage::client_auth(), None).map(|()| ClientCertVerified::assertion())
    }

    signatures_by_provider!();
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, rest, now, KeyUsage::server_auth(), Some(name)).map(|()| ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}

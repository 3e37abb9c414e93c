//! What a source gives: a chain with its key, authorities, revocation lists. Checked as far as it can be by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, OtherError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{CertificateRevocationList, FromDer, GeneralName, ParsedExtension, X509Certificate};
use x509_parser::public_key::PublicKey;

/// Longest chain we send or take, in certificates.
pub(crate) const MAX_CHAIN: usize = 10;

/// Largest file read, in bytes: a revocation list of 100,000 entries has about 4 MB.
pub(crate) const MAX_FILE: u64 = 16 << 20;

/// One whole state of a source.
#[derive(Clone, Default)]
pub(crate) struct Material {
    pub(crate) certificate: Option<Certificate>,
    pub(crate) trust: Option<Trust>,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
}

impl Material {
    /// Whether both are the same. A chain has one key, so equal chains are enough.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let chain = |material: &Self| material.certificate.as_ref().map(|one| one.key.cert.clone());
        chain(self) == chain(other) && self.judges_as(other)
    }

    /// Whether peers are judged alike by both.
    pub(crate) fn judges_as(&self, other: &Self) -> bool {
        self.trust == other.trust && self.crls == other.crls
    }
}

/// A chain and its private key, which fit each other.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) facts: Facts,
}

/// Authorities.
#[derive(Clone, PartialEq)]
pub(crate) enum Trust {
    /// Each vouches for whatever name its certificates carry.
    Any(Vec<TrustAnchor<'static>>),
    /// Each vouches for the SPIFFE IDs of its own trust domain alone; who has none is vouched for by nobody.
    #[cfg_attr(not(feature = "spiffe"), expect(dead_code, reason = "only that source gives it"))]
    ByDomain(BTreeMap<String, Vec<TrustAnchor<'static>>>),
}

/// What a certificate says of itself, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Hexadecimal, colons between bytes.
    pub(crate) serial: String,
    pub(crate) issuer: String,
    /// `DNS:`, `URI:`, `IP:` and so on.
    pub(crate) names: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// Its extended key usage, if any, has server authentication.
    pub(crate) serves: bool,
    /// The same with client authentication.
    pub(crate) connects: bool,
}

/// Why material cannot be used. The text says what to do and holds nothing of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// A word for metrics.
    pub(crate) reason: &'static str,
    pub(crate) text: String,
}

impl Refused {
    pub(crate) fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

impl Certificate {
    /// A chain, leaf first, with its key.
    ///
    /// # Errors
    /// `certificate`, `chain`, `key`, `mismatch`, `expired`, `early`.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, Refused> {
        let Some(leaf) = chain.first() else { return Err(Refused::new("certificate", "there is no certificate")) };
        if chain.len() > MAX_CHAIN {
            let text = format!("the chain has {} certificates, more than {MAX_CHAIN}", chain.len());
            return Err(Refused::new("chain", text));
        }
        let facts = Facts::of(leaf)?;
        issued_by_each_other(&chain)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                Refused::new("mismatch", "the private key does not fit the certificate: they are of two pairs")
            }
            Error::InvalidCertificate(_) => Refused::new("certificate", "the certificate is not of X.509 version 3"),
            // The library says no more than that it is none of these.
            _ => Refused::new("key", "the private key cannot be used: it is RSA of 2,048 to 8,192 bits, ECDSA on P-256 or P-384, or Ed25519 that is taken"),
        })?;
        Ok(Self { key: Arc::new(key), facts })
    }
}

/// Each certificate of a chain names the next one as its issuer. Signatures are checked by whoever the chain is shown to, and by
/// the handshake with ourselves.
fn issued_by_each_other(chain: &[CertificateDer<'static>]) -> Result<(), Refused> {
    let parsed = chain.iter().map(|one| parsed(one)).collect::<Result<Vec<_>, _>>()?;
    for (at, pair) in parsed.windows(2).enumerate() {
        if let [one, next] = pair
            && one.issuer().as_raw() != next.subject().as_raw()
        {
            let text = format!(
                "certificate {} of the chain is not issued by the one behind it: leaf first, then each issuer",
                at + 1
            );
            return Err(Refused::new("chain", text));
        }
    }
    Ok(())
}

pub(super) fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Refused> {
    match X509Certificate::from_der(der.as_ref()) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Refused::new("certificate", "a certificate cannot be read: its DER is broken")),
    }
}

impl Facts {
    pub(crate) fn of(der: &CertificateDer<'_>) -> Result<Self, Refused> {
        let certificate = parsed(der)?;
        let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
        let usage = certificate.extended_key_usage().ok().flatten().map(|usage| usage.value);
        Ok(Self {
            serves: usage.is_none_or(|usage| usage.any || usage.server_auth),
            connects: usage.is_none_or(|usage| usage.any || usage.client_auth),
            serial: certificate.raw_serial_as_string(),
            issuer: certificate.issuer().to_string(),
            names: names.flatten().map(shown).collect(),
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
        })
    }

    /// Whether it may be used at `now`.
    ///
    /// # Errors
    /// `early`, `expired`.
    pub(crate) fn check(&self, now: SystemTime) -> Result<(), Refused> {
        if now < self.not_before {
            let from = stamp(self.not_before);
            let text =
                format!("the certificate is not valid yet: check this machine's clock and its notBefore, {from}");
            return Err(Refused::new("early", text));
        }
        match now < self.not_after {
            true => Ok(()),
            false => Err(Refused::new("expired", format!("the certificate has expired, on {}", stamp(self.not_after)))),
        }
    }
}

fn shown(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(four), _) => format!("IP:{}", std::net::Ipv4Addr::from(four)),
            (_, Ok(sixteen)) => format!("IP:{}", std::net::Ipv6Addr::from(sixteen)),
            _ => "IP:?".to_owned(),
        },
        GeneralName::RFC822Name(name) => format!("email:{name}"),
        _ => "other".to_owned(),
    }
}

/// RFC 3339, whole seconds.
pub(crate) fn stamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let at = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

fn time(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(after) => UNIX_EPOCH + Duration::from_secs(after),
        Err(_) => UNIX_EPOCH,
    }
}

/// Fewest bits of an RSA key whose signatures are taken. ring has no word for what it refuses.
const RSA_BITS: usize = 2048;

/// A key of the other side that is too small for its signatures to prove anything.
#[derive(Debug)]
pub(crate) struct WeakKey;

impl fmt::Display for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a certificate's RSA key has fewer than {RSA_BITS} bits")
    }
}

impl std::error::Error for WeakKey {}

/// A signature that is not taken, or, where a key of the chain is too small, that.
pub(crate) fn or_weak<'a>(error: Error, chain: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Error {
    let by_signature =
        matches!(error, Error::InvalidCertificate(CertificateError::BadSignature | CertificateError::UnknownIssuer));
    match by_signature && chain.into_iter().any(has_weak_key) {
        true => CertificateError::Other(OtherError(Arc::new(WeakKey))).into(),
        false => error,
    }
}

fn has_weak_key(der: &CertificateDer<'_>) -> bool {
    let Ok(certificate) = parsed(der) else { return false };
    matches!(certificate.public_key().parsed(), Ok(PublicKey::RSA(key)) if key.key_size() < RSA_BITS)
}

/// The end of a certificate's life; none where it cannot be read.
pub(crate) fn not_after(der: &CertificateDer<'_>) -> Option<SystemTime> {
    parsed(der).ok().map(|certificate| time(certificate.validity().not_after.timestamp()))
}

impl Trust {
    /// Authorities from a file's text.
    ///
    /// # Errors
    /// `authority`.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, Refused> {
        let certificates = certificates(pem)?;
        let now = SystemTime::now();
        let mut anchors = Vec::new();
        for certificate in &certificates {
            // Bundles keep roots that have ended for a while; they vouch for nobody.
            if not_after(certificate).is_none_or(|end| now < end) {
                anchors.push(anchor(certificate)?);
            } else {
                tracing::warn!(target: "oilskin::tls", "an authority's certificate that has expired is left out");
            }
        }
        match (certificates.is_empty(), anchors.is_empty()) {
            (true, _) => Err(Refused::new("authority", "there is no certificate (PEM) of an authority")),
            (false, true) => Err(Refused::new("authority", "every authority's certificate in it has expired")),
            _ => Ok(Self::Any(anchors)),
        }
    }
}

/// What peers' chains may lead to.
///
/// # Errors
/// `authority`.
pub(crate) fn anchor(certificate: &CertificateDer<'_>) -> Result<TrustAnchor<'static>, Refused> {
    // Whoever has the key of a server's certificate that stands here by mistake could make certificates for everyone.
    if !parsed(certificate)?.is_ca() {
        let text =
            "a certificate in it is no authority's (basicConstraints without CA:TRUE): name the one that signed it";
        return Err(Refused::new("authority", text));
    }
    let anchor = webpki::anchor_from_trusted_cert(certificate)
        .map_err(|error| Refused::new("authority", format!("an authority's certificate cannot be used: {error}")))?;
    Ok(anchor.to_owned())
}

/// The library's own words are numbers.
const BROKEN_PEM: &str = "the PEM is broken: a section's begin, end or base64 is not whole";

/// The certificates of a text.
///
/// # Errors
/// `certificate`.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Refused> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| Refused::new("certificate", BROKEN_PEM))
}

/// The one private key of a text.
///
/// # Errors
/// `key`.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Refused> {
    let encrypted = [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| memchr::memmem::find(pem, mark).is_some()) {
        let text = "the private key is encrypted: store it without a passphrase in a file that only this user can read";
        return Err(Refused::new("key", text));
    }
    // The library's error may quote what it read.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        Refused::new("key", "there is no private key (PEM: PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY)")
    })
}

/// The revocation lists of a text.
///
/// # Errors
/// `crl`.
pub(crate) fn crls(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Refused> {
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| Refused::new("crl", BROKEN_PEM))?;
    match lists.is_empty() {
        true => Err(Refused::new("crl", "there is no revocation list (PEM: X509 CRL)")),
        false => Ok(lists),
    }
}

/// When the first list ends that no newer one of its issuer replaces; none where none ends.
pub(crate) fn lists_end(lists: &[CertificateRevocationListDer<'_>]) -> Option<SystemTime> {
    let mut ends: BTreeMap<&[u8], SystemTime> = BTreeMap::new();
    for list in lists {
        let Ok((_, list)) = CertificateRevocationList::from_der(list) else { continue };
        let Some(end) = list.next_update().map(|end| time(end.timestamp())) else { continue };
        let newest = ends.entry(list.tbs_cert_list.issuer.as_raw()).or_insert(end);
        *newest = end.max(*newest);
    }
    ends.into_values().min()
}

/// Reads a file that must be one: no directory, no FIFO that would never end, nothing without bound.
///
/// # Errors
/// `file`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Refused> {
    let wrong = |what: &str| Refused::new("file", format!("{}: {what}", path.display()));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => wrong(&format!("{error}: let the user that Oilskin runs as read it")),
        _ => wrong(&error.to_string()),
    };
    // Whatever it is by now, opening it must not wait for a writer.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.is_dir() {
        return Err(wrong("it is a directory: name the file in it"));
    }
    if !about.is_file() {
        return Err(wrong("it is no regular file, but a FIFO, a device or a socket: write what it gives to a file"));
    }
    let mut read = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut read).map_err(failed)?;
    match u64::try_from(read.len()).is_ok_and(|length| length <= MAX_FILE) {
        true => Ok(read),
        false => Err(wrong(&format!("it is larger than {MAX_FILE} bytes"))),
    }
}

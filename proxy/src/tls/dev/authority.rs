//! The authority and what it signs.

use std::time::{Duration, SystemTime};

use oilskin_config::DevName;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use ring::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::tls::material::{self, Certificate, Facts, Refused};

/// Clocks of the machines and containers that a developer has differ by less.
const SKEW: Duration = Duration::from_secs(3600);

/// Before its key in a file.
const COMMENT: &str = "An authority for development, made by Oilskin: its private key and its certificate.\n";

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// An authority with its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    /// Its certificate as text.
    pub(super) pem: String,
    /// Its name, which holds a part of its key's digest.
    pub(super) name: String,
    pub(super) ends: SystemTime,
}

/// What a signed certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve with, and to go to upstreams with.
    Ours,
    /// To come to us with.
    Client,
}

fn failed(error: rcgen::Error) -> Refused {
    Refused::new("authority", format!("a certificate cannot be made: {error}"))
}

fn lives(params: &mut CertificateParams, from: SystemTime, to: SystemTime) {
    params.not_before = OffsetDateTime::from(from);
    params.not_after = OffsetDateTime::from(to);
}

impl Authority {
    /// A new one, with an ECDSA key on P-256.
    pub(super) fn make(now: SystemTime, life: Duration) -> Result<Self, Refused> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        let hash = digest(&SHA256, key.public_key_raw());
        let tag: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Oilskin development {tag}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        lives(&mut params, now - SKEW, now + life);
        let certificate = params.self_signed(&key).map_err(failed)?;
        Self::new(certificate.der().clone(), certificate.pem(), key)
    }

    fn new(certificate: CertificateDer<'static>, pem: String, key: KeyPair) -> Result<Self, Refused> {
        let facts = Facts::of(&certificate)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(failed)?;
        Ok(Self { issuer, pem, name: facts.issuer, ends: facts.not_after, certificate })
    }

    /// Reads what [`Authority::kept`] has written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(text: &[u8], provider: &CryptoProvider) -> Result<Self, Refused> {
        let wrong = |what: &str| Refused::new("authority", what);
        let mut all = material::certificates(text)?;
        let (Some(certificate), true) = (all.pop(), all.is_empty()) else {
            return Err(wrong("it does not hold one certificate (PEM)"));
        };
        let shown = memchr::memmem::find(text, BEGIN).and_then(|at| text.get(at..));
        let pem = shown.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default().to_owned();
        let key = material::private_key(text)?;
        let pair = KeyPair::try_from(key.secret_der())
            .map_err(|_| wrong("its private key cannot be used (PKCS #8, ECDSA on P-256)"))?;
        // That they are of one pair.
        Certificate::new(vec![certificate.clone()], key, provider)?;
        let is_authority = match X509Certificate::from_der(&certificate) {
            Ok((_, parsed)) => parsed.is_ca(),
            Err(_) => false,
        };
        if !is_authority {
            return Err(wrong("its certificate is no authority's"));
        }
        Self::new(certificate, pem, pair)
    }

    /// What is kept of it: key and certificate in one text, so that no reader finds two that do not fit.
    pub(super) fn kept(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(self.issuer.key().serialize_pem());
        Zeroizing::new([COMMENT, key.as_str(), self.pem.as_str()].concat())
    }

    /// A certificate and its key; it ends with the authority at the latest.
    pub(super) fn sign(
        &self,
        names: &[DevName],
        purpose: Purpose,
        now: SystemTime,
        life: Duration,
    ) -> Result<(rcgen::Certificate, KeyPair), Refused> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        let (common, usages) = match purpose {
            Purpose::Ours => {
                ("Oilskin", vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
            }
            Purpose::Client => ("Oilskin client", vec![ExtendedKeyUsagePurpose::ClientAuth]),
        };
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = usages;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = names.iter().map(alternative).collect::<Result<_, _>>().map_err(failed)?;
        lives(&mut params, now - SKEW, (now + life).min(self.ends));
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((certificate, key))
    }
}

fn alternative(name: &DevName) -> Result<SanType, rcgen::Error> {
    let text = |text: &str| Ia5String::try_from(text);
    Ok(match name {
        DevName::Dns(name) => SanType::DnsName(text(name)?),
        DevName::Spiffe(id) => SanType::URI(text(id)?),
        DevName::Ip(address) => SanType::IpAddress(*address),
    })
}

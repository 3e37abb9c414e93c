//! What the service's secrets say, as material.

use std::path::Path;

use oilskin_config::Sds;
use oilskin_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use oilskin_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use oilskin_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use oilskin_proto::envoy::service::discovery::v3::DiscoveryResponse;
use prost::Message;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateRevocationListDer;
use zeroize::Zeroizing;

use crate::tls::material::{self, Certificate, Material, Refused, Trust};

/// The one type that is asked for.
pub(super) const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// What an answer brings, each secret checked by itself, whatever its time.
#[derive(Default)]
pub(super) struct Brought {
    pub(super) certificate: Option<Certificate>,
    pub(super) trust: Option<Trusted>,
}

/// Authorities and revocation lists.
pub(super) type Trusted = (Trust, Vec<CertificateRevocationListDer<'static>>);

/// Whether everything that was asked for is there.
pub(super) fn whole(material: &Material, sds: &Sds) -> bool {
    (sds.certificate.is_none() || material.certificate.is_some()) && (sds.trust.is_none() || material.trust.is_some())
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with which secret.
pub(super) fn read(sds: &Sds, answer: &DiscoveryResponse, provider: &CryptoProvider) -> Result<Brought, Refused> {
    let mut brought = Brought::default();
    for resource in &answer.resources {
        if resource.type_url != TYPE {
            return Err(Refused::new("source", "the answer holds something that is no secret"));
        }
        // The library's error may quote what it read.
        let secret = Secret::decode(resource.value.as_slice())
            .map_err(|_| Refused::new("source", "a secret cannot be read: its protobuf is broken"))?;
        let asked = |name: &Option<String>| name.as_ref() == Some(&secret.name);
        let read = match &secret.r#type {
            Some(Type::TlsCertificate(one)) if asked(&sds.certificate) => {
                certificate(one, provider).map(|certificate| brought.certificate = Some(certificate))
            }
            Some(Type::ValidationContext(one)) if asked(&sds.trust) => {
                trust(one).map(|trusted| brought.trust = Some(trusted))
            }
            _ if asked(&sds.certificate) || asked(&sds.trust) => {
                Err(Refused::new("source", "it is of another kind than what is asked for under this name"))
            }
            _ => Ok(()),
        };
        read.map_err(|refused| Refused { text: format!("{}: {}", secret.name, refused.text), ..refused })?;
    }
    Ok(brought)
}

fn certificate(secret: &TlsCertificate, provider: &CryptoProvider) -> Result<Certificate, Refused> {
    if !(secret.password.is_empty() && secret.pkcs12.is_empty() && secret.private_key_provider.is_empty()) {
        let text = "only a chain and an unencrypted private key in PEM are read: no password, PKCS #12 or key provider";
        return Err(Refused::new("key", text));
    }
    let chain = material::certificates(&bytes(secret.certificate_chain.as_ref())?)?;
    let key = material::private_key(&bytes(secret.private_key.as_ref())?)?;
    Certificate::new(chain, key, provider)
}

fn trust(context: &CertificateValidationContext) -> Result<Trusted, Refused> {
    let plain = context.verify_certificate_hash.is_empty()
        && context.verify_certificate_spki.is_empty()
        && context.require_signed_certificate_timestamp.is_empty()
        && context.match_subject_alt_names.is_empty()
        && context.custom_validator_config.is_empty()
        && context.match_typed_subject_alt_names.is_empty();
    // Whoever says more wants fewer peers let in: taking the rest alone would let in too many.
    if !plain {
        let text = "it restricts peers by more than authorities and revocation lists, which is not read here: say it with `allow`";
        return Err(Refused::new("authority", text));
    }
    let authorities = Trust::from_pem(&bytes(context.trusted_ca.as_ref())?)?;
    let crls = match &context.crl {
        Some(lists) => material::crls(&bytes(Some(lists))?)?,
        None => Vec::new(),
    };
    Ok((authorities, crls))
}

fn bytes(source: Option<&DataSource>) -> Result<Zeroizing<Vec<u8>>, Refused> {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => Ok(Zeroizing::new(bytes.clone())),
        Some(Specifier::InlineString(text)) => Ok(Zeroizing::new(text.clone().into_bytes())),
        Some(Specifier::Filename(path)) => material::read(Path::new(path)).map(Zeroizing::new),
        Some(Specifier::EnvironmentVariable(_)) => {
            Err(Refused::new("source", "it names an environment variable, which is not read here"))
        }
        None => Err(Refused::new("source", "a part of it is missing")),
    }
}

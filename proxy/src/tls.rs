//! TLS: identities from their sources, swapped while traffic flows; who the peers are; the hybrid key exchange.
//!
//! `material` is what a source gives, `files`, `sds`, `spiffe`, `issued` and `dev` are sources (`sessions`: those that push), `configs` what
//! rustls is set up with, `peers` the judge of certificates, `identities` joins them: new material goes live everywhere at once or nowhere.
//! `accept` shakes hands, over a socket that is `wide`.

/// What every judge of certificates does alike: the provider checks the signatures of handshakes.
macro_rules! signatures_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
                .map_err(|error| $crate::tls::material::or_weak(error, [certificate]))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
                .map_err(|error| $crate::tls::material::or_weak(error, [certificate]))
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

mod accept;
mod configs;
mod dev;
mod examined;
mod files;
mod forwarded;
mod gathering;
mod hybrid;
mod identities;
#[cfg(feature = "vault")]
mod issued;
mod material;
mod peers;
mod sds;
mod sessions;
#[cfg(feature = "spiffe")]
mod spiffe;
mod wide;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub(crate) use accept::{Judged, Secured, Verdict, accept, reason, settled};
pub use examined::examined;
#[cfg(feature = "vault")]
pub(crate) use files::{Mark, mark};
pub(crate) use gathering::Gathering;
pub(crate) use identities::{Client, Identities, Report, Server};
#[cfg(feature = "vault")]
pub(crate) use issued::watch as watch_issued;
pub(crate) use material::{Facts, Refused, read, stamp};
pub(crate) use wide::Wide;

/// What all our TLS is done with: ring, with the hybrid exchange before all others.
pub fn provider() -> Arc<CryptoProvider> {
    // ML-KEM draws its randomness from libsodium, which must be ready for it; it only fails where there is none.
    let ready = libsodium_rs::ensure_init().is_ok();
    let mut provider = rustls::crypto::ring::default_provider();
    if ready {
        provider.kx_groups.insert(0, hybrid::X25519_MLKEM768);
    }
    Arc::new(provider)
}

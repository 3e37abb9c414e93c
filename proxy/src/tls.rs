//! TLS towards upstreams.

mod hybrid;

use std::path::Path;
use std::sync::Arc;

use oilskin_config::Protocol;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// How one upstream is spoken to over TLS.
pub(crate) struct Client {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// The native roots are read only when an `https://` upstream is configured; reading them costs tens of milliseconds.
pub(crate) fn client(host: &str, protocol: Protocol, ca_file: Option<&Path>) -> Result<Client, String> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name that a certificate can carry"))?;
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for root in native.certs {
        // Systems carry roots that webpki cannot parse; the others must not suffer for them.
        let _ = roots.add(root);
    }
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        let causes: String = native.errors.iter().map(|error| format!("; {error}")).collect();
        return Err(format!(
            "no root certificates: install ca-certificates, correct SSL_CERT_FILE and SSL_CERT_DIR, or name a ca_file{causes}"
        ));
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::H1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 => vec![b"h2".to_vec()],
    };
    Ok(Client { config: Arc::new(config), name })
}

/// ring, with the hybrid exchange before all others.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    // ML-KEM draws its randomness from libsodium, which must be ready for it; it only fails where there is none.
    let ready = libsodium_rs::ensure_init().is_ok();
    let mut provider = rustls::crypto::ring::default_provider();
    if ready {
        provider.kx_groups.insert(0, hybrid::X25519_MLKEM768);
    }
    Arc::new(provider)
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let shown = path.display();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| format!("{shown}: {error}"))?;
    let mut count = 0_usize;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("{shown}: {error}"))?;
        roots.add(certificate).map_err(|error| format!("{shown}: {error}"))?;
        count += 1;
    }
    match count {
        0 => Err(format!("{shown} holds no certificate (PEM)")),
        _ => Ok(()),
    }
}

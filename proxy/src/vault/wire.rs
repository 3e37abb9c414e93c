//! How Vault is reached: HTTP by the library's client, TLS by ours, with the certificates that are held now.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use oilskin_config::{self as config, VaultAddress};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use vaultrs::api::EndpointMiddleware;

use super::client::{Bounded, Client};
use super::error::Error;
use super::{Vault, Way};
use crate::tls;

/// Connecting, the TLS handshake in it.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection that nobody uses.
const IDLE: Duration = Duration::from_secs(60);

/// Connections that wait for use.
const IDLE_CONNECTIONS: usize = 8;

/// Connections to Vault, made under one state of our certificates.
pub(super) struct Wire {
    number: Option<u64>,
    http: reqwest::Client,
}

/// The state that connections are made under now.
pub(super) fn number(tls: Option<&tls::Client>) -> Option<u64> {
    tls.and_then(tls::Client::now).map(|now| now.number)
}

impl Wire {
    pub(super) fn new(settings: &config::Vault, way: &Way) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            // A proxy of the environment, or a standby's advice, must not see the token.
            .no_proxy()
            .redirect(Policy::none());
        let mut number = None;
        let client = match &way.address {
            VaultAddress::Unix(path) => {
                builder = builder.unix_socket(path.as_path());
                trusting_nobody()?
            }
            VaultAddress::Tcp { tls: false, .. } => trusting_nobody()?,
            VaultAddress::Tcp { host, .. } => {
                let now = way.tls.as_deref().and_then(tls::Client::now);
                let now = now.ok_or_else(|| Error::settings("its certificates are not there yet"))?;
                number = Some(now.number);
                if settings.tls.server_name.is_some() {
                    builder = builder.dns_resolver(Elsewhere(host.clone()));
                }
                (*now.state.config).clone()
            }
        };
        let builder = builder.tls_backend_preconfigured(client);
        let http = builder.build().map_err(|error| Error::settings(error.to_string()))?;
        Ok(Self { number, http })
    }

    pub(super) fn is(&self, number: Option<u64>) -> bool {
        self.number == number
    }

    /// With this token; an empty one is none.
    pub(super) fn client(&self, vault: &Vault, way: &Way, token: &str) -> Client {
        let settings = &vault.settings;
        let middle = EndpointMiddleware {
            token: token.to_owned(),
            version: "v1".to_owned(),
            wrap: None,
            namespace: settings.namespace.clone(),
        };
        let (base, seen) = (base(settings, &way.address), Arc::clone(&vault.seen));
        Client { http: Bounded { base, http: self.http.clone(), seen }, middle }
    }
}

/// Even where TLS is never spoken the library wants to know how, and would look for a provider of its own.
fn trusting_nobody() -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::settings(error.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The URL that all paths stand behind.
pub(super) fn base(settings: &config::Vault, address: &VaultAddress) -> String {
    let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match address {
        VaultAddress::Unix(_) => "http://localhost".to_owned(),
        VaultAddress::Tcp { tls, host, port } => {
            let (scheme, host) = match tls {
                false => ("http", host.as_str()),
                // The name that the certificate must carry; it is resolved as the host.
                true => ("https", settings.tls.server_name.as_deref().unwrap_or(host)),
            };
            format!("{scheme}://{}:{port}", bracketed(host))
        }
    }
}

/// Resolves every name as this host.
struct Elsewhere(String);

impl Resolve for Elsewhere {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The connection's own port stands for 0.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

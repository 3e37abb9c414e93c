//! How Vault is reached: HTTP/1.1, and TLS with the certificates that are held now.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use oilskin_config::{self as config, VaultAddress};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tower_service::Service;

use super::client::Client;
use super::error::Error;
use super::{Vault, Way};
use crate::stream::Stream;
use crate::{names, tls};

/// Connecting, the TLS handshake in it.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection that nobody uses.
const IDLE: Duration = Duration::from_secs(60);

/// Connections that wait for use.
const IDLE_CONNECTIONS: usize = 8;

/// No proxy of the environment and no redirection: neither another proxy nor a standby's advice must see the token.
pub(super) type Http = legacy::Client<Road, Full<Bytes>>;

/// Connections to Vault, made under one state of our certificates.
pub(super) struct Wire {
    number: Option<u64>,
    base: Arc<str>,
    http: Http,
}

/// The state that connections are made under now.
pub(super) fn number(tls: Option<&tls::Client>) -> Option<u64> {
    tls.and_then(tls::Client::now).map(|now| now.number)
}

impl Wire {
    pub(super) fn new(settings: &config::Vault, way: &Way) -> Result<Self, Error> {
        let number = number(way.tls.as_deref());
        if way.tls.is_some() && number.is_none() {
            return Err(Error::settings("its certificates are not there yet"));
        }
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(Road { address: way.address.clone(), tls: way.tls.clone() });
        Ok(Self { number, base: base(settings, &way.address).into(), http })
    }

    pub(super) fn is(&self, number: Option<u64>) -> bool {
        self.number == number
    }

    /// With this token; an empty one is none.
    ///
    /// # Errors
    /// Token or namespace cannot stand in a header.
    pub(super) fn client(&self, vault: &Vault, token: &str) -> Result<Client, Error> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| Error::settings(error.to_string()));
        let namespace = vault.settings.namespace.as_deref().map(value).transpose()?;
        let mut token = Some(token).filter(|token| !token.is_empty()).map(value).transpose()?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        let (http, base, seen) = (self.http.clone(), Arc::clone(&self.base), Arc::clone(&vault.seen));
        Ok(Client { http, base, token, namespace, seen })
    }
}

/// Makes connections to one address.
#[derive(Clone)]
pub(super) struct Road {
    address: VaultAddress,
    tls: Option<Arc<tls::Client>>,
}

impl Road {
    async fn connect(self) -> io::Result<Stream> {
        let (host, port) = match &self.address {
            VaultAddress::Unix(path) => return Ok(Stream::Unix(UnixStream::connect(path.as_path()).await?)),
            VaultAddress::Tcp { host, port, .. } => (host, *port),
        };
        let tcp = names::connect(host, port).await?;
        match &self.tls {
            None => Ok(Stream::Tcp(tcp)),
            Some(tls) => Ok(Stream::Tls(Box::new(tls.shake_hands(tcp).await?.0))),
        }
    }
}

impl Service<Uri> for Road {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Where it goes is known: the URI holds the name that the server's certificate must carry.
    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = self.clone().connect();
        Box::pin(async {
            let connected = timeout(CONNECT, connecting).await;
            Ok(TokioIo::new(connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?))
        })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// The URL that all paths stand behind.
pub(super) fn base(settings: &config::Vault, address: &VaultAddress) -> String {
    let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match address {
        VaultAddress::Unix(_) => "http://localhost".to_owned(),
        VaultAddress::Tcp { tls, host, port } => {
            let (scheme, host) = match tls {
                false => ("http", host.as_str()),
                // The name that the certificate must carry.
                true => ("https", settings.tls.server_name.as_deref().unwrap_or(host)),
            };
            format!("{scheme}://{}:{port}", bracketed(host))
        }
    }
}

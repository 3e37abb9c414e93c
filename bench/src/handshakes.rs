//! TLS connections, one after the other: how many handshakes a server does, and connections that stay open.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use crate::certificates::Tls;
use crate::load::Counted;

/// What kind of handshake is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Full,
    Resumed,
}

/// A client of one key exchange and one cipher, so that every server does the same work.
pub(crate) fn client(tls: Tls<'_>) -> Result<Arc<ClientConfig>> {
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut roots = RootCertStore::empty();
    for authority in tls.certificates.chain("ca.pem")? {
        roots.add(authority)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match tls.mutual {
        true => {
            builder.with_client_auth_cert(tls.certificates.chain("client.pem")?, tls.certificates.key("client.key")?)?
        }
        false => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The same client, which remembers no session.
pub(crate) fn forgetful(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::in_memory_sessions(1);
    Arc::new(config)
}

/// An open connection.
pub(crate) struct Open {
    connection: ClientConnection,
    stream: TcpStream,
}

impl Open {
    /// Shakes hands.
    pub(crate) fn new(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut connection = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Self { connection, stream })
    }

    fn kind(&self) -> Option<HandshakeKind> {
        self.connection.handshake_kind()
    }

    fn close(mut self) -> Result<()> {
        self.connection.send_close_notify();
        self.connection.write_tls(&mut self.stream)?;
        self.stream.flush()?;
        self.stream.shutdown(std::net::Shutdown::Write)?;
        // Tickets come now, or that our certificate is refused; and the server's end is part of its work.
        while self.connection.read_tls(&mut self.stream).context("the server does not close")? > 0 {
            self.connection.process_new_packets()?;
        }
        Ok(())
    }
}

/// Handshakes for so many seconds, each on a connection of its own.
pub(crate) fn run(address: SocketAddr, config: &Arc<ClientConfig>, wanted: Wanted, seconds: u32) -> Result<Counted> {
    if wanted == Wanted::Resumed {
        Open::new(address, config)?.close()?;
    }
    let started = Instant::now();
    let mut requests = 0;
    while started.elapsed() < Duration::from_secs(seconds.into()) {
        let open = match wanted {
            Wanted::Resumed => Open::new(address, config)?,
            // A client that cannot resume at all is sent no ticket by some.
            Wanted::Full => Open::new(address, &forgetful(config))?,
        };
        let resumed = open.kind() == Some(HandshakeKind::Resumed);
        ensure!(resumed == (wanted == Wanted::Resumed), "asked for {wanted:?}, got {:?}", open.kind());
        open.close()?;
        requests += 1;
    }
    ensure!(requests > 0, "no handshake was done");
    Ok(Counted { requests, seconds: started.elapsed().as_secs_f64() })
}

//! Sources and their users, gathered while a configuration is compiled.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use oilskin_config::{Files, ListenerTls, Protocol, Source, UpstreamTls};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, TrustAnchor};

use super::configs;
use super::dev;
use super::files;
use super::identities::{Client, Generation, Held, Identities, Server, User};
use super::material::{Material, Refused};
use crate::telemetry::Metrics;

/// Gathers sources and users while a configuration is compiled.
pub(crate) struct Gathering<'m> {
    identities: Identities,
    metrics: &'m Metrics,
    native: Option<Native>,
    /// Whether what a source keeps may be made on its first use.
    makes: bool,
}

/// The system's authorities, and what kept some of them from being read.
#[derive(Clone)]
struct Native {
    anchors: Arc<[TrustAnchor<'static>]>,
    causes: String,
}

impl<'m> Gathering<'m> {
    pub(crate) fn new(metrics: &'m Metrics) -> Self {
        let identities = Identities { provider: super::provider(), held: Vec::new(), users: Vec::new() };
        Self { identities, metrics, native: None, makes: true }
    }

    /// The same for a look at what a start would find; it leaves no trace.
    pub(crate) fn looking(metrics: &'m Metrics) -> Self {
        Self { makes: false, ..Self::new(metrics) }
    }

    /// The place of a source. Files are read now if they are new; others give what they have once they are watched.
    fn source(&mut self, source: &Source) -> Result<usize, Refused> {
        if let Some(at) = self.identities.held.iter().position(|held| held.source == *source) {
            return Ok(at);
        }
        let mut held = Held::new(source, self.metrics);
        let provider = &self.identities.provider;
        match source {
            Source::Files(files) => {
                held.marks = files::marks(files);
                held.hold(Arc::new(load(files, provider)?));
            }
            Source::Dev(dev) if self.makes => {
                held.hold(Arc::new(dev::load(dev, provider)?));
                dev::announce(dev);
            }
            Source::Dev(dev) => dev::check(dev, provider)?,
            #[cfg(not(feature = "spiffe"))]
            Source::Spiffe(_) => {
                let text =
                    "this Oilskin was built without the feature `spiffe`: cargo build -p oilskin --features spiffe";
                return Err(Refused::new("source", text));
            }
            _ => {}
        }
        self.identities.held.push(held);
        Ok(self.identities.held.len() - 1)
    }

    /// TLS of a listener.
    ///
    /// # Errors
    /// Why it cannot serve.
    pub(crate) fn server(&mut self, settings: &ListenerTls) -> Result<Arc<Server>, Refused> {
        let sources = settings.identities.iter().map(|source| self.source(source)).collect::<Result<Vec<_>, _>>()?;
        let server = Server { settings: settings.clone(), sources, now: ArcSwapOption::empty() };
        if let Some(materials) = self.identities.materials(&server.sources, None) {
            let served = configs::server(settings, &materials, &self.identities.provider, None)?;
            server.now.store(Some(Arc::new(Generation::new(served))));
        }
        let server = Arc::new(server);
        self.identities.users.push(User::Server(Arc::clone(&server)));
        Ok(server)
    }

    /// TLS towards an upstream.
    ///
    /// # Errors
    /// Why it cannot be spoken.
    pub(crate) fn client(
        &mut self,
        settings: &UpstreamTls,
        host: &str,
        protocol: Protocol,
    ) -> Result<Arc<Client>, Refused> {
        let name = settings.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Refused::new("name", format!("{name} is no name that a certificate can carry")))?;
        let source = self.source(&settings.identity)?;
        let Native { anchors: native, causes } = match settings.only_own_ca {
            true => Native { anchors: Arc::default(), causes: String::new() },
            false => self.native(),
        };
        if native.is_empty() && !settings.identity.gives_trust() {
            let text = format!(
                "no root certificates: install ca-certificates, correct SSL_CERT_FILE and SSL_CERT_DIR, or name a ca_file{causes}"
            );
            return Err(Refused::new("authority", text));
        }
        let client = Client { settings: settings.clone(), protocol, name, source, native, now: ArcSwapOption::empty() };
        if let Some([material]) = self.identities.materials(&[source], None).as_deref() {
            let spoken = configs::client(settings, protocol, material, &client.native, &self.identities.provider)?;
            client.now.store(Some(Arc::new(Generation::new(spoken))));
        }
        let client = Arc::new(client);
        self.identities.users.push(User::Client(Arc::clone(&client)));
        Ok(client)
    }

    /// Reading the system's roots costs tens of milliseconds, so it is done once, and only where something asks for them.
    fn native(&mut self) -> Native {
        let read = || {
            let found = rustls_native_certs::load_native_certs();
            // Systems carry roots that webpki cannot parse; the others must not suffer for them.
            let anchors = found.certs.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok());
            Native {
                anchors: anchors.map(|anchor| anchor.to_owned()).collect(),
                causes: found.errors.iter().map(|error| format!("; {error}")).collect(),
            }
        };
        self.native.get_or_insert_with(read).clone()
    }

    pub(crate) fn finish(self) -> Arc<Identities> {
        Arc::new(self.identities)
    }
}

fn load(files: &Files, provider: &CryptoProvider) -> Result<Material, Refused> {
    let material = files::load(files, provider)?;
    if let (Some(certificate), Some((chain, _))) = (&material.certificate, &files.certificate) {
        certificate.facts.check(SystemTime::now()).map_err(|refused| files::in_file(chain, refused))?;
    }
    Ok(material)
}

#[cfg(all(test, not(feature = "spiffe")))]
mod tests {
    use std::ffi::OsString;

    use super::Gathering;
    use crate::telemetry::Metrics;

    #[test]
    fn a_source_that_was_not_built_in_is_told() {
        let vars = [("OILSKIN_UPSTREAM", "http://127.0.0.1:1"), ("OILSKIN_TLS_SOURCE", "spiffe:unix:/x")];
        let vars = vars.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let config = oilskin_config::parse(&vars.into(), &|_| Err(String::new())).unwrap();
        let refused = Gathering::new(&Metrics::new()).server(config.listeners[0].tls.as_ref().unwrap()).err().unwrap();
        assert!(refused.text.contains("built without the feature `spiffe`"), "{refused}");
    }
}

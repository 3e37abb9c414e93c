//! A secret discovery server as Envoy knows it, over a Unix socket: it keeps what it was asked, and pushes what is changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use oilskin_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
pub use oilskin_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use oilskin_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use oilskin_proto::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, TlsCertificate};
use oilskin_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use oilskin_proto::envoy::service::secret::v3::secret_discovery_service_server as server;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::certificates::Authority;
use crate::grpc::{Frozen, Socket};

const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A running server; it ends with its test.
#[derive(Debug)]
pub struct Sds {
    socket: Socket,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Each secret with the version that it came with.
    secrets: Mutex<BTreeMap<String, (u64, Secret)>>,
    requests: Mutex<Vec<DiscoveryRequest>>,
    streams: Mutex<JoinSet<()>>,
    /// The newest version.
    newest: watch::Sender<u64>,
}

impl Sds {
    /// Listens at a path that is free.
    pub fn start(socket: &Path) -> Self {
        let shared = Arc::new(Shared {
            secrets: Mutex::default(),
            requests: Mutex::default(),
            streams: Mutex::default(),
            newest: watch::channel(0).0,
        });
        let service = server::SecretDiscoveryServiceServer::new(Service(Arc::clone(&shared)));
        Self { socket: Socket::serve(socket, service), shared }
    }

    /// Pushes secrets, together.
    pub fn put(&self, secrets: Vec<Secret>) {
        self.shared.newest.send_modify(|version| {
            *version += 1;
            let mut held = self.shared.secrets.lock().unwrap();
            held.extend(secrets.into_iter().map(|secret| (secret.name.clone(), (*version, secret))));
        });
    }

    /// Cuts every connection, and pushes nothing until it is asked anew.
    pub fn cut(&self) {
        self.socket.cut();
    }

    /// Stops as a stopped process does.
    pub fn freeze(&self) -> Frozen {
        self.socket.freeze()
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<DiscoveryRequest> {
        self.shared.requests.lock().unwrap().clone()
    }
}

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes)) })
}

/// A secret of a chain and a key of an authority's, by the files' names.
pub fn certificate(name: &str, authority: &Authority, chain: &str, key: &str) -> Secret {
    let read = |file: String| std::fs::read(authority.path(&file)).unwrap();
    pair(name, read(format!("{chain}.pem")), read(format!("{key}.key")))
}

/// A secret of authorities.
pub fn trust(name: &str, authority: &Authority) -> Secret {
    authorities(name, std::fs::read(authority.path("ca.pem")).unwrap())
}

/// A secret of a chain and a key, both PEM.
pub fn pair(name: &str, chain: Vec<u8>, key: Vec<u8>) -> Secret {
    let certificate =
        TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..TlsCertificate::default() };
    Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) }
}

/// A secret of authorities in PEM.
pub fn authorities(name: &str, pem: Vec<u8>) -> Secret {
    let context = CertificateValidationContext { trusted_ca: inline(pem), ..Default::default() };
    Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl server::SecretDiscoveryService for Service {
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (answer, answers) = mpsc::channel(1);
        let (shared, asked) = (Arc::clone(&self.0), request.into_inner());
        self.0.streams.lock().unwrap().spawn(stream(shared, asked, answer));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

async fn stream(
    shared: Arc<Shared>,
    mut asked: Streaming<DiscoveryRequest>,
    answer: mpsc::Sender<Result<DiscoveryResponse, Status>>,
) {
    let mut newest = shared.newest.subscribe();
    let (mut names, mut sent) = (Vec::new(), 0);
    loop {
        let new: Vec<(u64, Secret)> = {
            let held = shared.secrets.lock().unwrap();
            let of_these = names.iter().filter_map(|name: &String| held.get(name));
            of_these.filter(|(version, _)| *version > sent).cloned().collect()
        };
        if let Some(version) = new.iter().map(|(version, _)| *version).max() {
            let any = |(_, secret): (u64, Secret)| prost_types::Any {
                type_url: TYPE.to_owned(),
                value: secret.encode_to_vec(),
            };
            let response = DiscoveryResponse {
                version_info: version.to_string(),
                resources: new.into_iter().map(any).collect(),
                type_url: TYPE.to_owned(),
                nonce: format!("nonce-{version}"),
            };
            sent = version;
            if answer.send(Ok(response)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            request = asked.message() => {
                let Ok(Some(request)) = request else { return };
                names.clone_from(&request.resource_names);
                shared.requests.lock().unwrap().push(request);
            }
            changed = newest.changed() => if changed.is_err() { return },
        }
    }
}

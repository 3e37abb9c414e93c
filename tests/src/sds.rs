//! A secret discovery server as Envoy knows it, over a Unix socket: it keeps what it was asked, and pushes what is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use oilskin_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
pub use oilskin_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use oilskin_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use oilskin_proto::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, TlsCertificate};
use oilskin_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use oilskin_proto::envoy::service::secret::v3::secret_discovery_service_server as server;
use prost::Message as _;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service as _;

use crate::certificates::Authority;

const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A running server; it ends with its test.
#[derive(Debug)]
pub struct Sds {
    socket: PathBuf,
    shared: Arc<Shared>,
    runtime: Handle,
    thread: Option<JoinHandle<()>>,
}

/// A server that has stopped in the middle of everything, its sockets open; it goes on when this ends.
#[derive(Debug)]
pub struct Frozen {
    _until: std::sync::mpsc::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    /// Each secret with the version that it came with.
    secrets: Mutex<BTreeMap<String, (u64, Secret)>>,
    requests: Mutex<Vec<DiscoveryRequest>>,
    streams: Mutex<JoinSet<()>>,
    /// The newest version, and how often streams were cut; none is the end.
    told: watch::Sender<Option<(u64, u64)>>,
}

impl Sds {
    /// Listens at a path that is free.
    pub fn start(socket: &Path) -> Self {
        let shared = Arc::new(Shared {
            secrets: Mutex::default(),
            requests: Mutex::default(),
            streams: Mutex::default(),
            told: watch::channel(Some((0, 0))).0,
        });
        let (kept, path) = (Arc::clone(&shared), socket.to_owned());
        let (ready, listening) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::bind(path).unwrap();
                ready.send(Handle::current()).unwrap();
                serve(listener, kept).await;
            });
        });
        let runtime = listening.recv().unwrap();
        Self { socket: socket.to_owned(), shared, runtime, thread: Some(thread) }
    }

    /// Pushes secrets, together.
    pub fn put(&self, secrets: Vec<Secret>) {
        self.shared.told.send_modify(|told| {
            let (version, _) = told.as_mut().unwrap();
            *version += 1;
            let mut held = self.shared.secrets.lock().unwrap();
            held.extend(secrets.into_iter().map(|secret| (secret.name.clone(), (*version, secret))));
        });
    }

    /// Cuts every connection, and pushes nothing until it is asked anew.
    pub fn cut(&self) {
        self.shared.told.send_modify(|told| told.as_mut().unwrap().1 += 1);
    }

    /// Stops as a stopped process does: its one thread waits.
    pub fn freeze(&self) -> Frozen {
        let (until, ends) = std::sync::mpsc::channel::<()>();
        self.runtime.spawn(async move {
            let _ = ends.recv();
        });
        Frozen { _until: until }
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<DiscoveryRequest> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Sds {
    fn drop(&mut self) {
        self.shared.told.send_replace(None);
        let _ = self.thread.take().unwrap().join();
        let _ = std::fs::remove_file(&self.socket);
    }
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

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes)) })
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let mut told = shared.told.subscribe();
    let mut connections = JoinSet::new();
    let mut cuts = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let service = server::SecretDiscoveryServiceServer::from_arc(Arc::new(Service(Arc::clone(&shared))));
                let service = service_fn(move |request| service.clone().call(request));
                let io = TokioIo::new(accepted.unwrap().0);
                connections.spawn(async move {
                    // A client that goes away is no news.
                    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
                });
            }
            changed = told.wait_for(|now| now.map(|(_, cut)| cut) != Some(cuts)) => {
                match *changed.unwrap() {
                    Some((_, cut)) => cuts = cut,
                    None => return,
                }
                connections.abort_all();
            }
        }
    }
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
    let mut told = shared.told.subscribe();
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
            changed = told.changed() => if changed.is_err() || told.borrow().is_none() { return },
        }
    }
}

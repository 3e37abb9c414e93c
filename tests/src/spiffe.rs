//! A SPIFFE Workload API as SPIRE's agent offers it, over a Unix socket: every stream gets the state of now, and each one after it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oilskin_proto::spiffe::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
pub use oilskin_proto::spiffe::{X509svid, X509svidRequest, X509svidResponse};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::certificates::Authority;
use crate::grpc::Socket;

/// A running agent; it ends with its test.
#[derive(Debug)]
pub struct Agent {
    _socket: Socket,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None: no identity is issued.
    state: watch::Sender<Option<X509svidResponse>>,
    asked: AtomicU64,
    streams: Mutex<JoinSet<()>>,
}

impl Agent {
    /// Listens at a path that is free, and issues no identity.
    pub fn start(socket: &Path) -> Self {
        let shared =
            Arc::new(Shared { state: watch::channel(None).0, asked: AtomicU64::new(0), streams: Mutex::default() });
        let service = SpiffeWorkloadApiServer::new(Service(Arc::clone(&shared)));
        Self { _socket: Socket::serve(socket, service), shared }
    }

    /// Issues these, and gives these bundles of foreign trust domains.
    pub fn put(&self, svids: Vec<X509svid>, federated: &[(&str, &Authority)]) {
        let bundle =
            |(domain, authority): &(&str, &Authority)| (format!("spiffe://{domain}"), der(&authority.path("ca.pem")));
        let federated_bundles = federated.iter().map(bundle).collect();
        self.shared.state.send_replace(Some(X509svidResponse { svids, crl: Vec::new(), federated_bundles }));
    }

    /// Issues these, and says that this domain has no authorities.
    pub fn put_without_bundle(&self, domain: &str, svids: Vec<X509svid>) {
        let federated_bundles = [(format!("spiffe://{domain}"), Vec::new())].into();
        self.shared.state.send_replace(Some(X509svidResponse { svids, crl: Vec::new(), federated_bundles }));
    }

    /// Issues nothing any more.
    pub fn deny(&self) {
        self.shared.state.send_replace(None);
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

/// An identity with a chain and a key of an authority's, by the files' names.
pub fn svid(authority: &Authority, chain: &str, key: &str) -> X509svid {
    X509svid {
        // Who it is stands in the certificate.
        spiffe_id: "spiffe://said.test/x".to_owned(),
        x509_svid: der(&authority.path(&format!("{chain}.pem"))),
        x509_svid_key: der(&authority.path(&format!("{key}.key"))),
        bundle: der(&authority.path("ca.pem")),
        hint: String::new(),
    }
}

/// All blocks of a PEM file, one behind the other.
fn der(path: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut all = Vec::new();
    let mut block = String::new();
    for line in text.lines() {
        match line {
            _ if line.starts_with("-----BEGIN") => block.clear(),
            _ if line.starts_with("-----END") => all.extend(STANDARD.decode(&block).unwrap()),
            _ => block.push_str(line),
        }
    }
    all
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = ReceiverStream<Result<X509svidResponse, Status>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        // The specification's guard against requests that a server was tricked into.
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("security header missing from request"));
        }
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let (answer, answers) = mpsc::channel(1);
        self.0.streams.lock().unwrap().spawn(stream(self.0.state.subscribe(), answer));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

async fn stream(
    mut state: watch::Receiver<Option<X509svidResponse>>,
    answer: mpsc::Sender<Result<X509svidResponse, Status>>,
) {
    loop {
        let now = state.borrow_and_update().clone().ok_or_else(|| Status::permission_denied("no identity issued"));
        let denied = now.is_err();
        if answer.send(now).await.is_err() || denied {
            return;
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = answer.closed() => return,
        }
    }
}

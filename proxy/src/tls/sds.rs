//! Envoy's secret discovery as a source: one stream over a Unix socket, on which secrets are asked for once and then pushed.
//! What is taken is acknowledged, what is refused is told so, and a stream that ends is made anew.

mod secrets;
mod wire;

use std::sync::Arc;

use http::Uri;
use oilskin_config::Sds;
use oilskin_proto::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use oilskin_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use oilskin_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use oilskin_proto::google::rpc::Status;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::identities::Identities;
use super::material::{MAX_FILE, Material, Refused};
use super::sessions::{DEADLINE, Sessions, shortened};

/// Keeps the source's secrets fresh until the process ends.
pub(super) async fn watch(identities: Arc<Identities>, at: usize, sds: Sds) {
    let mut watch = Watch { sessions: Sessions::new(identities, at), sds, held: Material::default() };
    loop {
        let ended = watch.session().await;
        watch.sessions.ended(&ended).await;
    }
}

struct Watch {
    sessions: Sessions,
    sds: Sds,
    /// The last good secrets, perhaps not all yet.
    held: Material,
}

impl Watch {
    fn gone(&self, what: &str) -> Refused {
        Refused::new("unreachable", format!("{}: {what}", self.sds.socket.display()))
    }

    fn failed(&self, status: &tonic::Status) -> Refused {
        self.gone(&format!("{:?}: {}", status.code(), shortened(status.message())))
    }

    /// Connects and takes what comes; returns why that ended.
    async fn session(&mut self) -> Refused {
        let connection = match timeout(DEADLINE, wire::connect(&self.sds.socket)).await {
            Err(_) => return self.gone("nobody answers"),
            Ok(Err(error)) => return self.gone(&error.to_string()),
            Ok(Ok(connection)) => connection,
        };
        let (ask, asked) = mpsc::channel(1);
        if ask.try_send(self.request("", "", None)).is_err() {
            return self.gone("a request could not be sent");
        }
        // How long the first answer takes is the service's affair: it may be waiting for a signature.
        let mut client = SecretDiscoveryServiceClient::with_origin(connection, Uri::from_static("http://localhost"))
            .max_decoding_message_size(usize::try_from(MAX_FILE).unwrap_or(usize::MAX));
        match client.stream_secrets(ReceiverStream::new(asked)).await {
            Ok(answers) => self.answers(answers.into_inner(), ask).await,
            Err(status) => self.failed(&status),
        }
    }

    async fn answers(
        &mut self,
        mut answers: Streaming<DiscoveryResponse>,
        ask: mpsc::Sender<DiscoveryRequest>,
    ) -> Refused {
        let mut version = String::new();
        loop {
            let answer = match answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return self.gone("it has closed the stream"),
                Err(status) => return self.failed(&status),
            };
            let (next, nonce) = (answer.version_info.clone(), answer.nonce.clone());
            let refused = self.take(answer).await.err();
            match &refused {
                None => version = next,
                Some(refused) => self.sessions.identities.refuse(self.sessions.at, refused),
            }
            if ask.send_timeout(self.request(&version, &nonce, refused), DEADLINE).await.is_err() {
                return self.gone("it takes no more requests");
            }
        }
    }

    /// Secrets are pushed one by one; the state offered is what was held with them in it.
    async fn take(&mut self, answer: DiscoveryResponse) -> Result<(), Refused> {
        let identities = Arc::clone(&self.sessions.identities);
        let (sds, held, provider) = (self.sds.clone(), self.held.clone(), Arc::clone(identities.provider()));
        // It may name files, and a file system may hang.
        let read = tokio::task::spawn_blocking(move || secrets::with(held, &sds, &answer, &provider)).await;
        let next = read.unwrap_or_else(|_| Err(Refused::new("source", "reading the secrets failed")))?;
        if secrets::whole(&next, &self.sds) {
            let offered = identities.offer(self.sessions.at, next.clone());
            if offered.is_err() && secrets::whole(&self.held, &self.sds) {
                return offered;
            }
            self.held = next;
            offered?;
        } else {
            self.held = next;
        }
        self.sessions.took();
        Ok(())
    }

    fn request(&self, version: &str, nonce: &str, refused: Option<Refused>) -> DiscoveryRequest {
        let version_of_ours = UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned());
        let node = Node {
            // istio-agent wants one and asks no more of it.
            id: "oilskin".to_owned(),
            cluster: "oilskin".to_owned(),
            user_agent_name: "oilskin".to_owned(),
            user_agent_version_type: Some(version_of_ours),
        };
        DiscoveryRequest {
            version_info: version.to_owned(),
            node: Some(node),
            resource_names: [&self.sds.certificate, &self.sds.trust].into_iter().flatten().cloned().collect(),
            type_url: secrets::TYPE.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: refused.map(|refused| Status { code: Code::InvalidArgument.into(), message: refused.text }),
        }
    }
}

//! Envoy's secret discovery as a source: one stream over a Unix socket, on which secrets are asked for once and then pushed.
//! What is taken is acknowledged, what is refused is told so, and a stream that ends is made anew.

mod secrets;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::Uri;
use oilskin_config::Sds;
use oilskin_proto::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use oilskin_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use oilskin_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use oilskin_proto::google::rpc::Status;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use self::secrets::Brought;
use super::identities::Identities;
use super::material::{Certificate, MAX_FILE, Material, Refused};
use super::sessions::{DEADLINE, Sessions};
use crate::said::shortened;

/// Longest time between two looks at the clock while a certificate's time is still to come.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps the source's secrets fresh until the process ends.
pub(super) async fn watch(identities: Arc<Identities>, at: usize, sds: Sds) {
    let sessions = Sessions::new(identities, at);
    let watch = Watch { sessions, sds, kept: Mutex::default(), set_aside: Notify::new() };
    tokio::join!(watch.connected(), watch.in_its_time());
}

struct Watch {
    sessions: Sessions,
    sds: Sds,
    kept: Mutex<Kept>,
    /// A certificate was, whose time is still to come.
    set_aside: Notify,
}

#[derive(Default)]
struct Kept {
    /// The last good secrets, perhaps not all yet.
    held: Material,
    /// The newest certificate, where its time is still to come. The service has no reason to send it again then.
    early: Option<Certificate>,
}

impl Watch {
    fn gone(&self, what: &str) -> Refused {
        Refused::new("unreachable", format!("{}: {what}", self.sds.socket.display()))
    }

    fn failed(&self, status: &tonic::Status) -> Refused {
        self.gone(&format!("{:?}: {}", status.code(), shortened(status.message())))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, again and again.
    async fn connected(&self) {
        loop {
            let ended = self.session().await;
            self.sessions.ended(&ended).await;
        }
    }

    /// Offers a certificate that came too early once its time has come, whether or not the service is there then.
    async fn in_its_time(&self) {
        loop {
            let until = self.kept().early.as_ref().map(|early| early.facts.not_before);
            match until.map(|until| until.duration_since(SystemTime::now())) {
                None => self.set_aside.notified().await,
                // The clock may be set meanwhile: it is looked at again.
                Some(Ok(left)) => sleep(left.min(LOOK)).await,
                Some(Err(_)) => self.offer_early(),
            }
        }
    }

    fn offer_early(&self) {
        let mut kept = self.kept();
        let Some(certificate) = kept.early.take() else { return };
        let brought = Brought { certificate: Some(certificate), trust: None };
        if let Err(refused) = self.offer(&mut kept, brought) {
            self.sessions.identities.refuse(self.sessions.at, &refused);
        }
    }

    /// Connects and takes what comes; returns why that ended.
    async fn session(&self) -> Refused {
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

    async fn answers(&self, mut answers: Streaming<DiscoveryResponse>, ask: mpsc::Sender<DiscoveryRequest>) -> Refused {
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

    async fn take(&self, answer: DiscoveryResponse) -> Result<(), Refused> {
        let (sds, provider) = (self.sds.clone(), Arc::clone(self.sessions.identities.provider()));
        // It may name files, and a file system may hang.
        let read = tokio::task::spawn_blocking(move || secrets::read(&sds, &answer, &provider)).await;
        let mut brought = read.unwrap_or_else(|_| Err(Refused::new("source", "reading the secrets failed")))?;
        let mut kept = self.kept();
        let checked = brought.certificate.as_ref().map(|one| one.facts.check(SystemTime::now()));
        let early = checked.and_then(Result::err).filter(|refused| refused.reason == "early");
        if early.is_some() {
            kept.early = brought.certificate.take();
            self.set_aside.notify_one();
        } else if brought.certificate.is_some() {
            kept.early = None;
        }
        // Authorities and lists that came with it do not wait for it.
        match early {
            Some(early) if brought.trust.is_none() => Err(early),
            early => self.offer(&mut kept, brought).and(early.map_or(Ok(()), Err)),
        }
    }

    /// Secrets are pushed one by one; the state offered is what was held with them in it.
    fn offer(&self, kept: &mut Kept, brought: Brought) -> Result<(), Refused> {
        let mut next = kept.held.clone();
        if let Some(certificate) = brought.certificate {
            certificate.facts.check(SystemTime::now())?;
            next.certificate = Some(certificate);
        }
        if let Some((trust, crls)) = brought.trust {
            (next.trust, next.crls) = (Some(trust), crls);
        }
        if secrets::whole(&next, &self.sds) {
            let offered = self.sessions.identities.offer(self.sessions.at, next.clone());
            if offered.is_err() && secrets::whole(&kept.held, &self.sds) {
                return offered;
            }
            kept.held = next;
            offered?;
        } else {
            kept.held = next;
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

//! Envoy's secret discovery as a source: one stream over a Unix socket, on which secrets are asked for once and then pushed.
//! What is taken is acknowledged, what is refused is told so, and a stream that ends is made anew.

mod secrets;
mod wire;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use oilskin_config::Sds;
use oilskin_proto::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use oilskin_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use oilskin_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use oilskin_proto::google::rpc::Status;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::identities::Identities;
use super::material::{MAX_FILE, Material, Refused};

/// Connecting, and handing over a request.
const DEADLINE: Duration = Duration::from_secs(5);

/// Shortest wait before another connection, in milliseconds.
const SHORTEST: u64 = 1_000;

/// Longest one.
const LONGEST: u64 = 30_000;

/// Longest one while nothing is held: the agent may be starting beside us, and everyone waits.
const EAGER: u64 = 4_000;

/// What is kept of a message that the service sends, in characters.
const MAX_MESSAGE: usize = 200;

/// Keeps the source's secrets fresh until the process ends.
pub(super) async fn watch(identities: Arc<Identities>, at: usize, sds: Sds) {
    let mut watch = Watch { identities, at, sds, held: Material::default(), failures: 0 };
    loop {
        let ended = watch.session().await;
        watch.identities.lost(at, &ended);
        let longest = if watch.identities.holds(at) { LONGEST } else { EAGER };
        sleep(pause(watch.failures, longest)).await;
        watch.failures = watch.failures.saturating_add(1);
    }
}

/// Between the shortest wait and a bound that doubles with each failure.
fn pause(failures: u32, longest: u64) -> Duration {
    let bound = SHORTEST.saturating_mul(2_u64.saturating_pow(failures.saturating_add(1))).min(longest);
    // std seeds this from the system's random source; pods that started together must not come back together.
    let spread = RandomState::new().hash_one(failures) % (bound - SHORTEST + 1);
    Duration::from_millis(SHORTEST + spread)
}

struct Watch {
    identities: Arc<Identities>,
    at: usize,
    sds: Sds,
    /// The last good secrets, perhaps not all yet.
    held: Material,
    /// Sessions since the last one in which something was taken.
    failures: u32,
}

impl Watch {
    fn gone(&self, what: &str) -> Refused {
        Refused::new("unreachable", format!("{}: {what}", self.sds.socket.display()))
    }

    fn failed(&self, status: &tonic::Status) -> Refused {
        let message: String = status.message().chars().take(MAX_MESSAGE).collect();
        self.gone(&format!("{:?}: {message}", status.code()))
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
                Some(refused) => self.identities.refuse(self.at, refused),
            }
            if ask.send_timeout(self.request(&version, &nonce, refused), DEADLINE).await.is_err() {
                return self.gone("it takes no more requests");
            }
        }
    }

    /// Secrets are pushed one by one; the state offered is what was held with them in it.
    async fn take(&mut self, answer: DiscoveryResponse) -> Result<(), Refused> {
        let (sds, held, provider) = (self.sds.clone(), self.held.clone(), Arc::clone(self.identities.provider()));
        // It may name files, and a file system may hang.
        let read = tokio::task::spawn_blocking(move || secrets::with(held, &sds, &answer, &provider)).await;
        let next = read.unwrap_or_else(|_| Err(Refused::new("source", "reading the secrets failed")))?;
        if secrets::whole(&next, &self.sds) {
            let offered = self.identities.offer(self.at, next.clone());
            if offered.is_err() && secrets::whole(&self.held, &self.sds) {
                return offered;
            }
            self.held = next;
            offered?;
        } else {
            self.held = next;
        }
        self.failures = 0;
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

#[cfg(test)]
mod tests {
    use super::{LONGEST, SHORTEST, pause};

    #[test]
    fn pauses_grow_are_spread_and_bounded() {
        for failures in [0, 1, 5, 40, u32::MAX] {
            for _ in 0..100 {
                let pause = u64::try_from(pause(failures, LONGEST).as_millis()).unwrap();
                let bound = if failures == 0 { 2 * SHORTEST } else { LONGEST };
                assert!((SHORTEST..=bound).contains(&pause), "{failures}: {pause}");
            }
        }
        let distinct: std::collections::BTreeSet<_> = (0..20).map(|_| pause(5, LONGEST)).collect();
        assert!(distinct.len() > 10, "{distinct:?}");
    }
}

//! The library's requests and answers, over a client that bounds what it reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use memchr::memmem;
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use serde_json::Value;
use vaultrs::api::{AuthInfo, EndpointMiddleware, EndpointResult};

use super::error::Error;

/// Longest answer, in bytes: a revocation list of 100,000 entries has about 6 MB as text.
const MAX_ANSWER: usize = 16 << 20;

/// What a path holds, as it is: for what the library does not know, or knows otherwise than the server answers.
pub(crate) struct Get(pub(crate) String);

impl Endpoint for Get {
    type Response = Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.0.clone()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

/// Vault with a token, for a few calls.
pub(crate) struct Client {
    pub(super) http: Bounded,
    pub(super) middle: EndpointMiddleware,
}

impl Client {
    async fn asked<E: Endpoint>(&self, endpoint: E) -> Result<EndpointResult<E::Response>, Error> {
        let answer = endpoint.with_middleware(&self.middle).exec(&self.http).await?;
        Ok(answer.wrap()?)
    }

    /// What an answer's `data` is.
    ///
    /// # Errors
    /// What the answer means.
    pub(crate) async fn data<E: Endpoint>(&self, endpoint: E) -> Result<E::Response, Error> {
        self.asked(endpoint).await?.data.ok_or_else(Error::malformed)
    }

    /// What an answer's `auth` is.
    pub(super) async fn auth<E: Endpoint<Response = ()>>(&self, endpoint: E) -> Result<AuthInfo, Error> {
        self.asked(endpoint).await?.auth.ok_or_else(Error::malformed)
    }

    /// Whether it was done; there is nothing to read.
    ///
    /// # Errors
    /// What the answer means.
    pub(crate) async fn done<E: Endpoint>(&self, endpoint: E) -> Result<(), Error> {
        endpoint.with_middleware(&self.middle).exec(&self.http).await?;
        Ok(())
    }
}

/// An HTTP client that reads no more than a bound.
pub(super) struct Bounded {
    pub(super) base: String,
    pub(super) http: reqwest::Client,
    pub(super) seen: Arc<Seen>,
}

/// What Vault's answers said beside their bodies.
#[derive(Default)]
pub(super) struct Seen {
    /// The newest state of storage that an answer was of: a standby that is behind it says so instead of answering from an older one.
    /// <https://developer.hashicorp.com/vault/docs/enterprise/consistency>
    index: ArcSwapOption<HeaderValue>,
    /// Answers in a row of servers that are behind it.
    behind: AtomicU64,
    /// For how many milliseconds it asks to be spared.
    spare: AtomicU64,
}

/// Which state an answer is of, and a question needs.
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");

/// So many answers in a row say that nobody will catch up: storage was restored from before, or is another cluster's.
const BEHIND: u64 = 3;

impl Seen {
    /// Whether a state that was asked for is not known there, now or ever; then what is held of it may be given up.
    fn is_behind(&self, status: StatusCode, body: &[u8]) -> bool {
        // One that cannot be read is of no server that we will meet again.
        let is_other = status == StatusCode::BAD_REQUEST && memmem::find(body, b"X-Vault-Index").is_some();
        let is_behind = is_other || status == StatusCode::PRECONDITION_FAILED;
        match is_behind {
            true if is_other || self.behind.fetch_add(1, Ordering::Relaxed) + 1 >= BEHIND => {
                self.behind.store(0, Ordering::Relaxed);
                self.index.store(None);
            }
            true => {}
            false => self.behind.store(0, Ordering::Relaxed),
        }
        is_behind
    }

    fn read(&self, headers: &HeaderMap) {
        if let Some(index) = headers.get(INDEX) {
            self.index.store(Some(Arc::new(index.clone())));
        }
        let seconds = headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse::<u64>().ok());
        if let Some(seconds) = seconds {
            self.spare.store(seconds.saturating_mul(1_000), Ordering::Relaxed);
        }
    }

    /// How long it asks to be spared for, told once.
    pub(super) fn spare(&self) -> Option<Duration> {
        Some(self.spare.swap(0, Ordering::Relaxed)).filter(|spare| *spare > 0).map(Duration::from_millis)
    }
}

#[tonic::async_trait]
impl rustify::client::Client for Bounded {
    async fn send(&self, mut request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        if let Some(index) = &*self.seen.index.load() {
            request.headers_mut().insert(INDEX, HeaderValue::clone(index));
        }
        let ended = |source: anyhow::Error| ClientError::ResponseError { source };
        let (url, method) = (request.uri().to_string(), request.method().to_string());
        let request =
            reqwest::Request::try_from(request).map_err(|source| ClientError::ReqwestBuildError { source })?;
        let answer = self.http.execute(request).await;
        let mut answer = answer.map_err(|error| ClientError::RequestError { source: error.into(), url, method })?;
        self.seen.read(answer.headers());
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| ended(error.into()))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(ended(anyhow::anyhow!("its answer is longer than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        let status = match self.seen.is_behind(answer.status(), &body) {
            true => StatusCode::PRECONDITION_FAILED,
            false => answer.status(),
        };
        let mut read = Response::new(body);
        *read.status_mut() = status;
        std::mem::swap(read.headers_mut(), answer.headers_mut());
        Ok(read)
    }

    fn base(&self) -> &str {
        &self.base
    }
}

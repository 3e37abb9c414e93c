//! The library's requests and answers, over an HTTP client that bounds what it reads: the library's own reads without bound, and its
//! errors hold bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::uri::{PathAndQuery, Uri};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use memchr::memmem;
use oilskin_crypto::Wiped;
use rustify::Endpoint;
use rustify::client::HTTP_SUCCESS_CODES;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use serde_json::Value;
use vaultrs::api::{AuthInfo, EndpointResult};

use super::error::Error;
use super::wire::Http;

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
    pub(super) http: Http,
    /// The URL that all paths stand behind.
    pub(super) base: Arc<str>,
    /// None asks as nobody.
    pub(super) token: Option<HeaderValue>,
    pub(super) namespace: Option<HeaderValue>,
    pub(super) seen: Arc<Seen>,
}

/// An answer as it came. Its body may hold what is secret.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Bytes,
}

impl Answer {
    /// # Errors
    /// What it means, where it is no success.
    fn good(self) -> Result<Bytes, Error> {
        match HTTP_SUCCESS_CODES.contains(&self.code) {
            true => Ok(self.body),
            false => Err(Error::answered(self.code, &self.body)),
        }
    }
}

impl Client {
    async fn asked<E: Endpoint>(&self, endpoint: &E) -> Result<EndpointResult<E::Response>, Error> {
        let body = self.answer(endpoint).await?.good()?;
        serde_json::from_slice(&body).map_err(|_| Error::malformed())
    }

    /// What an answer's `data` is.
    ///
    /// # Errors
    /// What the answer means.
    pub(crate) async fn data<E: Endpoint>(&self, endpoint: E) -> Result<E::Response, Error> {
        self.asked(&endpoint).await?.data.ok_or_else(Error::malformed)
    }

    /// What an answer's `auth` is.
    pub(super) async fn auth<E: Endpoint<Response = ()>>(&self, endpoint: E) -> Result<AuthInfo, Error> {
        self.asked(&endpoint).await?.auth.ok_or_else(Error::malformed)
    }

    /// Whether it was done; there is nothing to read.
    ///
    /// # Errors
    /// What the answer means.
    pub(crate) async fn done<E: Endpoint>(&self, endpoint: E) -> Result<(), Error> {
        self.answer(&endpoint).await?.good().map(drop)
    }

    /// The answer, whatever it says.
    ///
    /// # Errors
    /// None came, or it has no end.
    pub(super) async fn answer<E: Endpoint>(&self, endpoint: &E) -> Result<Answer, Error> {
        let request = self.request(endpoint)?;
        let answer = self.http.request(request).await.map_err(|error| Error::unreachable(&error))?;
        self.seen.read(answer.headers());
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| match error
            .is::<LengthLimitError>(
        ) {
            true => Error::endless(MAX_ANSWER),
            false => Error::unreachable(&*error),
        })?;
        let body = body.to_bytes();
        let is_behind = self.seen.is_behind(status, &body);
        let status = if is_behind { StatusCode::PRECONDITION_FAILED } else { status };
        Ok(Answer { code: status.as_u16(), body })
    }

    fn request<E: Endpoint>(&self, endpoint: &E) -> Result<Request<Full<Bytes>>, Error> {
        let none = || Error::settings("nothing can be asked there in this way");
        let body = Wiped::from(endpoint.body().map_err(|_| none())?.unwrap_or_default());
        let mut request = Request::new(Full::new(Bytes::from_owner(body)));
        *request.method_mut() = endpoint.method().into();
        let uri = endpoint.url(&self.base).map_err(|_| none())?;
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        *request.uri_mut() = Uri::from_maybe_shared(format!("{}/v1{path}", self.base)).map_err(|_| none())?;
        let headers = request.headers_mut();
        headers.insert(ASKED, HeaderValue::from_static("true"));
        let index = self.seen.index.load();
        for (name, value) in [(TOKEN, &self.token), (NAMESPACE, &self.namespace), (INDEX, &index.as_deref().cloned())] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        Ok(request)
    }
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

/// Keeps browsers from being tricked into asking; Vault Agent may demand it.
const ASKED: HeaderName = HeaderName::from_static("x-vault-request");
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

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

//! The library's requests and answers, over a client that bounds what it reads.

use http::{Request, Response};
use rustify::Endpoint;
use rustify::errors::ClientError;
use vaultrs::api::{AuthInfo, EndpointMiddleware, EndpointResult};

use super::error::Error;

/// Longest answer, in bytes: a revocation list of 100,000 entries has about 6 MB as text.
const MAX_ANSWER: usize = 16 << 20;

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
    pub(super) async fn done<E: Endpoint>(&self, endpoint: E) -> Result<(), Error> {
        endpoint.with_middleware(&self.middle).exec(&self.http).await?;
        Ok(())
    }
}

/// An HTTP client that reads no more than a bound.
pub(super) struct Bounded {
    pub(super) base: String,
    pub(super) http: reqwest::Client,
}

#[tonic::async_trait]
impl rustify::client::Client for Bounded {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        let ended = |source: anyhow::Error| ClientError::ResponseError { source };
        let (url, method) = (request.uri().to_string(), request.method().to_string());
        let request =
            reqwest::Request::try_from(request).map_err(|source| ClientError::ReqwestBuildError { source })?;
        let answer = self.http.execute(request).await;
        let mut answer = answer.map_err(|error| ClientError::RequestError { source: error.into(), url, method })?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| ended(error.into()))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(ended(anyhow::anyhow!("its answer is longer than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        let mut read = Response::new(body);
        *read.status_mut() = answer.status();
        std::mem::swap(read.headers_mut(), answer.headers_mut());
        Ok(read)
    }

    fn base(&self) -> &str {
        &self.base
    }
}

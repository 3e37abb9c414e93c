//! A client of one of AWS's services: made by AWS's own chain of settings and credentials, over our HTTP; a budget of calls, and what
//! answers mean.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::IdentityCache;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::http;
use crate::keys::provider::DEADLINE;
use crate::keys::{Failed, Fault};
use crate::said::shortened;

// Deadlines from the inside out. Each is below the next, so that whoever knows best what is amiss says so.

/// To a connection.
const CONNECTED: Duration = Duration::from_millis(700);

/// For a region and credentials to be found, or for new credentials.
const FOUND: Duration = Duration::from_millis(1_300);

/// One call. Attempts are those of every provider, so the SDK makes one.
const CALL: Duration = Duration::from_millis(1_600);

/// All calls of one operation.
const OPERATION: Duration = Duration::from_millis(1_900);

const _: () = assert!(CONNECTED.as_millis() < FOUND.as_millis() && FOUND.as_millis() < CALL.as_millis());
const _: () = assert!(CALL.as_millis() < OPERATION.as_millis() && OPERATION.as_millis() < DEADLINE.as_millis());

/// Calls at once, and calls a second after those, of each root key and of the store. A thousand keysets read every minute need 19.
const BURST: f64 = 200.0;
const RATE: f64 = 50.0;

/// Longest wait for a call that the budget allows.
const PATIENCE: Duration = Duration::from_millis(300);

/// When an operation that begins now must have ended.
pub(super) fn until() -> Instant {
    Instant::now() + OPERATION
}

/// A client, made when it is first asked for: its connections belong to that runtime.
pub(super) struct Service<C> {
    shown: String,
    region: Option<String>,
    make: fn(&SdkConfig) -> C,
    made: Mutex<Arc<OnceCell<C>>>,
    budget: Mutex<Budget>,
}

impl<C: Clone> Service<C> {
    /// `region` is where it is, if its name says so.
    pub(super) fn new(shown: String, region: Option<String>, make: fn(&SdkConfig) -> C) -> Self {
        Self { shown, region, make, made: Mutex::default(), budget: Mutex::new(Budget::new(Instant::now())) }
    }

    /// One call of an operation that ends by `until`.
    ///
    /// # Errors
    /// No budget, region or credentials, no answer in time, or what the answer means.
    pub(super) async fn call<T, E, F>(&self, until: Instant, ask: impl FnOnce(C) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let answered = async {
            let client = self.client().await?;
            ask(client).await.map_err(|error| self.because(&error))
        };
        let slow = |_| Err(self.failed(Fault::Unreachable, SLOW));
        timeout_at(until, answered).await.unwrap_or_else(slow)
    }

    /// The client for one call, when the budget has one.
    async fn client(&self) -> Result<C, Failed> {
        let wait = self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        match wait {
            Some(wait) => sleep(wait).await,
            None => return Err(self.failed(Fault::Unreachable, "our own budget of calls is used up for the moment")),
        }
        let made = Arc::clone(&self.made.lock().unwrap_or_else(PoisonError::into_inner));
        made.get_or_try_init(|| self.make()).await.cloned()
    }

    async fn make(&self) -> Result<C, Failed> {
        let slow = |_| self.failed(Fault::Unreachable, NO_CREDENTIALS);
        let config = timeout(FOUND, self.find()).await.map_err(slow)??;
        Ok((self.make)(&config))
    }

    async fn find(&self) -> Result<SdkConfig, Failed> {
        let limits = TimeoutConfig::builder();
        let limits = limits.connect_timeout(CONNECTED).operation_attempt_timeout(CALL).operation_timeout(CALL);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http::client())
            .retry_config(RetryConfig::disabled())
            .identity_cache(IdentityCache::lazy().load_timeout(FOUND).build())
            .timeout_config(limits.build());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(self.failed(Fault::Wrong, "no region: set AWS_REGION"));
        }
        // Asked for here, because a call would not say what is missing.
        let none = || self.failed(Fault::Unreachable, NO_CREDENTIALS);
        let credentials = config.credentials_provider().ok_or_else(none)?;
        credentials.provide_credentials().await.map_err(|_| none())?;
        Ok(config)
    }

    pub(super) fn failed(&self, fault: Fault, why: impl Into<String>) -> Failed {
        Failed { what: self.shown.clone(), fault, why: why.into() }
    }

    /// What an error means. A denial's next call has new credentials: they may say more.
    fn because<E>(&self, error: &SdkError<E>) -> Failed
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let (fault, why) = meaning(error);
        if fault == Fault::Denied {
            *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        }
        self.failed(fault, why)
    }
}

const SLOW: &str = "it does not answer in time";

const NO_CREDENTIALS: &str = "no AWS credentials were found or they could not be fetched: give the pod a role (web identity, ECS, an instance's), or set \
     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE";

fn meaning<E>(error: &SdkError<E>) -> (Fault, String)
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let mut causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    match error {
        SdkError::ServiceError(said) => match said.err().code() {
            Some(code) => of(code, said.err().message().unwrap_or_default()),
            None => (Fault::Unreachable, format!("what answers is not AWS (HTTP {})", said.raw().status().as_u16())),
        },
        _ if causes.any(|cause| cause.is::<CredentialsError>()) => (Fault::Unreachable, NO_CREDENTIALS.to_owned()),
        // What comes before a request is sent are credentials alone.
        SdkError::ConstructionFailure(_) => (Fault::Unreachable, NO_CREDENTIALS.to_owned()),
        SdkError::TimeoutError(_) => (Fault::Unreachable, SLOW.to_owned()),
        SdkError::DispatchFailure(failed) if failed.is_timeout() => (Fault::Unreachable, SLOW.to_owned()),
        SdkError::ResponseError(_) => (Fault::Unreachable, "its answer makes no sense".to_owned()),
        _ => (Fault::Unreachable, "it cannot be reached".to_owned()),
    }
}

/// What an answer means, by its code and, where one code means several things, its message.
fn of(code: &str, message: &str) -> (Fault, String) {
    let said = shortened(message);
    // A key whose hardware is away and one that is to be deleted have one code.
    let deleted = message.to_ascii_lowercase().contains("delet");
    match code {
        "AccessDeniedException" | "AccessDenied" => (Fault::Denied, format!("AWS denies it: {said}")),
        "DisabledException" => (Fault::Denied, format!("the key is disabled: {said}")),
        "KMSInvalidStateException" if deleted => (Fault::Denied, format!("the key is to be deleted: {said}")),
        "NotFoundException" => (Fault::Denied, format!("there is no such key: {said}")),
        "ResourceNotFoundException" => (Fault::Missing, "there is no such secret".to_owned()),
        "InvalidRequestException" if deleted => (
            Fault::Missing,
            "the secret is to be deleted: `aws secretsmanager restore-secret` brings it back".to_owned(),
        ),
        "ResourceExistsException" => (Fault::Conflict, "there is such a secret already".to_owned()),
        "InvalidCiphertextException" | "IncorrectKeyException" => {
            let why = "the key does not open it: it was wrapped by another key, or for another keyset or share";
            (Fault::Wrong, why.to_owned())
        }
        "InvalidKeyUsageException"
        | "InvalidArnException"
        | "ValidationException"
        | "InvalidParameterException"
        | "InvalidRequestException"
        | "DecryptionFailure"
        | "EncryptionFailure" => (Fault::Wrong, format!("AWS refuses it ({code}): {said}")),
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
            let why = "the credentials have expired, or this machine's clock is wrong: give new ones, or set the clock";
            (Fault::Unreachable, why.to_owned())
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken" => {
            (Fault::Unreachable, format!("AWS does not know these credentials ({code}): give others"))
        }
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => {
            (Fault::Unreachable, "AWS throttles: too many calls, by us or by others of this account".to_owned())
        }
        _ => (Fault::Unreachable, format!("AWS answers {}: {said}", shortened(code))),
    }
}

/// Calls that may still be made.
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(at: Instant) -> Self {
        Self { left: BURST, at }
    }

    /// Takes a call. How long to wait before it is made; none where that would be too long.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * RATE;
        (self.left, self.at) = ((self.left + gained).min(BURST), now);
        let wait = Duration::from_secs_f64(((1.0 - self.left) / RATE).max(0.0));
        (wait <= PATIENCE).then(|| {
            self.left -= 1.0;
            wait
        })
    }
}

impl<C> fmt::Debug for Service<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_budget_lets_a_burst_through_then_its_rate_and_refuses_what_would_wait_for_too_long() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        let waits: Vec<Option<Duration>> = (0..260).map(|_| budget.take(begun)).collect();
        assert!(waits[..200].iter().all(|wait| *wait == Some(Duration::ZERO)));
        assert!(waits[200..215].windows(2).all(|two| two[0] < two[1]) && waits[214].is_some());
        assert_eq!(waits.iter().flatten().count(), 215, "no call waits for longer than its operation could");
        assert_eq!(budget.take(begun + Duration::from_secs(10)), Some(Duration::ZERO));
    }

    #[test]
    fn only_what_is_said_of_this_key_denies_it() {
        for (code, message, fault) in [
            ("AccessDeniedException", "", Fault::Denied),
            ("DisabledException", "", Fault::Denied),
            ("NotFoundException", "", Fault::Denied),
            ("KMSInvalidStateException", "arn is pending deletion.", Fault::Denied),
            ("KMSInvalidStateException", "arn is unavailable.", Fault::Unreachable),
            ("InvalidCiphertextException", "", Fault::Wrong),
            ("IncorrectKeyException", "", Fault::Wrong),
            ("ThrottlingException", "", Fault::Unreachable),
            ("ExpiredTokenException", "", Fault::Unreachable),
            ("UnrecognizedClientException", "", Fault::Unreachable),
            ("KMSInternalException", "", Fault::Unreachable),
            ("KeyUnavailableException", "", Fault::Unreachable),
            ("SomethingNew", "", Fault::Unreachable),
            ("ResourceNotFoundException", "", Fault::Missing),
            ("InvalidRequestException", "it was marked for deletion", Fault::Missing),
            ("InvalidRequestException", "", Fault::Wrong),
        ] {
            assert_eq!(of(code, message).0, fault, "{code}: {message}");
        }
    }
}

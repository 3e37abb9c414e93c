//! HTTP to AWS and to whoever gives credentials: the SDK's own, on ring, of whose answers no more is read than an answer can have.

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use http_body_util::Limited;

/// The most that is read of an answer. A secret has 64 KiB, a page of a hundred secrets with all that may be said of them 1 MiB.
const LONGEST: usize = 4 << 20;

/// The client.
pub(crate) fn client() -> SharedHttpClient {
    // ring, said explicitly: the SDK's default would bring another crypto library.
    SharedHttpClient::new(Bounded(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()))
}

/// What it wraps has no bound of its own: an answer without an end would fill the memory until its deadline.
#[derive(Debug)]
struct Bounded<T>(T);

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, parts: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Bounded(self.0.http_connector(settings, parts)))
    }

    fn validate_base_client_config(
        &self,
        parts: &RuntimeComponentsBuilder,
        settings: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.validate_base_client_config(parts, settings)
    }

    fn validate_final_config(&self, parts: &RuntimeComponents, settings: &ConfigBag) -> Result<(), BoxError> {
        self.0.validate_final_config(parts, settings)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            Ok(answer.await?.map(|body| SdkBody::from_body_1_x(Limited::new(body, LONGEST))))
        })
    }
}

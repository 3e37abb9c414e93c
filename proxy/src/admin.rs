//! Admin, metrics and health: small HTTP/1.1 servers on the control thread, so that a slow scrape costs no request.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use oilskin_config::{Bind, Service};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::certs;
use crate::listen::{self, Bound, Listening};
use crate::ready::Readiness;
use crate::telemetry::Metrics;
use crate::tls::Identities;

/// Connections to one of these servers at once.
const CONNECTIONS: usize = 64;

/// A peer that does not send its request in time is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What one server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Everything,
    Metrics,
    Health,
}

/// Its sockets, bound.
pub(crate) struct Servers(Vec<(Shows, Bound)>);

/// What they show it from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) identities: Arc<Identities>,
}

/// Binds what is configured.
///
/// # Errors
/// The address that cannot be had, and why.
pub(crate) fn bind(service: &Service) -> Result<Servers, (Bind, io::Error)> {
    let wanted =
        [(Shows::Everything, &service.admin), (Shows::Metrics, &service.metrics), (Shows::Health, &service.health)];
    let mut servers = Vec::new();
    for (shows, bind) in wanted {
        if let Some(bind) = bind {
            servers.push((shows, listen::bind(bind).map_err(|error| (bind.clone(), error))?));
        }
    }
    Ok(Servers(servers))
}

impl Servers {
    /// Where metrics are read.
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        self.0.iter().find(|(shows, _)| *shows == Shows::Metrics).and_then(|(_, bound)| bound.address())
    }

    /// Where health is asked.
    pub(crate) fn health_address(&self) -> Option<SocketAddr> {
        self.0.iter().find(|(shows, _)| *shows == Shows::Health).and_then(|(_, bound)| bound.address())
    }

    /// Serves them until `tasks` is dropped.
    ///
    /// # Errors
    /// A socket that cannot be registered with the runtime.
    pub(crate) fn serve(self, source: &Source, tasks: &mut JoinSet<()>) -> io::Result<()> {
        for (shows, bound) in self.0 {
            tasks.spawn(accept(Listening::new(bound)?, shows, source.clone()));
        }
        Ok(())
    }
}

async fn accept(listening: Listening, shows: Shows, source: Source) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok(stream) = listening.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let source = source.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(shows, &source, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(100);
            // A peer that leaves is no one to tell.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

fn answer(shows: Shows, source: &Source, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let everything = shows == Shows::Everything;
    let path = request.uri().path();
    let known = match path {
        "/" | "/version" | "/certs" | "/keys" => everything,
        "/metrics" => everything || shows == Shows::Metrics,
        "/live" | "/ready" => everything || shows == Shows::Health,
        _ => false,
    };
    if !known {
        return json(StatusCode::NOT_FOUND, r#"{"error":"not found"}"#.to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"use GET"}"#.to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => with_type(StatusCode::OK, Metrics::MEDIA_TYPE, source.metrics.text()),
        "/certs" => json(StatusCode::OK, certs::document(&source.identities).to_string()),
        "/keys" => json(StatusCode::OK, source.readiness.keyrings().document().to_string()),
        "/ready" => match source.readiness.reason().or_else(|| source.identities.unusable()) {
            None => json(StatusCode::OK, r#"{"ready":true}"#.to_owned()),
            Some(reason) => {
                let document = serde_json::json!({"ready": false, "reason": reason});
                json(StatusCode::SERVICE_UNAVAILABLE, document.to_string())
            }
        },
        "/live" => json(StatusCode::OK, r#"{"live":true}"#.to_owned()),
        "/version" => json(StatusCode::OK, format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION"))),
        _ => json(
            StatusCode::OK,
            r#"{"endpoints":["/live","/ready","/metrics","/certs","/keys","/version"]}"#.to_owned(),
        ),
    }
}

fn json(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    with_type(status, "application/json", text)
}

fn with_type(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

//! `dev`'s upstream: a small JSON document store that shows what it is given. It knows nothing of Oilskin.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Longest document it takes, in bytes.
const MAX_BODY: usize = 1 << 20;

/// Documents it keeps; it is a demonstration.
const MAX_DOCUMENTS: usize = 10_000;

/// The bound store.
pub(super) struct Demo {
    socket: TcpListener,
    address: SocketAddr,
}

/// What it holds, and whether it says so.
struct Documents {
    kept: Mutex<BTreeMap<String, Value>>,
    quiet: bool,
}

impl Demo {
    /// Binds; loopback only.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the demo upstream listens on loopback only"));
        }
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { address: socket.local_addr()?, socket })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on a thread of its own for as long as the process lives.
    pub(super) fn start(self, quiet: bool) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let documents = Arc::new(Documents { kept: Mutex::default(), quiet });
        std::thread::Builder::new().name("demo".to_owned()).spawn(move || {
            runtime.block_on(async move {
                if let Ok(socket) = tokio::net::TcpListener::from_std(self.socket) {
                    accept(socket, documents).await;
                }
            });
        })?;
        Ok(())
    }
}

async fn accept(socket: tokio::net::TcpListener, documents: Arc<Documents>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let documents = Arc::clone(&documents);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let documents = Arc::clone(&documents);
                async move { Ok::<_, Infallible>(answer(&documents, request).await) }
            });
            // A peer that leaves is no one to tell.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(documents: &Documents, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let rest = head.uri.path().strip_prefix("/customers").map(|rest| rest.trim_matches('/'));
    let Some(id) = rest.filter(|id| !id.contains('/')) else {
        return reply(StatusCode::NOT_FOUND, &json!({"error": "try /customers or /customers/1"}));
    };
    match (&head.method, id) {
        (&Method::GET | &Method::HEAD, "") => documents.list(),
        (&Method::GET | &Method::HEAD, id) => documents.read(id),
        (&Method::POST | &Method::PUT | &Method::PATCH, id) if head.method == Method::POST || !id.is_empty() => {
            match document(body).await {
                Ok(document) => documents.write(&head.method, id, document),
                Err(error) => reply(StatusCode::BAD_REQUEST, &json!({"error": error})),
            }
        }
        _ => {
            let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "use GET, POST, PUT or PATCH"}));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH"));
            response
        }
    }
}

async fn document(body: Incoming) -> Result<Value, &'static str> {
    let bytes = Limited::new(body, MAX_BODY).collect().await.map_err(|_| "the body is longer than 1 MiB or was cut")?;
    match serde_json::from_slice(&bytes.to_bytes()) {
        Ok(document @ Value::Object(_)) => Ok(document),
        _ => Err("the body must be a JSON object"),
    }
}

impl Documents {
    fn list(&self) -> Response<Full<Bytes>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        reply(StatusCode::OK, &Value::from(kept.values().cloned().collect::<Vec<_>>()))
    }

    fn read(&self, id: &str) -> Response<Full<Bytes>> {
        match self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            Some(document) => reply(StatusCode::OK, document),
            None => reply(StatusCode::NOT_FOUND, &json!({"error": "there is no such customer"})),
        }
    }

    fn write(&self, method: &Method, id: &str, document: Value) -> Response<Full<Bytes>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = if id.is_empty() { free_id(&kept) } else { id.to_owned() };
        let known = kept.contains_key(&id);
        if !known && kept.len() >= MAX_DOCUMENTS {
            return reply(StatusCode::INSUFFICIENT_STORAGE, &json!({"error": "the demo store is full"}));
        }
        let stored = if *method == Method::PATCH {
            let Some(mut stored) = kept.get(&id).cloned() else {
                return reply(StatusCode::NOT_FOUND, &json!({"error": "there is no such customer"}));
            };
            merge(&mut stored, document);
            stored
        } else {
            document
        };
        if !self.quiet {
            let _ = writeln!(io::stdout().lock(), "store  {method} /customers/{}  {stored}", id.escape_debug());
        }
        kept.insert(id.clone(), stored.clone());
        let mut response = reply(if known { StatusCode::OK } else { StatusCode::CREATED }, &stored);
        if !known && let Ok(place) = HeaderValue::try_from(format!("/customers/{id}")) {
            response.headers_mut().insert(LOCATION, place);
        }
        response
    }
}

fn free_id(kept: &BTreeMap<String, Value>) -> String {
    let mut id = kept.len() + 1;
    while kept.contains_key(&id.to_string()) {
        id += 1;
    }
    id.to_string()
}

/// JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(&name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

fn reply(status: StatusCode, document: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{document}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_is_rfc_7396s() {
        let mut target = json!({"a": "b", "c": {"d": "e", "f": "g"}});
        merge(&mut target, json!({"a": "z", "c": {"f": null}}));
        assert_eq!(target, json!({"a": "z", "c": {"d": "e"}}));
        let mut target = json!(["a"]);
        merge(&mut target, json!({"a": {"bb": {"ccc": null}}}));
        assert_eq!(target, json!({"a": {"bb": {}}}));
    }
}

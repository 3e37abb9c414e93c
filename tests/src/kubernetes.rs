//! As much of a Kubernetes API server as Secrets need: it knows who asks, and takes a change only of what was read.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::message::Message;
use crate::upstream::{Then, Upstream, respond};

/// The token of the one account there is.
const TOKEN: &str = "token-of-a-test";

/// Bytes that a Secret holds at most, all its members together.
const LARGEST: usize = 1 << 20;

/// Objects in one answer to a list, whatever was asked for.
const PAGE: usize = 2;

/// A running server, and a kubeconfig for it.
pub struct Kubernetes {
    folder: TempDir,
    state: Arc<Mutex<State>>,
    server: Upstream,
}

#[derive(Default)]
struct State {
    secrets: BTreeMap<String, Value>,
    version: u64,
    /// What everything is answered with instead.
    refuses: Option<(u16, &'static str)>,
}

impl Kubernetes {
    /// Starts one with no Secrets in its one namespace, `crm`.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let served = Arc::clone(&state);
        let server = Upstream::scripted(move |request, stream| answer(&mut served.lock().unwrap(), request, stream));
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server.url()}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
        Self { folder, state, server }
    }

    /// `KUBECONFIG`.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Everything is answered with this status and reason; none is as usual.
    pub fn refuse(&self, with: Option<(u16, &'static str)>) {
        self.state.lock().unwrap().refuses = with;
    }

    /// A Secret as it is now.
    pub fn secret(&self, name: &str) -> Option<Value> {
        self.state.lock().unwrap().secrets.get(name).cloned()
    }

    /// Changes a Secret as another client does.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock().unwrap();
        let mut secret = state.secrets.get(name).cloned().unwrap();
        change(&mut secret);
        state.put(name, secret);
    }

    /// A member of a Secret.
    pub fn member(&self, name: &str, member: &str) -> Vec<u8> {
        STANDARD.decode(self.secret(name).unwrap()["data"][member].as_str().unwrap()).unwrap()
    }

    /// Methods and paths that were asked for.
    pub fn seen(&self) -> Vec<String> {
        self.server.seen().iter().map(|request| format!("{} {}", request.method(), request.target())).collect()
    }
}

impl State {
    fn put(&mut self, name: &str, mut secret: Value) -> Value {
        self.version += 1;
        secret["apiVersion"] = "v1".into();
        secret["kind"] = "Secret".into();
        secret["metadata"]["namespace"] = "crm".into();
        secret["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.secrets.insert(name.to_owned(), secret.clone());
        secret
    }
}

fn answer(state: &mut State, request: &Message, stream: &mut TcpStream) -> Then {
    let (code, document) = judged(state, request);
    let status = match code {
        200 => "200 OK".to_owned(),
        code => format!("{code} Said"),
    };
    respond(stream, &status, &[("Content-Type", "application/json")], document.to_string().as_bytes())
}

fn judged(state: &mut State, request: &Message) -> (u16, Value) {
    if let Some((code, reason)) = state.refuses {
        return refused(code, reason);
    }
    if request.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return refused(401, "Unauthorized");
    }
    let (path, query) = request.target().split_once('?').unwrap_or((request.target(), ""));
    let Some(name) = path.strip_prefix("/api/v1/namespaces/crm/secrets") else { return refused(403, "Forbidden") };
    let name = name.trim_start_matches('/');
    match (request.method(), name.is_empty()) {
        ("GET", true) => (200, listed(state, query)),
        ("GET", false) => match state.secrets.get(name) {
            Some(secret) => (200, secret.clone()),
            None => refused(404, "NotFound"),
        },
        ("POST", true) => {
            let secret: Value = serde_json::from_slice(&request.body).unwrap();
            let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
            if let Some(refused) = too_long(&secret) {
                return refused;
            }
            match state.secrets.contains_key(&name) {
                true => refused(409, "AlreadyExists"),
                false => (201, state.put(&name, secret)),
            }
        }
        ("PUT", false) => {
            let secret: Value = serde_json::from_slice(&request.body).unwrap();
            let Some(held) = state.secrets.get(name) else { return refused(404, "NotFound") };
            if let Some(refused) = too_long(&secret) {
                return refused;
            }
            match held["metadata"]["resourceVersion"] == secret["metadata"]["resourceVersion"] {
                true => (200, state.put(name, secret)),
                false => refused(409, "Conflict"),
            }
        }
        _ => refused(405, "MethodNotAllowed"),
    }
}

/// As the API server's validation says it.
fn too_long(secret: &Value) -> Option<(u16, Value)> {
    let members = secret["data"].as_object().into_iter().flat_map(|data| data.values());
    let bytes: usize = members.map(|member| STANDARD.decode(member.as_str().unwrap()).unwrap().len()).sum();
    let (code, mut status) = refused(422, "Invalid");
    let name = secret["metadata"]["name"].as_str().unwrap();
    status["message"] =
        format!("Secret \"{name}\" is invalid: data: Too long: may not be more than {LARGEST} bytes").into();
    (bytes > LARGEST).then_some((code, status))
}

/// A page of those that carry the label asked for.
fn listed(state: &State, query: &str) -> Value {
    let parameter = |name: &str| {
        let found = query.split('&').filter_map(|part| part.split_once('=')).find(|(found, _)| *found == name);
        found.map(|(_, value)| value.replace("%2F", "/").replace("%3D", "="))
    };
    let label = parameter("labelSelector").unwrap();
    let (key, value) = label.split_once('=').unwrap();
    let after = parameter("continue").unwrap_or_default();
    let of = state.secrets.iter().filter(|(_, secret)| secret["metadata"]["labels"][key] == value);
    let rest: Vec<_> = of.filter(|(name, _)| **name > after).collect();
    let items: Vec<Value> = rest
        .iter()
        .take(PAGE)
        .map(|(_, secret)| json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": secret["metadata"]}))
        .collect();
    let more = if rest.len() > PAGE { rest[PAGE - 1].0.as_str() } else { "" };
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
        "metadata": {"resourceVersion": state.version.to_string(), "continue": more}, "items": items,
    })
}

fn refused(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": format!("refused: {reason}"), "metadata": {},
    });
    (code, status)
}

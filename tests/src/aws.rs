//! Servers that answer like AWS: ministack, whose KMS and Secrets Manager refuse what the real ones refuse, behind a front that can
//! refuse more; and moto, for STS and for breadth.

use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::aws_hostile::Harm;
use crate::client::Client;
use crate::message::Message;
use crate::process::free_port;
use crate::tools::{self, Killed};
use crate::upstream::{Then, Upstream, respond};

/// The region of every test.
pub const REGION: &str = "us-east-1";

/// What a front does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    /// It passes everything on.
    Open,
    /// It answers with this error, of so many requests; then it passes everything on.
    Refuse(&'static str, usize),
    /// It answers these calls so, and passes others on.
    Deny(&'static str),
    /// It ends every connection without an answer.
    Gone,
    /// It does this to calls whose target begins so (`TrentService`, `secretsmanager`), and passes others on.
    Harm(&'static str, Harm),
}

/// What stands before a server and sees what comes.
pub struct Door {
    state: Arc<Mutex<Front>>,
    front: Upstream,
}

impl Door {
    fn before(address: SocketAddr) -> Self {
        let state = Arc::new(Mutex::new(Front::Open));
        let served = Arc::clone(&state);
        Self { state, front: Upstream::scripted(move |request, stream| answer(address, &served, request, stream)) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.front.address()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.front.url()
    }

    /// The variables by which a process finds it.
    pub fn vars(&self) -> Vec<(String, String)> {
        let mut vars = endpoints(&self.front.url());
        for (name, value) in [
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "secret-of-a-test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            vars.push((name.to_owned(), value.to_owned()));
        }
        vars
    }

    /// What it does from now on.
    pub fn front(&self, does: Front) {
        *self.state.lock().unwrap() = does;
    }

    /// What it does now.
    pub fn does(&self) -> Front {
        self.state.lock().unwrap().clone()
    }

    /// What came for this call, `Decrypt` for one; all calls where it is empty.
    pub fn seen(&self, call: &str) -> Vec<Message> {
        let is = |request: &Message| request.header("x-amz-target").is_some_and(|target| target.ends_with(call));
        self.front.seen().into_iter().filter(is).collect()
    }
}

/// The variables that send a process there.
pub fn endpoints(url: &str) -> Vec<(String, String)> {
    ["KMS", "SECRETS_MANAGER", "STS"].map(|service| (format!("AWS_ENDPOINT_URL_{service}"), url.to_owned())).into()
}

/// A running server and its door.
pub struct Aws {
    _child: Killed,
    _folder: TempDir,
    address: SocketAddr,
    door: Door,
}

impl std::ops::Deref for Aws {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Aws {
    /// ministack.
    pub fn start() -> Self {
        Self::of(&["-m", "ministack"], "/_ministack/health")
    }

    /// moto.
    pub fn moto() -> Self {
        Self::of(&["-m", "moto.server"], "/moto-api/")
    }

    fn of(words: &[&str], health: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let port = address.port().to_string();
        let mut command = tools::python();
        // The one reads its port from the environment, the other from its words.
        command.args(words).env("GATEWAY_PORT", &port).env("HOME", folder.path()).current_dir(folder.path());
        if words.contains(&"moto.server") {
            command.args(["-H", "127.0.0.1", "-p", &port]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = Killed(command.spawn().unwrap());
        tools::until("an AWS of a test", || {
            TcpStream::connect(address).ok()?;
            let answer = Client::connect(address).request("GET", health, &[], b"");
            (answer.status() == 200).then_some(())
        });
        Self { _child: child, _folder: folder, address, door: Door::before(address) }
    }

    /// Another door before the same server.
    pub fn another_door(&self) -> Door {
        Door::before(self.address)
    }

    /// Calls it past its door; `target` is `TrentService.CreateKey`, for one.
    pub fn call(&self, target: &str, words: &Value) -> Value {
        let service = if target.starts_with("Trent") { "kms" } else { "secretsmanager" };
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=00"
        );
        let fields =
            [("X-Amz-Target", target), ("Content-Type", "application/x-amz-json-1.1"), ("Authorization", &signed)];
        let answer = Client::connect(self.address).request("POST", "/", &fields, words.to_string().as_bytes());
        let text = answer.text();
        let mut answered: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if answer.status() != 200 {
            answered["refused"] = text.into();
        }
        answered
    }

    /// Calls KMS.
    pub fn kms(&self, call: &str, words: &Value) -> Value {
        self.call(&format!("TrentService.{call}"), words)
    }

    /// Calls Secrets Manager.
    pub fn secrets(&self, call: &str, words: &Value) -> Value {
        self.call(&format!("secretsmanager.{call}"), words)
    }

    /// A new key with this alias; returns its ARN.
    pub fn key(&self, alias: &str) -> String {
        let made = self.kms("CreateKey", &json!({}));
        let key = &made["KeyMetadata"];
        self.kms("CreateAlias", &json!({"AliasName": format!("alias/{alias}"), "TargetKeyId": key["KeyId"]}));
        key["Arn"].as_str().unwrap().to_owned()
    }

    /// What a secret holds.
    pub fn secret(&self, name: &str) -> String {
        let read = self.secrets("GetSecretValue", &json!({"SecretId": name}));
        read["SecretString"].as_str().unwrap_or_else(|| panic!("{read}")).to_owned()
    }

    /// The stages of all of its versions.
    pub fn stages(&self, name: &str) -> Vec<String> {
        let described = self.secrets("DescribeSecret", &json!({"SecretId": name}));
        let versions = described["VersionIdsToStages"].as_object().unwrap().values();
        let mut stages: Vec<String> = versions
            .flat_map(|stages| stages.as_array().unwrap())
            .map(|stage| stage.as_str().unwrap().to_owned())
            .collect();
        stages.sort();
        stages
    }
}

fn answer(behind: SocketAddr, state: &Mutex<Front>, request: &Message, stream: &mut TcpStream) -> Then {
    let refuse = |code: &str, stream: &mut TcpStream| {
        let body = json!({"__type": code, "message": "told to"}).to_string();
        let fields = [("Content-Type", "application/x-amz-json-1.1"), ("X-Amzn-ErrorType", code)];
        respond(stream, "400 Bad Request", &fields, body.as_bytes())
    };
    {
        let mut state = state.lock().unwrap();
        match &mut *state {
            Front::Open => {}
            Front::Gone => return Then::Close,
            Front::Harm(calls, harm) => {
                let (calls, harm) = (*calls, *harm);
                if request.header("x-amz-target").is_some_and(|target| target.starts_with(calls)) {
                    drop(state);
                    return harm.done(stream);
                }
            }
            Front::Refuse(code, times) => {
                let code = *code;
                *times -= 1;
                if *times == 0 {
                    *state = Front::Open;
                }
                return refuse(code, stream);
            }
            Front::Deny(call) => {
                if request.header("x-amz-target").is_some_and(|target| target.ends_with(*call)) {
                    return refuse("AccessDeniedException", stream);
                }
            }
        }
    }
    let passed = ["x-amz-target", "content-type", "authorization", "x-amz-security-token"];
    let fields: Vec<(&str, &str)> =
        passed.iter().filter_map(|name| request.header(name).map(|value| (*name, value))).collect();
    let answer = Client::connect(behind).request(request.method(), request.target(), &fields, &request.body);
    let fields: Vec<(&str, &str)> = ["content-type", "x-amzn-errortype"]
        .iter()
        .filter_map(|name| answer.header(name).map(|value| (*name, value)))
        .collect();
    respond(stream, &format!("{} Told", answer.status()), &fields, &answer.body)
}

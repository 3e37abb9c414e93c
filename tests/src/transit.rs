//! A real OpenBao whose transit engine holds the keys of fields, and sidecars before it.

use serde_json::Value;

use crate::certificates::{Authority, Wish};
use crate::client::json;
use crate::keys::Keys;
use crate::process::{self, Process};
use crate::vault::{ROOT, Vault};
use crate::{Upstream, tools};

/// The key that fields are encrypted with.
pub const PII: &str = "vault:transit/keys/pii";

/// An OpenBao with transit and a derived key in it.
pub struct Bench {
    /// The server.
    pub vault: Vault,
    authority: Authority,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// Starts it.
    pub fn new() -> Self {
        let authority = Authority::new();
        authority.issue("server", &Wish::default());
        let vault = Vault::start(&authority);
        vault.transit_with("pii", "derived=true");
        Self { vault, authority }
    }

    /// Who issued its certificate, and whom its clients need one of.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A sidecar with these variables, ready.
    pub fn start(&self, vars: &[(&str, &str)]) -> Process {
        let process = self.begin(vars);
        tools::until("a key that can be used", || is_ready(&process).then_some(()));
        process
    }

    /// The same, which may never be ready.
    pub fn begin(&self, vars: &[(&str, &str)]) -> Process {
        let mut command = without_keys();
        command.env("VAULT_ADDR", self.vault.url()).env("VAULT_TOKEN", ROOT);
        Process::start_as(command, vars)
    }

    /// All of the fields `$.ssn` and `$.list[*]`.
    pub fn before(&self, upstream: &Upstream) -> Process {
        self.start(&[
            ("OILSKIN_UPSTREAM", &upstream.url()),
            ("OILSKIN_FIELDS", "$.ssn, $.list[*] context=list"),
            ("OILSKIN_BACKEND", PII),
        ])
    }

    /// A configuration with one route, whose rules these are.
    pub fn document(&self, upstream: &Upstream, fields: &str) -> String {
        format!(
            "listeners: [{{name: out, bind: \"127.0.0.1:0\"}}]\nupstreams: {{a: {{url: \"{}\"}}}}\n\
             routes: [{{name: r, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: a, tenant: {{header: x-tenant}}, fields: [{fields}]}}]\n",
            upstream.url()
        )
    }
}

/// Whether it says so.
pub fn is_ready(process: &Process) -> bool {
    json(process.health, "GET", "/ready", "").status() == 200
}

/// The program with no keys of its own.
pub fn without_keys() -> std::process::Command {
    let mut command = process::command(&Keys::new());
    command.env_remove("OILSKIN_ROOT_KEY").env_remove("OILSKIN_KEY_STORE");
    command
}

/// What the upstream was sent last.
pub fn sent(upstream: &Upstream) -> Value {
    serde_json::from_slice(&upstream.seen().last().unwrap().body).unwrap()
}

/// A member that is a string.
pub fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

/// Calls of that operation that went well.
pub fn calls(process: &Process, operation: &str) -> u64 {
    let page = process.metrics_page();
    let mut lines = page.lines().filter(|line| line.starts_with("oilskin_provider_requests_total{"));
    let wanted = [format!("op=\"{operation}\""), "result=\"ok\"".to_owned()];
    let line = lines.find(|line| wanted.iter().all(|label| line.contains(label)));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// The log line that holds this code.
pub fn reason(process: &Process, code: &str) -> String {
    process.logged(|line| line.contains(&format!("\"{code}\"")))
}

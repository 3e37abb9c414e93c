//! An OpenBao on a disk, which unseals itself: stopped or killed, and started again, it is the same one at the same place.

use std::borrow::Borrow;
use std::ops::Deref;
use std::process::Command;

use serde_json::Value;

use super::{ROOT, Vault};
use crate::certificates::Authority;
use crate::tools;

/// A server whose storage is Raft, of itself alone, and whose seal is a key in a file. It has all that [`Vault`] has, its tokens, keys and
/// secrets outlive it, and [`ROOT`] is its root's token from the first start to the last.
#[derive(Debug)]
pub struct Durable(Vault);

impl Durable {
    /// Starts one, with nothing in it yet but the KV engine at `secret` that [`Vault`] has, too.
    pub fn start(authority: &Authority) -> Self {
        let mut this = Self::configured(authority, "one", "");
        this.0.serve(&[]);
        let words = ["operator", "init", "-format=json", "-recovery-shares=1", "-recovery-threshold=1"];
        let text = tools::until("OpenBao to be initialised", || this.try_bao(&words).ok());
        let made: Value = serde_json::from_str(&text).unwrap();
        let token = made["root_token"].as_str().unwrap();
        let create = ["token", "create", "-policy=root", "-orphan", &format!("-id={ROOT}")];
        tools::until("OpenBao to be active", || this.by(token, &create).ok());
        this.bao(&["secrets", "enable", "-path=secret", "-version=2", "kv"]);
        tools::until("the KV engine", || this.try_bao(&["kv", "put", "secret/started", "a=b"]).ok());
        this
    }

    /// Another server of that one's cluster: its standby, once it serves.
    pub fn standby(&self, authority: &Authority) -> Self {
        let join = format!("retry_join {{\n leader_api_addr = \"{}\"\n}}\n", self.url());
        let mut this = Self::configured(authority, "two", &join);
        this.0.serve(&[]);
        // It has to have heard of the token, which its leader has.
        tools::until("a standby", || this.try_bao(&["token", "lookup"]).ok());
        this
    }

    fn configured(authority: &Authority, node: &str, join: &str) -> Self {
        let cluster = crate::process::free_port();
        let this = Self(Vault::configured(authority, |vault| {
            format!(
                "storage \"raft\" {{\n path = \"{data}\"\n node_id = \"{node}\"\n performance_multiplier = 1\n{join}}}\n\
                 seal \"static\" {{\n current_key_id = \"1\"\n current_key = \"file://{key}\"\n}}\n\
                 listener \"tcp\" {{\n address = \"{address}\"\n cluster_address = \"{cluster}\"\n tls_disable = true\n}}\n\
                 api_addr = \"http://{address}\"\ncluster_addr = \"http://{cluster}\"\n",
                data = vault.path("data"),
                key = vault.path("seal.key"),
                address = vault.address,
            )
        }));
        std::fs::create_dir(this.path("data")).unwrap();
        std::fs::write(this.path("seal.key"), [0x5e; 32]).unwrap();
        this
    }

    /// Ends it as an operator does.
    pub fn stop(&mut self) {
        if let Some(child) = &mut self.0.child {
            tools::run(Command::new("kill").args(["-TERM", &child.0.id().to_string()]));
            child.0.wait().unwrap();
        }
        self.0.down();
    }

    /// Ends it as a machine that goes down does.
    pub fn kill(&mut self) {
        self.0.down();
    }

    /// Starts it again, with everything it had, where it was; returns once it serves.
    pub fn up(&mut self) {
        self.0.serve(&[]);
        // Unsealed is not yet active: until it leads its cluster of one it takes no writes.
        tools::until("OpenBao to be active", || self.try_bao(&["kv", "put", "secret/started", "a=b"]).ok());
    }
}

impl Deref for Durable {
    type Target = Vault;

    fn deref(&self) -> &Vault {
        &self.0
    }
}

impl Borrow<Vault> for Durable {
    fn borrow(&self) -> &Vault {
        &self.0
    }
}

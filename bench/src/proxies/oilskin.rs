//! The release binary as a process: its settings, keys, and where it listens.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use oilskin_crypto::document::{self, NewKeyset};
use oilskin_crypto::{Cipher, FileRoot, Slab};
use serde_json::Value;

use crate::answer::Client;
use crate::certificates::Tls;
use crate::messages::{FIELDS, REQUEST, post};
use crate::process::{Core, Running};
use crate::tools;

/// A cipher of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alg {
    XChaCha,
    Aegis,
}

impl Alg {
    pub(crate) const ALL: [Self; 2] = [Self::XChaCha, Self::Aegis];

    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::XChaCha => "XChaCha",
            Self::Aegis => "AEGIS",
        }
    }

    /// Where the origin answers tokens of it.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::XChaCha => "/tokens/xchacha",
            Self::Aegis => "/tokens/aegis",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::XChaCha => "xchacha20-poly1305",
            Self::Aegis => "aegis-256",
        }
    }
}

/// A keyset on disk.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: String,
    store: String,
}

impl Keys {
    /// Makes one in a folder of its own.
    pub(crate) fn make(alg: Alg, folder: &Path) -> Result<Self> {
        Self::make_with(alg, folder, &[])
    }

    /// The same with settings that its document keeps.
    pub(crate) fn make_with(alg: Alg, folder: &Path, more: &[(&str, &str)]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let uri = |name: &str| format!("file:{}", folder.join(name).display());
        let keys = Self { root: uri("root.key"), store: uri("keys") };
        let mut command = Command::new(tools::oilskin()?);
        tools::output(command.env_clear().envs(keys.vars()).envs(more.iter().copied()).args([
            "keys",
            "init",
            "--alg",
            alg.word(),
        ]))?;
        Ok(keys)
    }

    /// Keysets `t0`, `t1` … of as many tenants under one root.
    pub(crate) fn tenants(folder: &Path, count: usize) -> Result<Self> {
        let keys = Self::make(Alg::XChaCha, folder)?;
        let slab = Slab::new(4096, true)?;
        let root = [FileRoot::read(&folder.join("root.key"), &slab)?];
        for number in 0..count {
            let name = &format!("t{number}");
            let new = NewKeyset {
                name,
                cipher: Cipher::XChaCha20Poly1305,
                development: false,
                refresh: 60,
                now: 1_700_000_000,
            };
            let made = document::files::create(new, 1, &root, &slab)?;
            fs::write(folder.join(format!("keys/{name}.json")), made)?;
        }
        Ok(keys)
    }

    /// Its variables.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 2] {
        self.vars()
    }

    fn vars(&self) -> [(&'static str, &str); 2] {
        [("OILSKIN_ROOT_KEY", &self.root), ("OILSKIN_KEY_STORE", &self.store)]
    }
}

/// What a process is started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    vars: Vec<(&'static str, String)>,
    /// Words before the program's own: what it runs under.
    under: Vec<PathBuf>,
}

impl Settings {
    fn base() -> Self {
        let off = ["OILSKIN_ADMIN_LISTEN", "OILSKIN_METRICS_LISTEN", "OILSKIN_HEALTH_LISTEN"];
        let mut settings = Self { vars: Vec::new(), under: Vec::new() };
        settings.vars.extend(off.map(|name| (name, "off".to_owned())));
        settings.var("OILSKIN_WORKERS", "1").var("OILSKIN_LOG_FORMAT", "json")
    }

    pub(crate) fn pass_through(upstream: SocketAddr) -> Self {
        Self::base().var("OILSKIN_LISTEN", "127.0.0.1:0").var("OILSKIN_UPSTREAM", &format!("http://{upstream}"))
    }

    /// With the benchmark's three rules; without keys it does not start, and says so.
    pub(crate) fn fields(upstream: SocketAddr, keys: Option<&Keys>) -> Self {
        let settings = Self::pass_through(upstream).var("OILSKIN_FIELDS", FIELDS);
        keys.into_iter().fold(settings, Self::keys)
    }

    pub(crate) fn document(yaml: &str) -> Self {
        Self::base().var("OILSKIN_CONFIG_YAML", yaml)
    }

    pub(crate) fn keys(mut self, keys: &Keys) -> Self {
        self.vars.extend(keys.vars().map(|(name, value)| (name, value.to_owned())));
        self
    }

    pub(crate) fn var(mut self, name: &'static str, value: &str) -> Self {
        self.vars.retain(|(found, _)| *found != name);
        self.vars.push((name, value.to_owned()));
        self
    }

    /// The listener speaks TLS.
    pub(crate) fn tls(self, tls: Option<Tls<'_>>) -> Self {
        let Some(Tls { certificates, mutual }) = tls else { return self };
        let secured = self
            .var("OILSKIN_TLS_CERT_FILE", &certificates.path("server.pem"))
            .var("OILSKIN_TLS_KEY_FILE", &certificates.path("server.key"));
        match mutual {
            true => secured.var("OILSKIN_TLS_CLIENT_CA_FILE", &certificates.path("ca.pem")),
            false => secured,
        }
    }

    pub(crate) fn under(mut self, words: Vec<PathBuf>) -> Self {
        self.under = words;
        self
    }

    pub(crate) fn command(&self) -> Result<Command> {
        let mut words = self.under.clone();
        words.push(tools::oilskin()?);
        let (program, words) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(words).env_clear().envs(self.vars.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Starts it; its log says where it listens.
    pub(crate) fn start(&self, core: Core, folder: &Path) -> Result<(Running, SocketAddr)> {
        fs::create_dir_all(folder)?;
        let mut running = Running::start("oilskin", &self.command()?, core, &folder.join("log"))?;
        let address = running.until(|running| address(&running.said()))?;
        Ok((running, address))
    }
}

fn address(log: &str) -> Option<SocketAddr> {
    let of = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        line.pointer("/fields/address").or_else(|| line.get("address"))?.as_str()?.parse().ok()
    };
    log.lines().find_map(of)
}

/// The benchmark's body as Oilskin sends it on, tokens in place of its three fields.
pub(super) fn tokens(keys: &Keys, folder: &Path) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut running, address) = Settings::fields(listener.local_addr()?, Some(keys)).start(Core::Proxy, folder)?;
    let upstream = thread::spawn(move || one_body(&listener));
    Client::connect(address)?.ask(&post("/", REQUEST))?;
    let sent = upstream.join().map_err(|_| anyhow::anyhow!("the upstream panicked"))??;
    running.end()?;
    ensure!(memmem::find_iter(sent.as_bytes(), b"oil1.").count() == 3, "three fields were to be encrypted: {sent}");
    ensure!(!sent.contains(['\'', '$', '\\']), "nginx cannot answer it: {sent}");
    Ok(sent)
}

/// Takes one request and gives its body. It may be chunked: what stands between the first `{` and the last `}` is all of it, since
/// it is far shorter than a chunk.
fn one_body(listener: &TcpListener) -> Result<String> {
    let (mut stream, _) = listener.accept()?;
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "closed before the end of the body");
        seen.extend_from_slice(piece.get(..read).unwrap_or_default());
        let text = std::str::from_utf8(&seen)?;
        let body = text.find('{').and_then(|at| text.get(at..=text.rfind('}')?));
        if let Some(body) = body.filter(|body| serde_json::from_str::<Value>(body).is_ok()) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")?;
            return Ok(body.to_owned());
        }
    }
}

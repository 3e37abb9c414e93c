//! nginx as the origin and as a proxy.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use oilskin_tests::process::free_port;

use super::oilskin::{Alg, Keys, tokens};
use crate::certificates::Tls;
use crate::load::Front;
use crate::messages::{ANSWER, bulk};
use crate::process::{Core, Running};
use crate::tools;

/// The server behind every proxy: answers any POST with JSON, some paths with tokens in it.
#[derive(Debug)]
pub(crate) struct Origin {
    running: Running,
    address: SocketAddr,
    keys: Vec<(Alg, Keys)>,
}

impl Origin {
    /// Starts it. The tokens it answers were made by Oilskin with keys that are kept for who opens them.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let mut keys = Vec::new();
        let mut locations = String::new();
        for alg in Alg::ALL {
            let made = Keys::make(alg, &folder.join(alg.shown()))?;
            let answer = tokens(&made, &folder.join(format!("{}-tokens", alg.shown())))?;
            locations.push_str(&location(alg.path(), &answer));
            keys.push((alg, made));
        }
        fs::create_dir_all(folder)?;
        fs::write(folder.join("bulk"), bulk())?;
        // A file answers no POST by itself.
        let files = folder.display();
        locations.push_str(&format!("location /bulk {{ root {files}; error_page 405 =200 /bulk; }}\n"));
        locations.push_str(&location("/", ANSWER));
        let address = free_port();
        let http = format!("server {{ listen {address} backlog=1024; default_type application/json;\n{locations}}}");
        let running = start("origin", &http, Core::Rest, &folder.join("origin"), address)?;
        Ok(Self { running, address, keys })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn keys(&self, alg: Alg) -> Option<&Keys> {
        self.keys.iter().find(|(of, _)| *of == alg).map(|(_, keys)| keys)
    }

    /// Whether it still runs, which a row may rely on only so long.
    pub(crate) fn check(&self) -> Result<()> {
        self.running.rss().map(drop)
    }
}

fn location(path: &str, answer: &str) -> String {
    format!("location {path} {{ return 200 '{answer}'; }}\n")
}

/// A pass-through proxy with connections kept on both sides.
pub(super) fn proxy(
    name: &str,
    front: Front,
    tls: Option<Tls<'_>>,
    upstream: SocketAddr,
    folder: &Path,
) -> Result<(Running, SocketAddr)> {
    let (ssl, settings) = tls.map(secured).unwrap_or_default();
    let address = free_port();
    let protocol = match front {
        Front::H1 => "",
        Front::H2c => "http2",
    };
    let http = format!(
        "upstream origin {{ server {upstream}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{ listen {address} {protocol} {ssl} backlog=1024; {settings}\n\
         location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}"
    );
    Ok((start(name, &http, Core::Proxy, folder, address)?, address))
}

/// The same key exchange, tickets and version as everyone's.
fn secured(Tls { certificates, mutual }: Tls<'_>) -> (&'static str, String) {
    let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|file| certificates.path(file));
    let clients = if mutual { format!("ssl_client_certificate {ca}; ssl_verify_client on;") } else { String::new() };
    let settings = format!(
        "ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;\n\
         ssl_session_tickets on; ssl_session_cache off; {clients}"
    );
    ("ssl", settings)
}

fn start(name: &str, http: &str, core: Core, folder: &Path, address: SocketAddr) -> Result<Running> {
    fs::create_dir_all(folder)?;
    let at = folder.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|of| format!("{of}_temp_path {at}/{of};\n"))
        .collect();
    // Started as root, the worker would become a user who cannot read the folder.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "{user} worker_processes 1; daemon off; pid {at}/pid; error_log stderr warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;\n{temp}{http}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(tools::nginx()?);
    command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(file);
    let mut running = Running::start(name, &command, core, &folder.join("log"))?;
    running.until_listening(address)?;
    Ok(running)
}

//! nginx as an origin: a real store that keeps what it gets in files.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;

use crate::process::free_port;
use crate::tools::{self, Killed};

/// A running nginx; it ends with its test.
#[derive(Debug)]
pub struct Nginx {
    folder: TempDir,
    address: SocketAddr,
    child: Killed,
}

impl Nginx {
    /// A store over HTTP/1.1 in clear text: PUT writes a file, GET reads it.
    pub fn store() -> Self {
        Self::start("", "")
    }

    /// The same over HTTP/2 by prior knowledge.
    pub fn h2c_store() -> Self {
        Self::start("http2", "")
    }

    /// The same over TLS, with these files; `protocol` is empty or `http2`.
    pub fn tls_store(protocol: &str, certificate: &str, key: &str) -> Self {
        let tls = format!("ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key};");
        Self::start(&format!("ssl {protocol}"), &tls)
    }

    /// The same over TLS, which sends so many bytes a second.
    pub fn slow_tls_store(protocol: &str, certificate: &str, key: &str, rate: &str) -> Self {
        let tls = format!(
            "ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key}; limit_rate {rate};"
        );
        Self::start(&format!("ssl {protocol}"), &tls)
    }

    /// The same, for clients with a certificate of this authority.
    pub fn mtls_store(certificate: &str, key: &str, ca: &str) -> Self {
        let tls = format!(
            "ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_client_certificate {ca}; ssl_verify_client on;"
        );
        Self::start("ssl", &tls)
    }

    /// No store: it stands before another server, over TLS with these files.
    pub fn tls_before(server: SocketAddr, certificate: &str, key: &str) -> Self {
        let tls = format!(
            "ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key}; \
             location / {{ proxy_pass http://{server}; }}"
        );
        Self::start("ssl", &tls)
    }

    /// No store: it stands before another server, and keeps a log of the requests that name the state they need (`X-Vault-Index`).
    pub fn before(server: SocketAddr) -> Self {
        let own = "access_log TOP/access.log; access_log TOP/indexed.log combined if=$http_x_vault_index;";
        Self::start("", &format!("location / {{ proxy_pass http://{server}; {own} }}"))
    }

    /// Requests that had `X-Vault-Index`.
    pub fn indexed(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("indexed.log")).unwrap_or_default()
    }

    /// Starts it anew, so that it reads its files again.
    pub fn again(&mut self) {
        // The old one must have left its port.
        let _ = (self.child.0.kill(), self.child.0.wait());
        self.child = serving(&self.folder);
        tools::until("nginx to listen", || TcpStream::connect(self.address).ok());
    }

    fn start(listen: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_port();
        let top = folder.path().display();
        let more = more.replace("TOP", &top.to_string());
        let configuration = format!(
            "daemon off; master_process off; pid {top}/pid; error_log {top}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n\
               access_log {top}/access.log;\n\
               client_body_temp_path {top}/body; proxy_temp_path {top}/p; fastcgi_temp_path {top}/f;\n\
               uwsgi_temp_path {top}/u; scgi_temp_path {top}/s;\n\
               client_max_body_size 0; default_type application/json;\n\
               server {{\n\
                 listen {address} {listen}; {more}\n\
                 root {top}/store; dav_methods PUT DELETE; create_full_put_path on; dav_access user:rw;\n\
               }}\n\
             }}\n"
        );
        std::fs::create_dir(folder.path().join("store")).unwrap();
        std::fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        let child = serving(&folder);
        let nginx = Self { folder, address, child };
        tools::until("nginx to listen", || TcpStream::connect(address).ok());
        nginx
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file that a path is kept in.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("store").join(path.trim_start_matches('/'))
    }

    /// The raw bytes it keeps for a path.
    pub fn stored(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.file(path)).unwrap()
    }

    /// Its access log.
    pub fn requests(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }
}

fn serving(folder: &TempDir) -> Killed {
    let mut nginx = tools::program("nginx");
    nginx.arg("-c").arg(folder.path().join("nginx.conf")).arg("-e").arg(folder.path().join("start.log"));
    Killed(nginx.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

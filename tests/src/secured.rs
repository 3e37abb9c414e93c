//! A second opinion of our TLS: OpenSSL's client.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::certificates::Authority;
use crate::process::Process;
use crate::tools::{self, Killed};

/// The common name of the certificate that is served now.
pub fn served(address: SocketAddr) -> String {
    let mut openssl = tools::program("openssl");
    openssl.args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"]);
    let shown = openssl.stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let subject = shown.lines().find(|line| line.starts_with("subject=")).unwrap_or_default().to_owned();
    subject.rsplit('=').next().unwrap_or_default().trim().to_owned()
}

/// A TLS connection that stays open, by OpenSSL.
#[derive(Debug)]
pub struct Open {
    child: Killed,
    input: ChildStdin,
}

impl Open {
    /// Connects, with `client.pem` of the authority.
    pub fn new(process: &Process, authority: &Authority, more: &[&str]) -> Self {
        let mut openssl = tools::program("openssl");
        openssl
            .args(["s_client", "-connect", &process.address().to_string(), "-quiet", "-no_ign_eof"])
            .args(if more.contains(&"-noservername") { &[][..] } else { &["-servername", "localhost"] })
            .args(["-cert", &authority.path("client.pem"), "-key", &authority.path("client.key")])
            .args(more);
        let mut child = spawn(&mut openssl);
        let input = child.stdin.take().unwrap();
        Self { child: Killed(child), input }
    }

    /// A request on it; false where the connection is gone.
    pub fn asks(&mut self) -> bool {
        if self.input.write_all(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").is_err() || self.input.flush().is_err() {
            return false;
        }
        let mut answer = Vec::new();
        let mut byte = [0];
        let output = self.child.0.stdout.as_mut().unwrap();
        while !answer.ends_with(b"\r\n\r\n") {
            match output.read(&mut byte) {
                Ok(1) => answer.push(byte[0]),
                _ => return false,
            }
        }
        answer.starts_with(b"HTTP/1.1 200")
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

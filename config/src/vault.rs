//! Vault or OpenBao: where it is, and who we are there.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::UpstreamTls;

/// Whether a mount or a role can be named so: letters, digits, dots, dashes and underscores, slashes between them.
pub(crate) fn is_mount(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    text.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(word))
}

/// A text that is shown nowhere, and wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secreted {
    /// In the environment.
    Here(Secret),
    /// In a file, whose white space at the end does not count. It is read anew each time.
    File(PathBuf),
}

/// How Vault or OpenBao is reached, and who we are there.
#[derive(Debug, Clone)]
pub struct Vault {
    /// Its addresses, at least one: the first is asked, the others where it does not answer.
    pub addresses: Vec<VaultAddress>,
    /// The namespace of all that is asked.
    pub namespace: Option<String>,
    /// How it is spoken to over `https://`.
    pub tls: UpstreamTls,
    /// How a token is come by.
    pub login: VaultLogin,
    /// Whether fields are decrypted at the addresses after the first.
    pub standby_reads: bool,
    /// Bytes of locked memory for what was decrypted lately; 0 remembers nothing.
    pub cache: usize,
}

/// Where Vault listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultAddress {
    /// `http://` or `https://`, a host bare, and a port.
    Tcp {
        /// Whether it is `https://`.
        tls: bool,
        /// The host, an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket, in clear text: Vault Agent's.
    Unix(PathBuf),
}

/// How a token is come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultLogin {
    /// It is given.
    Token(Secreted),
    /// `AppRole`: a role and its secret.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The role's ID.
        role_id: String,
        /// The secret ID.
        secret_id: Secreted,
    },
    /// A JWT in a file, which is read anew each time: a service account's of Kubernetes, or anybody's that Vault trusts.
    Jwt {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role: String,
        /// The file.
        file: PathBuf,
    },
    /// The certificate of our end of the connection.
    Cert {
        /// Where the method is mounted.
        mount: String,
        /// The role, where not any that fits will do.
        role: Option<String>,
    },
    /// Who we are in AWS, by a signed request to STS that Vault sends on.
    Aws {
        /// Where the method is mounted.
        mount: String,
        /// The role; none is the one named like our role in AWS.
        role: Option<String>,
        /// What stands in the header `X-Vault-AWS-IAM-Server-ID`, where Vault asks for one.
        server_id: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::{Secret, Secreted};

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secreted::Here(Secret::new("hvs.x"))), "Here(…)");
    }
}

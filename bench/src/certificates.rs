//! An authority with a server's and a client's certificate, ECDSA P-256, by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tools;

/// Files in PEM.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: PathBuf,
}

/// How proxies speak TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tls<'a> {
    pub(crate) certificates: &'a Certificates,
    /// Clients must show theirs.
    pub(crate) mutual: bool,
}

impl Certificates {
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let openssl = |words: &[&str]| -> Result<()> {
            let mut command = Command::new(tools::openssl()?);
            tools::output(command.current_dir(folder).args(words)).map(drop)
        };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let ca = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench", "-days", "30"];
        openssl(&[&ca[..], &key].concat())?;
        for name in ["server", "client"] {
            let [private, request, certificate] = [".key", ".csr", ".pem"].map(|end| format!("{name}{end}"));
            let asked = ["req", "-new", "-keyout", &private, "-out", &request, "-subj", "/CN=bench"];
            let names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
            openssl(&[&asked[..], &key, &names].concat())?;
            let signed = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
            openssl(&[&signed[..], &["-copy_extensions", "copyall", "-days", "30", "-out", &certificate]].concat())?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    /// All certificates of a file.
    pub(crate) fn chain(&self, file: &str) -> Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(self.path(file))?
            .collect::<Result<_, _>>()
            .context("reading our own certificates")
    }

    pub(crate) fn key(&self, file: &str) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_file(self.path(file)).context("reading our own key")
    }
}

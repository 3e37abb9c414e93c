//! An authority with a server's and a client's certificate, ECDSA P-256, by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tools;

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

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
        let this = Self { folder: folder.to_owned() };
        let openssl = |words: &[&str]| this.openssl(words);
        this.authority("ca")?;
        for name in ["server", "client"] {
            let [private, request, certificate] = [".key", ".csr", ".pem"].map(|end| format!("{name}{end}"));
            let asked = ["req", "-new", "-keyout", &private, "-out", &request, "-subj", "/CN=bench"];
            let names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
            openssl(&[&asked[..], &KEY, &names].concat())?;
            let signed = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
            openssl(&[&signed[..], &["-copy_extensions", "copyall", "-days", "30", "-out", &certificate]].concat())?;
        }
        Ok(this)
    }

    /// An authority, `NAME.pem` and `NAME.key`.
    pub(crate) fn authority(&self, name: &str) -> Result<()> {
        let [key, certificate] = ["key", "pem"].map(|end| format!("{name}.{end}"));
        let ca = ["req", "-x509", "-keyout", &key, "-out", &certificate, "-subj", "/CN=bench", "-days", "30"];
        self.openssl(&[&ca[..], &KEY].concat())
    }

    /// Another certificate of a server, with a key of its own, `NAME.pem` and `NAME.key`.
    pub(crate) fn another(&self, name: &str) -> Result<()> {
        let settings = "plain.cnf";
        // openssl's own settings would make it an authority.
        std::fs::write(self.path(settings), "[req]\ndistinguished_name=dn\n[dn]\n")?;
        let [key, certificate] = ["key", "pem"].map(|end| format!("{name}.{end}"));
        let signed = ["req", "-x509", "-config", settings, "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "30"];
        let about = ["-subj", "/CN=bench", "-addext", "subjectAltName=DNS:localhost"];
        self.openssl(&[&signed[..], &about, &KEY, &["-keyout", &key, "-out", &certificate]].concat())
    }

    fn openssl(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(tools::openssl()?);
        tools::output(command.current_dir(&self.folder).args(words)).map(drop)
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

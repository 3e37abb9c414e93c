//! A certification authority of a test's own, made by `openssl`.

use std::path::Path;

use tempfile::TempDir;

use crate::tools;

/// A folder with `NAME.pem` and `NAME.key` of an authority and what it signed.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// A new authority.
    pub fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        tools::run(
            tools::program("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
                .args(["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests", "-days", "30"])
                .current_dir(this.folder.path()),
        );
        this
    }

    /// Signs a certificate for `host`, valid for so many days from now on; −1 is one that has expired.
    pub fn sign(&self, file: &str, host: &str, days: i32) {
        tools::run(
            tools::program("openssl")
                .args([
                    "req",
                    "-new",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-subj",
                    "/CN=x",
                ])
                .args(["-keyout", &format!("{file}.key"), "-out", &format!("{file}.csr")])
                .args(["-addext", &format!("subjectAltName=DNS:{host}")])
                .current_dir(self.folder.path()),
        );
        tools::run(
            tools::program("openssl")
                .args(["x509", "-req", "-in", &format!("{file}.csr"), "-CA", "ca.pem", "-CAkey", "ca.key"])
                .args(["-CAcreateserial", "-copy_extensions", "copyall", "-days", &days.to_string()])
                .args(["-out", &format!("{file}.pem")])
                .current_dir(self.folder.path()),
        );
    }

    /// A file of it.
    pub fn path(&self, file: &str) -> String {
        Path::new(self.folder.path()).join(file).display().to_string()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

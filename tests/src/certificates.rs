//! A certification authority of a test's own, made by `openssl`.

use std::path::Path;

use tempfile::TempDir;

use crate::tools;

/// A folder with `NAME.pem` and `NAME.key` of an authority and what it signed.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// `DNS:localhost`, `URI:spiffe://…`, comma between them.
    pub names: &'a str,
    /// Extended key usage: `clientAuth`, `serverAuth`; empty for none.
    pub usage: &'a str,
    /// From now on; −1 is one that has expired.
    pub days: i32,
    /// `ec:P-256`, `rsa:1024`.
    pub key: &'a str,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Self { names: "DNS:localhost", usage: "", days: 30, key: "ec:P-256" }
    }
}

fn key_arguments(key: &str) -> Vec<String> {
    match key.split_once(':') {
        Some(("ec", curve)) => {
            ["-newkey", "ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}"), "-nodes"].map(str::to_owned).to_vec()
        }
        _ => ["-newkey", key, "-nodes"].map(str::to_owned).to_vec(),
    }
}

impl Authority {
    /// A new authority.
    pub fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        this.openssl(|openssl| {
            openssl
                .args(["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests", "-days", "400"])
                .args(key_arguments("ec:P-256"))
        });
        let settings = "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=30\n\
                        crlnumber=number.txt\n";
        for (name, text) in [("ca.cnf", settings), ("index.txt", ""), ("number.txt", "01\n")] {
            std::fs::write(this.path(name), text).unwrap();
        }
        this
    }

    /// Runs `openssl` in its folder.
    pub fn openssl(&self, with: impl FnOnce(&mut std::process::Command) -> &mut std::process::Command) {
        let mut command = tools::program("openssl");
        command.current_dir(self.folder.path());
        tools::run(with(&mut command));
    }

    /// Signs a certificate for `host`, valid for so many days from now on; −1 is one that has expired.
    pub fn sign(&self, file: &str, host: &str, days: i32) {
        self.issue(file, &Wish { names: &format!("DNS:{host}"), days, ..Wish::default() });
    }

    /// Signs what is wished for.
    pub fn issue(&self, file: &str, wish: &Wish<'_>) {
        self.issue_with(file, wish, &[]);
    }

    /// Signs an X.509-SVID as SPIRE makes them: `names` holds its one URI, and perhaps DNS names.
    pub fn svid(&self, file: &str, names: &str, days: i32) {
        let wish = Wish { names, usage: "serverAuth,clientAuth", days, ..Wish::default() };
        self.issue_with(file, &wish, &["keyUsage=critical,digitalSignature", "basicConstraints=critical,CA:FALSE"]);
    }

    fn issue_with(&self, file: &str, wish: &Wish<'_>, extensions: &[&str]) {
        self.openssl(|openssl| {
            openssl
                .args(["req", "-new", "-subj", &format!("/CN={file}")])
                .args(key_arguments(wish.key))
                .args(["-keyout", &format!("{file}.key"), "-out", &format!("{file}.csr")])
                .args(["-addext", &format!("subjectAltName={}", wish.names)])
                .args(extensions.iter().flat_map(|extension| ["-addext", extension]));
            match wish.usage {
                "" => openssl,
                usage => openssl.args(["-addext", &format!("extendedKeyUsage={usage}")]),
            }
        });
        self.openssl(|openssl| {
            openssl
                .args(["x509", "-req", "-in", &format!("{file}.csr"), "-CA", "ca.pem", "-CAkey", "ca.key"])
                .args(["-CAcreateserial", "-copy_extensions", "copyall", "-days", &wish.days.to_string()])
                .args(["-out", &format!("{file}.pem")])
        });
    }

    /// Revokes certificates, if any, and writes the list of all that are, `crl.pem`.
    pub fn revoke(&self, files: &[&str]) {
        let own = ["ca", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key"];
        for file in files {
            self.openssl(|openssl| openssl.args(own).args(["-revoke", &format!("{file}.pem")]));
        }
        self.openssl(|openssl| openssl.args(own).args(["-gencrl", "-out", "crl.pem"]));
    }

    /// The same with `count` serial numbers more, of certificates that nobody has, valid for so many seconds: less than nothing is a
    /// list that has expired.
    pub fn revoke_many(&self, count: u32, seconds: i64) {
        let mut index = std::fs::read_to_string(self.path("index.txt")).unwrap();
        for serial in 0..count {
            index.push_str(&format!("R\t491231235959Z\t260101000000Z\t{:08X}\tunknown\t/CN=x\n", 0x1000_0000 + serial));
        }
        std::fs::write(self.path("index.txt"), index).unwrap();
        let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let date = |seconds: i64| {
            let at = end.checked_add_signed(seconds).unwrap();
            tools::run(tools::program("date").args(["-u", "-d", &format!("@{at}"), "+%Y%m%d%H%M%SZ"])).trim().to_owned()
        };
        self.openssl(|openssl| {
            openssl
                .args([
                    "ca", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-gencrl", "-out", "crl.pem",
                ])
                .args(["-crl_lastupdate", &date(seconds - 7200), "-crl_nextupdate", &date(seconds)])
        });
    }

    /// Signs a certificate that is valid from and to so many seconds from now on. `points` are where its lists are found, in the words of
    /// `tests/tools/certificates.py`.
    pub fn leaf(&self, file: &str, wish: &Wish<'_>, seconds: std::ops::Range<i64>, points: &[&str]) {
        let (from, to) = (seconds.start.to_string(), seconds.end.to_string());
        self.python(&[&["leaf", file, &from, &to, wish.names, wish.usage][..], points].concat());
    }

    /// Writes a list of a kind that `tests/tools/certificates.py` knows, of certificates by their files.
    pub fn list(&self, file: &str, kind: &str, revoked: &[&str]) {
        self.python(&[&["list", file, kind][..], revoked].concat());
    }

    fn python(&self, arguments: &[&str]) {
        let tool = tools::top().join("tests/tools/certificates.py");
        tools::run(tools::python().arg(tool).arg(self.folder.path()).args(arguments));
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

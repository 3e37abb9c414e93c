//! Certificates, keys and lists that cannot be used: what `oilskin check` says, what a running Oilskin does, and whom a listener or we
//! ourselves turn away.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::{Nginx, Upstream, client, tools};

use super::mtls::{BODY, Bench, text};

/// The files of a listener, in a folder of their own.
struct Files {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let authority = Authority::new();
        authority.issue("server", &Wish::default());
        authority.issue("second", &Wish::default());
        authority.revoke(&[]);
        let this = Self { folder: tempfile::tempdir().unwrap(), authority };
        this.restore();
        this
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn restore(&self) {
        let names =
            [("tls.crt", "server.pem"), ("tls.key", "server.key"), ("ca.crt", "ca.pem"), ("crl.pem", "crl.pem")];
        for (name, from) in names {
            self.remove(name);
            std::fs::copy(self.authority.path(from), self.path(name)).unwrap();
        }
    }

    fn remove(&self, name: &str) {
        let path = self.path(name);
        if Path::new(&path).is_dir() {
            std::fs::remove_dir(&path).unwrap();
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }

    /// In the place of a file, something else.
    fn replace(&self, name: &str, by: &By) {
        self.remove(name);
        let path = self.path(name);
        match by {
            By::Text(text) => std::fs::write(path, text).unwrap(),
            By::Folder => std::fs::create_dir(path).unwrap(),
            By::Fifo => drop(tools::run(tools::program("mkfifo").arg(path))),
            By::Nothing => {}
            By::Unreadable => {
                std::fs::write(&path, "x").unwrap();
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
            }
            By::Large => std::fs::File::create(path).unwrap().set_len(17 << 20).unwrap(),
        }
    }

    fn vars(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OILSKIN_UPSTREAM", "http://127.0.0.1:9".to_owned()),
            ("OILSKIN_TLS_CERT_FILE", self.path("tls.crt")),
            ("OILSKIN_TLS_KEY_FILE", self.path("tls.key")),
            ("OILSKIN_TLS_CLIENT_CA_FILE", self.path("ca.crt")),
            ("OILSKIN_TLS_CRL_FILE", self.path("crl.pem")),
        ]
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.authority.path(name)).unwrap()
    }
}

enum By {
    Text(String),
    Folder,
    Fifo,
    Nothing,
    Unreadable,
    Large,
}

fn encrypted(authority: &Authority) -> [String; 2] {
    let key = authority.path("server.key");
    let new = tools::run(tools::program("openssl").args(["pkcs8", "-topk8", "-in", &key, "-passout", "pass:oilskin"]));
    let old = ["ec", "-aes128", "-in", &key, "-passout", "pass:oilskin"];
    [new, tools::run(tools::program("openssl").args(old))]
}

/// What is in the place of which file, the metric's word, and what is said besides the file's path.
fn cases(files: &Files) -> Vec<(&'static str, By, &'static str, &'static str)> {
    let authority = &files.authority;
    let issue = |name: &str, wish: Wish<'_>| authority.issue(name, &wish);
    issue("expired", Wish { days: -1, ..Wish::default() });
    let [new, old] = encrypted(authority);
    let certificate = files.read("server.pem");
    let broken = certificate.replace("MII", "MIA");
    let half = certificate[..certificate.len() / 2].to_owned();
    let chain = certificate.clone() + &files.read("second.pem");
    let long = certificate.clone() + &files.read("ca.pem").repeat(10);
    let text = |text: &str| By::Text(text.to_owned());
    vec![
        ("tls.key", By::Text(new), "key", "is encrypted: store it without a passphrase"),
        ("tls.key", By::Text(old), "key", "is encrypted: store it without a passphrase"),
        ("tls.key", text(""), "key", "there is no private key (PEM"),
        ("tls.key", By::Text(certificate), "key", "there is no private key (PEM"),
        ("tls.key", By::Text(files.read("second.key")), "mismatch", "does not fit the certificate"),
        ("tls.key", By::Folder, "file", "is a directory"),
        ("tls.key", By::Fifo, "file", "is no regular file"),
        ("tls.key", By::Nothing, "file", "No such file"),
        ("tls.crt", text(""), "certificate", "there is no certificate"),
        ("tls.crt", By::Text(half), "certificate", "PEM"),
        ("tls.crt", By::Text(broken), "certificate", "cannot be read"),
        ("tls.crt", By::Text(chain), "chain", "leaf first, then each issuer"),
        ("tls.crt", By::Text(long), "chain", "more than 10"),
        ("tls.crt", By::Text(files.read("expired.pem")), "mismatch", "does not fit"),
        ("tls.crt", By::Folder, "file", "is a directory"),
        ("tls.crt", By::Large, "file", "is larger than"),
        ("ca.crt", text("\n"), "authority", "there is no certificate (PEM) of an authority"),
        ("ca.crt", By::Text(files.read("server.key")), "authority", "there is no certificate (PEM) of an authority"),
        ("ca.crt", By::Fifo, "file", "is no regular file"),
        ("crl.pem", text(""), "crl", "there is no revocation list"),
        ("crl.pem", By::Text(files.read("ca.pem")), "crl", "there is no revocation list"),
        ("crl.pem", By::Nothing, "file", "No such file"),
    ]
}

#[test]
fn a_file_that_cannot_be_used_is_named_by_check_with_what_to_do() {
    let (files, keys) = (Files::new(), Keys::new());
    let check = || process::command(&keys).arg("check").envs(files.vars()).output().unwrap();
    let fine = check();
    assert!(fine.status.success(), "{fine:?}");
    for (name, by, reason, says) in cases(&files) {
        files.replace(name, &by);
        let told = check();
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.status.code(), Some(78), "{name} {reason} {says}: {told:?}");
        assert!(said.contains(&files.path(name)) && said.contains(says), "{name} {reason} {says}: {said}");
        assert!(!said.contains("PRIVATE KEY-----") && !said.contains("panic"), "{said}");
        files.restore();
    }
}

/// Root reads everything, so another user asks.
#[test]
fn a_key_that_only_another_user_may_read_is_named() {
    let (files, keys) = (Files::new(), Keys::new());
    files.replace("tls.key", &By::Unreadable);
    for folder in [files.folder.path(), keys.folder()] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let oilskin = process::command(&keys);
    let mut nobody = Command::new(tools::program("setpriv").get_program());
    nobody.env_clear().envs(oilskin.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let program = files.folder.path().join("oilskin");
    std::fs::copy(oilskin.get_program(), &program).unwrap();
    let uid = tools::run(tools::program("id").arg("-u"));
    if uid.trim() == "0" {
        tools::run(tools::program("chown").args(["-R", "65534"]).arg(keys.folder()));
        nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    let told = nobody.arg(&program).arg("check").envs(files.vars()).output().unwrap();
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(78), "{told:?}");
    assert!(said.contains(&files.path("tls.key")) && said.contains("ermission denied"), "{said}");
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_old_state_in_place_while_running() {
    let (files, keys, upstream) = (Files::new(), Keys::new(), Upstream::echo());
    let mut vars = files.vars();
    vars[0].1 = upstream.url();
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut process = Process::start(&keys, &vars);
    files.authority.issue("client", &Wish { usage: "clientAuth", ..Wish::default() });
    let serves = |process: &Process| {
        let mut curl = tools::program("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &files.authority.path("ca.pem")])
            .args(["--cert", &files.authority.path("client.pem"), "--key", &files.authority.path("client.key")])
            .args(["-H", "content-type: application/json", "-d", BODY]);
        let url = format!("https://localhost:{}/x", process.address().port());
        text(&curl.arg(url).output().unwrap()) == BODY
    };
    assert!(serves(&process));
    let wanted = [
        ("tls.key", "encrypted"),
        ("tls.key", "is a directory"),
        ("tls.crt", "PEM"),
        ("ca.crt", "regular"),
        ("crl.pem", "no revocation"),
    ];
    let mut cases = cases(&files);
    for (name, part) in wanted {
        let at = cases.iter().position(|(file, _, _, says)| *file == name && says.contains(part)).unwrap();
        let (_, by, reason, says) = cases.swap_remove(at);
        files.replace(name, &by);
        let line = process.logged(|line| line.contains("what is held serves on") && line.contains(says));
        assert!(line.contains(&format!("\"reason\":\"{reason}\"")) && line.contains(name), "{line}");
        assert!(serves(&process), "{name} {says}");
        files.restore();
        // What was refused is what is told until it is mended.
        tools::pause(std::time::Duration::from_millis(300));
    }
    assert!(process.runs() && !process.log().iter().any(|line| line.contains("panic")), "{:?}", process.log());
}

/// A client's certificate with its chain in one file, the leaf's key beside it.
fn with_chain(authority: &Authority, name: &str, chain: &[&str]) {
    let mut file = std::fs::OpenOptions::new().append(true).open(authority.path(&format!("{name}.pem"))).unwrap();
    for link in chain {
        file.write_all(&std::fs::read(authority.path(&format!("{link}.pem"))).unwrap()).unwrap();
    }
}

/// An authority below `issuer`, or a leaf where `extensions` says so.
fn below(authority: &Authority, name: &str, issuer: &str, extensions: &str, digest: &str) {
    let file = authority.path(&format!("{name}.cnf"));
    std::fs::write(file, format!("[e]\n{extensions}\n")).unwrap();
    authority.openssl(|openssl| {
        openssl.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]).args([
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.csr"),
        ])
    });
    authority.openssl(|openssl| {
        openssl
            .args(["x509", "-req", "-in", &format!("{name}.csr"), "-CA", &format!("{issuer}.pem")])
            .args(["-CAkey", &format!("{issuer}.key"), "-CAcreateserial", "-days", "30", digest])
            .args(["-extfile", &format!("{name}.cnf"), "-extensions", "e", "-out", &format!("{name}.pem")])
    });
}

const LEAF: &str = "subjectAltName=DNS:good.test\nextendedKeyUsage=clientAuth\nbasicConstraints=critical,CA:false";
const ISSUER: &str = "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign";

#[test]
fn certificates_that_only_look_right_do_not_get_in() {
    let bench = Bench::new();
    let own = &bench.authority;
    // Its own authority, under the real one's name.
    let impostor = Authority::new();
    impostor.issue("client", &Wish { usage: "clientAuth", ..Wish::default() });
    with_chain(&impostor, "client", &["ca"]);
    impostor.openssl(|openssl| {
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=tests",
            ])
            .args([
                "-keyout",
                "self.key",
                "-out",
                "self.pem",
                "-addext",
                "extendedKeyUsage=clientAuth",
                "-addext",
                "subjectAltName=DNS:good.test",
            ])
    });
    // A leaf that signs.
    below(own, "leaf", "ca", LEAF, "-sha256");
    below(own, "by_leaf", "leaf", LEAF, "-sha256");
    with_chain(own, "by_leaf", &["leaf"]);
    below(own, "sha1", "ca", LEAF, "-sha1");
    // Constrained to names that it does not keep to.
    let constrained = format!("{ISSUER}\nnameConstraints=critical,permitted;DNS:shop.test");
    below(own, "constrained", "ca", &constrained, "-sha256");
    below(own, "outside", "constrained", LEAF, "-sha256");
    with_chain(own, "outside", &["constrained"]);
    below(own, "inside", "constrained", &LEAF.replace("good.test", "a.shop.test"), "-sha256");
    with_chain(own, "inside", &["constrained"]);
    // No authority below this one.
    below(own, "last", "ca", &ISSUER.replace("CA:true", "CA:true,pathlen:0"), "-sha256");
    below(own, "too_many", "last", ISSUER, "-sha256");
    below(own, "by_too_many", "too_many", LEAF, "-sha256");
    with_chain(own, "by_too_many", &["too_many", "last"]);
    // Leaf, eleven between, and the authority.
    let links: Vec<String> = (0..11).map(|at| format!("link{at}")).collect();
    for (at, name) in links.iter().enumerate() {
        below(own, name, if at == 0 { "ca" } else { &links[at - 1] }, ISSUER, "-sha256");
    }
    below(own, "deep", "link10", LEAF, "-sha256");
    with_chain(own, "deep", &links.iter().rev().map(String::as_str).collect::<Vec<_>>());
    below(own, "three", "link2", LEAF, "-sha256");
    with_chain(own, "three", &["link2", "link1", "link0"]);
    let nul = "subjectAltName=DER:3013821173686f702e746573740062632e74657374\nextendedKeyUsage=clientAuth";
    below(own, "nul", "ca", nul, "-sha256");
    let critical = format!("{LEAF}\n1.2.3.4.5=critical,DER:0500");
    below(own, "critical", "ca", &critical, "-sha256");

    let ca = own.path("ca.pem");
    let mut process = bench.start(&[
        ("OILSKIN_TLS_CLIENT_CA_FILE", &ca),
        ("OILSKIN_TLS_ALLOW", "dns:good.test,dns:*.shop.test,dns:shop.test"),
    ]);
    for name in ["leaf", "inside", "three"] {
        let answer = bench.curl(&process, Some((own, name)), &[]);
        assert_eq!(text(&answer), BODY, "{name}: {answer:?}");
    }
    let served = process.handshakes("app", "X25519", "full");
    let cases: [(&Authority, &str, &[&str]); 8] = [
        (&impostor, "client", &["unknown_authority"]),
        (&impostor, "self", &["unknown_authority", "certificate"]),
        (own, "by_leaf", &["certificate", "unknown_authority"]),
        (own, "outside", &["certificate", "name"]),
        (own, "by_too_many", &["certificate", "unknown_authority"]),
        (own, "deep", &["certificate"]),
        (own, "nul", &["not_allowed", "certificate"]),
        (own, "critical", &["certificate"]),
    ];
    let mut wrong = Vec::new();
    for (authority, name, outcomes) in cases {
        let count = |process: &Process| outcomes.iter().map(|one| process.handshakes("app", "", one)).sum::<u64>();
        let before = count(&process);
        let answer = bench.curl(&process, Some((authority, name)), &["--ciphers", "DEFAULT@SECLEVEL=0"]);
        tools::until(name, || (count(&process) > before).then_some(()));
        if answer.status.success() || count(&process) != before + 1 {
            wrong.push(format!("{name}: {}", String::from_utf8_lossy(&answer.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?} {}", process.metrics_page());
    // curl would not show so weak a signature.
    let before = process.handshakes("app", "", "certificate");
    let script = "import socket,ssl,sys;c=ssl.create_default_context(cafile=sys.argv[1]);\
                  c.set_ciphers('DEFAULT@SECLEVEL=0');c.load_cert_chain(sys.argv[2],sys.argv[3]);\
                  s=c.wrap_socket(socket.create_connection(('127.0.0.1',int(sys.argv[4]))),server_hostname='localhost');\
                  print(s.recv(1))";
    let port = process.address().port().to_string();
    let told = tools::python()
        .args(["-c", script, &ca, &own.path("sha1.pem"), &own.path("sha1.key"), &port])
        .output()
        .unwrap();
    assert!(!told.status.success(), "{told:?}");
    process.refused("certificate", before + 1);
    assert_eq!(process.handshakes("app", "X25519", "full"), served);
    assert!(process.runs());
}

#[test]
fn an_upstream_s_name_is_matched_by_kind_and_to_its_end() {
    let authority = Authority::new();
    let server = |names: &str| format!("subjectAltName={names}\nextendedKeyUsage=serverAuth");
    let cases = [
        ("address", server("IP:127.0.0.1"), "127.0.0.1", true),
        ("address_as_name", server("DNS:127.0.0.1"), "127.0.0.1", false),
        // `localhost`, NUL, `.evil`.
        ("nul", server("DER:3011820f6c6f63616c686f7374002e6576696c"), "localhost", false),
        ("whole", server("DNS:LocalHost"), "localhost", true),
        ("star", server("DNS:*"), "localhost", false),
        ("common_name", "extendedKeyUsage=serverAuth".to_owned(), "localhost", false),
    ];
    let ca = authority.path("ca.pem");
    for (name, extensions, host, taken) in cases {
        below(&authority, name, "ca", &extensions, "-sha256");
        let nginx =
            Nginx::tls_store("", &authority.path(&format!("{name}.pem")), &authority.path(&format!("{name}.key")));
        let url = format!("https://{host}:{}", nginx.address().port());
        let process = Process::start(&Keys::new(), &[("OILSKIN_UPSTREAM", &url), ("OILSKIN_UPSTREAM_CA_FILE", &ca)]);
        let status = client::json(process.address(), "PUT", "/x", BODY).status();
        assert_eq!(status, if taken { 201 } else { 502 }, "{name}: {}", process.metrics_page());
    }
}

//! Certificates, keys and lists that cannot be used: what `oilskin check` says and what a running Oilskin does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::{Upstream, tools};

use super::mtls::{BODY, text};

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
    issue("weak", Wish { key: "rsa:1024", ..Wish::default() });
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
        ("tls.key", By::Text(files.read("weak.key")), "key", "cannot be used"),
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

/// Root reads everything, so another user asks; where the tests run as another one, that one.
#[test]
fn a_key_that_only_another_user_may_read_is_named_at_the_start_and_while_running() {
    let (files, keys) = (Files::new(), Keys::new());
    let upstream = Upstream::echo();
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
    nobody.arg(&program);
    let vars = files.vars();
    let mut vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let url = upstream.url();
    vars[0].1 = &url;
    let locked = std::fs::Permissions::from_mode(0o000);
    let key = files.path("tls.key");
    let mut again = Command::new(nobody.get_program());
    again.env_clear().envs(nobody.get_envs().filter_map(|(name, value)| Some((name, value?)))).args(nobody.get_args());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut process = Process::start_as(nobody, &vars);
    std::fs::set_permissions(&key, locked).unwrap();
    let line = process.logged(|line| line.contains("what is held serves on"));
    assert!(line.contains(&key) && line.contains("ermission denied") && line.contains("\"reason\":\"file\""), "{line}");
    assert!(process.ready().contains("true") && process.runs());
    let told = again.arg("check").envs(vars).output().unwrap();
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(78), "{told:?}");
    assert!(said.contains(&key) && said.contains("ermission denied"), "{said}");
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
        ("tls.key", "cannot be used"),
        ("tls.key", "is a directory"),
        ("tls.key", "is no regular file"),
        ("tls.key", "No such file"),
        ("tls.crt", "PEM"),
        ("tls.crt", "is a directory"),
        ("tls.crt", "is larger than"),
        ("tls.crt", "leaf first"),
        ("ca.crt", "regular"),
        ("crl.pem", "no revocation"),
        ("crl.pem", "No such file"),
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

/// What `oilskin check` says of a listener with these files.
fn checked(vars: &[(&str, &str)]) -> (Option<i32>, String) {
    let keys = Keys::new();
    let mut oilskin = process::command(&keys);
    oilskin.arg("check").env("OILSKIN_UPSTREAM", "https://127.0.0.1:9").envs(vars.iter().copied());
    let told = oilskin.output().unwrap();
    (told.status.code(), String::from_utf8_lossy(&told.stderr).into_owned())
}

#[test]
fn certificates_in_places_they_are_not_made_for_are_refused() {
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    authority.issue("web", &Wish { usage: "serverAuth", ..Wish::default() });
    authority.issue("client", &Wish { usage: "clientAuth", ..Wish::default() });
    authority.openssl(|openssl| {
        openssl.args(["x509", "-in", "ca.pem", "-signkey", "ca.key", "-days", "-1", "-out", "over.pem"])
    });
    let file = |name: &str| authority.path(name);
    let (server, server_key) = (file("server.pem"), file("server.key"));
    let listener = [("OILSKIN_TLS_CERT_FILE", server.as_str()), ("OILSKIN_TLS_KEY_FILE", &server_key)];
    let (client, client_key, web, web_key) = (file("client.pem"), file("client.key"), file("web.pem"), file("web.key"));
    let over = file("over.pem");
    let cases = [
        (vec![("OILSKIN_TLS_CERT_FILE", client.as_str()), ("OILSKIN_TLS_KEY_FILE", &client_key)], "lacks serverAuth"),
        (
            vec![("OILSKIN_UPSTREAM_CERT_FILE", web.as_str()), ("OILSKIN_UPSTREAM_KEY_FILE", &web_key)],
            "lacks clientAuth",
        ),
        ([&listener[..], &[("OILSKIN_TLS_CLIENT_CA_FILE", web.as_str())]].concat(), "no authority's"),
        (vec![("OILSKIN_UPSTREAM_CA_FILE", server.as_str())], "no authority's"),
        (vec![("OILSKIN_UPSTREAM_CA_FILE", over.as_str())], "every authority's certificate in it has expired"),
    ];
    for (vars, says) in cases {
        let (code, told) = checked(&vars);
        assert_eq!(code, Some(78), "{says}: {told}");
        assert!(told.contains(says), "{says}: {told}");
    }
    // One that has ended beside one that has not takes nothing away.
    let both = file("both.pem");
    let bundle = [std::fs::read(&over).unwrap(), std::fs::read(file("ca.pem")).unwrap()].concat();
    std::fs::write(&both, bundle).unwrap();
    let (code, told) = checked(&[("OILSKIN_UPSTREAM_CA_FILE", &both)]);
    assert_eq!(code, Some(0), "{told}");
}

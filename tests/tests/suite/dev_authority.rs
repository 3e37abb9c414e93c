//! An authority for development, made on first use.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oilskin_tests::certificates::Authority;
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::{Proxy, Upstream, tools};
use tempfile::TempDir;

struct Bench {
    keys: Keys,
    upstream: Upstream,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let upstream = Upstream::scripted(|_, stream| oilskin_tests::upstream::respond(stream, "200 OK", &[], b""));
        Self { keys: Keys::new(), upstream, folder: tempfile::tempdir().unwrap() }
    }

    /// Two folders deep: both are made.
    fn ca(&self) -> PathBuf {
        self.folder.path().join("state/ca")
    }

    fn path(&self, file: &str) -> String {
        self.ca().join(file).display().to_string()
    }

    fn source(&self, more: &str) -> String {
        format!("dev:?dir={}{more}", self.ca().display())
    }

    fn start(&self, more: &str) -> Process {
        let source = self.source(more);
        Process::start(&self.keys, &[("OILSKIN_UPSTREAM", &self.upstream.url()), ("OILSKIN_TLS_SOURCE", &source)])
    }

    /// What a start, or `check`, says that does not come to serve.
    fn refused(&self, word: Option<&str>) -> String {
        let mut command = process::command(&self.keys);
        let source = self.source("");
        command.args(word).env("OILSKIN_UPSTREAM", self.upstream.url()).env("OILSKIN_TLS_SOURCE", source);
        let output = command.env("OILSKIN_LISTEN", "127.0.0.1:0").output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn curl(&self, url: &str, more: &[&str]) -> bool {
        let mut curl = tools::program("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &self.path("ca.pem")]).args(more);
        curl.arg(url).output().unwrap().status.success()
    }

    fn asks(&self, process: &Process) -> bool {
        let pair = ["--cert", &self.path("client.pem"), "--key", &self.path("client.key")];
        self.curl(&format!("https://localhost:{}/x", process.address().port()), &pair)
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A folder's files that are not hidden, with what they hold.
fn files(folder: &Path) -> std::collections::BTreeMap<String, String> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

#[test]
fn the_first_use_makes_it_and_says_how_to_get_in() {
    let bench = Bench::new();
    let process = bench.start("");
    assert!(bench.asks(&process));
    let port = process.address().port();
    assert!(!bench.curl(&format!("https://localhost:{port}/x"), &[]), "clients must show a certificate");
    let pair = ["--cert", &bench.path("client.pem"), "--key", &bench.path("client.key")];
    assert!(bench.curl(&format!("https://127.0.0.1:{port}/x"), &pair));
    let line = process.logged(|line| line.contains("DEVELOPMENT authority"));
    assert!(line.contains("WARN") && line.contains(&format!("--cacert {}", bench.path("ca.pem"))), "{line}");
    process.logged(|line| line.contains("CERTIFICATES FOR DEVELOPMENT ONLY"));
    assert_eq!(mode(&bench.ca()), 0o700);
    let names: Vec<String> = files(&bench.ca()).into_keys().collect();
    assert_eq!(names, [".gitignore", "authority.pem", "ca.pem", "client.key", "client.pem"]);
    for name in names {
        assert_eq!(mode(&bench.ca().join(&name)), 0o600, "{name}");
    }
    let shown = tools::run(tools::program("openssl").args(["x509", "-noout", "-text", "-in", &bench.path("ca.pem")]));
    assert!(shown.contains("CA:TRUE") && shown.contains("P-256"), "{shown}");
}

#[test]
fn a_restart_uses_it_again() {
    let bench = Bench::new();
    let mut first = bench.start("");
    let made = files(&bench.ca());
    first.signal("TERM");
    assert_eq!(first.ended(), Some(0));
    let second = bench.start("&names=localhost");
    assert_eq!(files(&bench.ca()), made);
    assert!(bench.asks(&second));
}

#[test]
fn processes_that_start_at_once_end_with_one() {
    let bench = Bench::new();
    let processes: Vec<Process> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..6).map(|_| scope.spawn(|| bench.start(""))).collect();
        starting.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(processes.iter().all(|process| bench.asks(process)));
    assert!(!files(&bench.ca()).keys().any(|name| name.ends_with(".new")));
}

#[test]
fn nobody_needs_a_certificate_where_no_authorities_are_wanted() {
    let bench = Bench::new();
    let process = bench.start("&trust=&names=localhost,web.test");
    let port = process.address().port();
    let resolve = format!("web.test:{port}:127.0.0.1");
    assert!(bench.curl(&format!("https://web.test:{port}/x"), &["--resolve", &resolve]));
    assert!(!bench.curl(&format!("https://127.0.0.1:{port}/x"), &[]), "it carries the names that are given alone");
}

#[test]
fn a_look_at_the_configuration_makes_nothing() {
    let bench = Bench::new();
    let mut command = process::command(&bench.keys);
    command.arg("check").env("OILSKIN_UPSTREAM", bench.upstream.url()).env("OILSKIN_TLS_SOURCE", bench.source(""));
    let said = tools::run(&mut command);
    assert!(said.contains("CERTIFICATES FOR DEVELOPMENT ONLY"), "{said}");
    assert!(!bench.ca().exists());
}

#[test]
fn what_is_broken_is_told_and_never_replaced() {
    let bench = Bench::new();
    drop(bench.start(""));
    let good = files(&bench.ca());
    let half = |name: &str| good[name][..good[name].len() / 2].to_owned();
    let (other, another) = (Authority::new(), std::fs::read_to_string(Authority::new().path("ca.pem")).unwrap());
    let mixed = std::fs::read_to_string(other.path("ca.key")).unwrap() + &good["ca.pem"];
    for (name, text, told) in [
        ("authority.pem", half("authority.pem"), "authority.pem: "),
        ("authority.pem", String::new(), "does not hold one certificate"),
        ("authority.pem", good["ca.pem"].clone(), "no private key"),
        ("authority.pem", mixed, "does not fit"),
        ("authority.pem", good["client.key"].clone() + &good["client.pem"], "no authority's"),
        ("ca.pem", half("ca.pem"), "ca.pem: "),
        ("ca.pem", another, "not the certificate of authority.pem"),
    ] {
        std::fs::write(bench.ca().join(name), &text).unwrap();
        let broken = files(&bench.ca());
        let said = bench.refused(None);
        assert!(said.contains(told) && said.contains("remove the folder"), "{said}");
        assert!(!said.contains("BEGIN"), "{said}");
        assert_eq!(files(&bench.ca()), broken);
        std::fs::write(bench.ca().join(name), &good[name]).unwrap();
    }
    std::fs::set_permissions(bench.ca().join("authority.pem"), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(bench.refused(Some("check")).contains("others must not read it"));
    std::fs::remove_file(bench.ca().join("authority.pem")).unwrap();
    assert!(bench.refused(None).contains("is gone"));
}

/// An authority of so many days, as an earlier start would have left it.
fn left(bench: &Bench, days: &str) -> String {
    std::fs::create_dir_all(bench.ca()).unwrap();
    let (key, certificate) = (bench.path("made.key"), bench.path("made.pem"));
    let mut openssl = tools::program("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    tools::run(openssl.args(["-subj", "/CN=left", "-days", days, "-keyout", &key, "-out", &certificate]));
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let whole = read(&key) + &read(&certificate);
    std::fs::write(bench.ca().join("authority.pem"), &whole).unwrap();
    std::fs::set_permissions(bench.ca().join("authority.pem"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(bench.ca().join("ca.pem"), read(&certificate)).unwrap();
    whole
}

#[test]
fn one_that_ends_soon_is_renewed_and_others_are_not() {
    for (days, renewed) in [("29", true), ("31", false)] {
        let bench = Bench::new();
        let old = left(&bench, days);
        let process = bench.start("");
        assert_eq!(files(&bench.ca())["authority.pem"] != old, renewed, "{days}");
        assert!(bench.asks(&process), "{days}");
    }
}

#[test]
fn a_file_that_a_kill_left_half_written_under_its_other_name_is_written_over() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.ca()).unwrap();
    std::fs::write(bench.ca().join(".authority.pem.new"), "half").unwrap();
    assert!(bench.asks(&bench.start("")));
}

#[test]
fn two_of_ours_speak_by_it_and_know_each_other_by_spiffe_ids() {
    let bench = Bench::new();
    let process = Process::start(
        &bench.keys,
        &[
            ("OILSKIN_UPSTREAM", &bench.upstream.url()),
            ("OILSKIN_TLS_SOURCE", &bench.source("&names=localhost,spiffe://dev.test/store")),
            ("OILSKIN_TLS_ALLOW", "spiffe://dev.test/web"),
        ],
    );
    let proxy = |own: &str, other: &str| {
        let vars = [
            ("OILSKIN_UPSTREAM_SOURCE", bench.source(&format!("&names=spiffe://dev.test/{own}"))),
            ("OILSKIN_UPSTREAM_ALLOW", format!("spiffe://dev.test/{other}")),
        ];
        let url = format!("https://localhost:{}", process.address().port());
        let builder = Proxy::before(&bench.upstream).env("OILSKIN_UPSTREAM", &url);
        vars.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start()
    };
    assert_eq!(proxy("web", "store").json("GET", "/x", "").status(), 200);
    assert_eq!(proxy("other", "store").json("GET", "/x", "").status(), 502);
    assert_eq!(proxy("web", "other").json("GET", "/x", "").status(), 502);
}

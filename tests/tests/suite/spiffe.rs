//! Certificates and bundles from a SPIFFE Workload API, as SPIRE's agent offers it.

use std::path::PathBuf;
use std::process::Output;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::secured::{Open, served, under_load};
use oilskin_tests::spiffe::{Agent, X509svid, svid};
use oilskin_tests::{Nginx, Proxy, Upstream, client, tools};
use tempfile::TempDir;

/// The authorities of two trust domains, and a place for the agent's socket.
struct Bench {
    /// Of `own.test`.
    own: Authority,
    /// Of `far.test`.
    far: Authority,
    upstream: Upstream,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let (own, far) = (Authority::new(), Authority::new());
        own.svid("first", "URI:spiffe://own.test/first,DNS:localhost", 30);
        own.svid("second", "URI:spiffe://own.test/second,DNS:localhost", 30);
        own.svid("client", "URI:spiffe://own.test/ns/shop/web", 30);
        far.svid("client", "URI:spiffe://far.test/ns/shop/web", 30);
        let upstream = Upstream::scripted(|_, stream| oilskin_tests::upstream::respond(stream, "200 OK", &[], b""));
        Self { own, far, upstream, folder: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    fn agent(&self) -> Agent {
        Agent::start(&self.socket())
    }

    /// `query` is what stands behind the path.
    fn source(&self, query: &str) -> String {
        format!("spiffe:unix:{}{query}", self.socket().display())
    }

    fn start(&self, query: &str) -> Process {
        let source = self.source(query);
        Process::start(&Keys::new(), &[("OILSKIN_UPSTREAM", &self.upstream.url()), ("OILSKIN_TLS_SOURCE", &source)])
    }

    fn one(&self, name: &str) -> X509svid {
        svid(&self.own, name, name)
    }

    fn curl(&self, port: u16, pair: Option<(&Authority, &str)>) -> Output {
        let mut curl = tools::program("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &self.own.path("ca.pem")]);
        if let Some((authority, name)) = pair {
            curl.args(["--cert", &authority.path(&format!("{name}.pem"))]);
            curl.args(["--key", &authority.path(&format!("{name}.key"))]);
        }
        curl.arg(format!("https://localhost:{port}/x")).output().unwrap()
    }

    fn lets_in(&self, process: &Process, authority: &Authority, name: &str) -> bool {
        self.curl(process.address().port(), Some((authority, name))).status.success()
    }
}

fn ready(process: &Process) -> String {
    client::json(process.health, "GET", "/ready", "").text()
}

fn until_ready(process: &Process) {
    tools::until("readiness", || ready(process).contains("true").then_some(()));
}

fn until_served(process: &Process, name: &str) {
    tools::until(name, || (served(process.address()) == name).then_some(()));
}

#[test]
fn an_agent_that_comes_up_later_is_found_and_nobody_gets_in_before() {
    let bench = Bench::new();
    let process = bench.start("");
    tools::until("a reason", || ready(&process).contains("No such file").then_some(()));
    assert!(!bench.lets_in(&process, &bench.own, "client"));
    let page = process.metrics_page();
    assert!(page.contains("outcome=\"not_ready\"} 1") && page.contains("result=\"unreachable\"} 1"), "{page}");
    let agent = bench.agent();
    agent.put(vec![bench.one("first")], &[]);
    until_ready(&process);
    assert!(bench.lets_in(&process, &bench.own, "client"));
    assert!(!bench.curl(process.address().port(), None).status.success(), "clients must show a certificate");
    process.refused("no_certificate", 1);
}

#[test]
fn each_domain_s_authorities_vouch_for_its_own_ids_alone() {
    let bench = Bench::new();
    bench.own.svid("posing", "URI:spiffe://far.test/ns/shop/web", 30);
    bench.far.svid("posing", "URI:spiffe://own.test/ns/shop/web", 30);
    bench.far.svid("third", "URI:spiffe://third.test/ns/shop/web", 30);
    bench.own.svid("domain", "URI:spiffe://own.test", 30);
    bench.own.svid("two", "URI:spiffe://own.test/a,URI:spiffe://own.test/b", 30);
    bench.own.issue("nameless", &Wish { names: "DNS:web.test", usage: "clientAuth", ..Wish::default() });
    let agent = bench.agent();
    agent.put(vec![bench.one("first")], &[("far.test", &bench.far)]);
    let process = bench.start("");
    until_ready(&process);
    assert!(bench.lets_in(&process, &bench.own, "client"));
    assert!(bench.lets_in(&process, &bench.far, "client"));
    let refused = [
        (&bench.own, "posing"),
        (&bench.far, "posing"),
        (&bench.far, "third"),
        (&bench.own, "domain"),
        (&bench.own, "two"),
        (&bench.own, "nameless"),
    ];
    for (at, (authority, name)) in refused.into_iter().enumerate() {
        assert!(!bench.lets_in(&process, authority, name), "{name}");
        process.refused("unknown_authority", at as u64 + 1);
    }
}

#[test]
fn whose_bundle_is_withdrawn_is_out_at_once_and_others_stay() {
    let bench = Bench::new();
    let agent = bench.agent();
    agent.put(vec![bench.one("first")], &[("far.test", &bench.far)]);
    let process = bench.start("");
    until_ready(&process);
    let (mut near, mut far) = (Open::new(&process, &bench.own, &[]), Open::new(&process, &bench.far, &[]));
    assert!(near.asks() && far.asks());
    agent.put(vec![bench.one("first")], &[]);
    tools::until("the foreign client's end", || (!far.asks()).then_some(()));
    assert!(near.asks());
    assert!(!Open::new(&process, &bench.far, &[]).asks());
}

#[test]
fn rotation_under_load_fails_no_request() {
    let bench = Bench::new();
    let agent = bench.agent();
    agent.put(vec![bench.one("first")], &[]);
    let process = bench.start("?trust=");
    until_ready(&process);
    let port = process.address().port();
    let fresh = || bench.curl(port, None).status.success();
    under_load(port, fresh, |at| {
        agent.put(vec![bench.one(["second", "first"][at % 2])], &[]);
        let taken = format!("result=\"ok\"}} {}\n", at + 2);
        tools::until("the next certificate", || process.metrics_page().contains(&taken).then_some(()));
    });
    assert_eq!(agent.asked(), 1);
}

#[test]
fn a_state_that_cannot_be_used_leaves_the_last_good_one_in_place() {
    let bench = Bench::new();
    bench.own.svid("old", "URI:spiffe://own.test/old,DNS:localhost", -1);
    bench.own.issue("plain", &Wish::default());
    let agent = bench.agent();
    agent.put(vec![bench.one("first")], &[]);
    let process = bench.start("");
    until_ready(&process);
    let broken = X509svid { x509_svid: b"\x30\x82no certificate".to_vec(), ..bench.one("second") };
    let keyless = X509svid { x509_svid_key: b"no key".to_vec(), ..bench.one("second") };
    let unbound = X509svid { bundle: b"\x30\x82no bundle".to_vec(), ..bench.one("second") };
    let wrong = [
        (vec![svid(&bench.own, "second", "first")], "mismatch", "does not fit"),
        (vec![bench.one("old")], "expired", "has expired"),
        (Vec::new(), "source", "field: X509SVIDResponse.svids"),
        (vec![broken], "source", "SVID: failed parsing"),
        (vec![keyless], "source", "PKCS#8"),
        (vec![unbound], "source", "X.509 bundle"),
        (vec![bench.one("plain")], "source", "extension is missing"),
    ];
    for (svids, reason, text) in wrong {
        agent.put(svids, &[]);
        let line = process.logged(|line| line.contains("certificates are refused") && line.contains(text));
        assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{line}");
        assert!(!line.contains("no key"), "{line}");
        assert_eq!(served(process.address()), "first");
        assert!(bench.lets_in(&process, &bench.own, "client"));
    }
    assert!(ready(&process).contains("true"));
    assert_eq!(agent.asked(), 1, "a bad state ends no stream");
    agent.put(vec![bench.one("second")], &[]);
    until_served(&process, "second");
}

#[test]
fn what_is_held_serves_on_while_the_agent_is_gone_and_issues_nothing() {
    let bench = Bench::new();
    let agent = bench.agent();
    agent.put(vec![bench.one("first")], &[]);
    let process = bench.start("");
    until_ready(&process);
    drop(agent);
    process.logged(|line| line.contains("is gone, what is held serves on"));
    assert!(bench.lets_in(&process, &bench.own, "client"));
    // It starts, and has not heard of us yet.
    let agent = bench.agent();
    process.logged(|line| line.contains("\"reason\":\"denied\""));
    assert!(ready(&process).contains("true") && bench.lets_in(&process, &bench.own, "client"));
    agent.put(vec![bench.one("second")], &[]);
    until_served(&process, "second");
    agent.deny();
    let told = |line: &&String| line.contains("issues no identity to this workload");
    tools::until("a second denial", || (process.log().iter().filter(told).count() == 2).then_some(()));
    assert!(bench.lets_in(&process, &bench.own, "client"));
}

#[test]
fn a_workload_that_is_not_registered_is_told_and_asks_again() {
    let bench = Bench::new();
    let agent = bench.agent();
    let process = bench.start("");
    let line = process.logged(|line| line.contains("issues no identity to this workload: register it"));
    assert!(line.contains("\"reason\":\"denied\"") && line.contains("PermissionDenied"), "{line}");
    assert!(ready(&process).contains("register it"), "{}", ready(&process));
    tools::until("another request", || (agent.asked() > 1).then_some(()));
    agent.put(vec![bench.one("first")], &[]);
    until_ready(&process);
}

#[test]
fn a_hint_chooses_among_several_identities() {
    let bench = Bench::new();
    let agent = bench.agent();
    let hinted = |name: &str, hint: &str| X509svid { hint: hint.to_owned(), ..bench.one(name) };
    agent.put(vec![hinted("first", "inner")], &[]);
    let process = bench.start("?hint=outer");
    let line = process.logged(|line| line.contains("no identity has the hint that is wanted; hints are: inner"));
    assert!(line.contains("\"reason\":\"certificate\""), "{line}");
    agent.put(vec![hinted("first", "inner"), hinted("second", "outer")], &[]);
    until_ready(&process);
    assert_eq!(served(process.address()), "second");
    let other = bench.start("");
    until_ready(&other);
    assert_eq!(served(other.address()), "first", "the first one where none is wanted");
}

#[test]
fn an_upstream_is_spoken_to_with_what_is_issued_and_judged_by_its_domain() {
    let bench = Bench::new();
    bench.own.svid("posing", "URI:spiffe://far.test/store", 30);
    let file = |name: &str| bench.own.path(name);
    let good = Nginx::mtls_store(&file("first.pem"), &file("first.key"), &file("ca.pem"));
    let posing = Nginx::mtls_store(&file("posing.pem"), &file("posing.key"), &file("ca.pem"));
    let agent = bench.agent();
    let start = |nginx: &Nginx| {
        Proxy::yaml(&format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0}}]\n\
             upstreams: {{up: {{url: \"https://{}\", tls: {{source: \"{}\", \
             allow: [\"spiffe://own.test/first\", \"spiffe://far.test/store\"]}}}}}}\n\
             routes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n",
            nginx.address(),
            bench.source("")
        ))
        .start()
    };
    let (to_good, to_posing) = (start(&good), start(&posing));
    assert_eq!(to_good.json("PUT", "/x", "{}").status(), 502);
    agent.put(vec![bench.one("client")], &[("far.test", &bench.far)]);
    tools::until("the upstream", || (to_good.json("PUT", "/x", "{}").status() < 300).then_some(()));
    let taken = |proxy: &Proxy| proxy.metrics().contains("result=\"ok\"} 1").then_some(());
    tools::until("the other's certificate", || taken(&to_posing));
    assert_eq!(to_posing.json("PUT", "/x", "{}").status(), 502, "our authority does not vouch for far.test");
}

#[test]
fn the_system_s_authorities_vouch_for_upstreams_without_an_id_alone() {
    let (bench, system) = (Bench::new(), Authority::new());
    system.issue("named", &Wish::default());
    system.issue("posing", &Wish { names: "URI:spiffe://own.test/first,DNS:localhost", ..Wish::default() });
    let agent = bench.agent();
    agent.put(vec![bench.one("client")], &[]);
    for (authority, name, taken) in [(&system, "named", true), (&system, "posing", false), (&bench.own, "first", true)]
    {
        let file = |end: &str| authority.path(&format!("{name}.{end}"));
        let nginx = Nginx::tls_store("", &file("pem"), &file("key"));
        let yaml = format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0}}]\n\
             upstreams: {{up: {{url: \"https://localhost:{}\", tls: {{source: \"{}\", roots: system}}}}}}\n\
             routes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n",
            nginx.address().port(),
            bench.source("")
        );
        let vars = [("OILSKIN_CONFIG_YAML", yaml.as_str()), ("SSL_CERT_FILE", &system.path("ca.pem"))];
        let process = Process::start(&Keys::new(), &vars);
        until_ready(&process);
        let status = client::json(process.address(), "PUT", "/x", "{}").status();
        assert_eq!(status < 300, taken, "{name}: {status}");
    }
}

#[test]
fn authorities_that_are_all_gone_let_nobody_in() {
    let bench = Bench::new();
    let agent = bench.agent();
    agent.put(vec![bench.one("first")], &[]);
    let process = bench.start("");
    until_ready(&process);
    agent.put_without_bundle("own.test", vec![bench.one("first")]);
    tools::until("the change", || process.metrics_page().contains("result=\"ok\"} 2").then_some(()));
    assert!(!bench.lets_in(&process, &bench.own, "client"));
    assert!(!bench.curl(process.address().port(), None).status.success());
}

#[test]
fn the_socket_may_be_named_by_the_environment() {
    let bench = Bench::new();
    let agent = bench.agent();
    agent.put(vec![bench.one("first")], &[]);
    let (url, socket) = (bench.upstream.url(), format!("unix://{}", bench.socket().display()));
    let vars =
        [("OILSKIN_UPSTREAM", url.as_str()), ("OILSKIN_TLS_SOURCE", "spiffe:"), ("SPIFFE_ENDPOINT_SOCKET", &socket)];
    until_ready(&Process::start(&Keys::new(), &vars));
    for (socket, told) in [("tcp://127.0.0.1:8081", "over TCP keys would cross"), ("", "is not set")] {
        let mut command = process::command(&Keys::new());
        command.arg("check").env("OILSKIN_UPSTREAM", &url).env("OILSKIN_TLS_SOURCE", "spiffe:");
        let output = command.env("SPIFFE_ENDPOINT_SOCKET", socket).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(78) && said.contains(told), "{said}");
    }
}

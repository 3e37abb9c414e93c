//! Certificates and authorities from Envoy's secret discovery service, as istio-agent offers it.

use std::path::PathBuf;
use std::process::{Command, Output};

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::sds::{Sds, certificate, trust};
use oilskin_tests::secured::{Open, served, under_load};
use oilskin_tests::tools::Killed;
use oilskin_tests::{Nginx, Proxy, Upstream, client, tools};
use tempfile::TempDir;

const CLIENT: Wish<'_> =
    Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/web", usage: "clientAuth", days: 30, key: "ec:P-256" };

/// An authority with two server certificates and a client's, and a place for the socket.
struct Bench {
    authority: Authority,
    upstream: Upstream,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let authority = Authority::new();
        for name in ["first", "second"] {
            authority.issue(name, &Wish::default());
        }
        authority.issue("client", &CLIENT);
        let upstream = Upstream::scripted(|_, stream| oilskin_tests::upstream::respond(stream, "200 OK", &[], b""));
        Self { authority, upstream, folder: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sds")
    }

    fn server(&self) -> Sds {
        Sds::start(&self.socket())
    }

    /// `query` is what stands behind the path.
    fn start(&self, query: &str) -> Process {
        let source = format!("sds:unix:{}{query}", self.socket().display());
        Process::start(&Keys::new(), &[("OILSKIN_UPSTREAM", &self.upstream.url()), ("OILSKIN_TLS_SOURCE", &source)])
    }

    fn curl(&self, port: u16, as_client: bool) -> Output {
        let mut curl = tools::program("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &self.authority.path("ca.pem")]);
        if as_client {
            curl.args(["--cert", &self.authority.path("client.pem"), "--key", &self.authority.path("client.key")]);
        }
        curl.arg(format!("https://localhost:{port}/x")).output().unwrap()
    }

    fn pair(&self, name: &str) -> oilskin_tests::sds::Secret {
        certificate("default", &self.authority, name, name)
    }
}

fn ready(process: &Process) -> String {
    client::json(process.health, "GET", "/ready", "").text()
}

fn until_ready(process: &Process) {
    tools::until("readiness", || ready(process).contains("true").then_some(()));
}

/// Envoy, which takes its certificate and authorities from the server.
fn envoy(bench: &Bench, port: u16) -> Killed {
    let program = tools::top().join(".venv/bin/envoy");
    assert!(program.exists(), "there is no Envoy: run `make deps`");
    let source = "{resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, \
                  grpc_services: [{envoy_grpc: {cluster_name: sds}}]}}";
    let config = format!(
        r#"
node: {{id: tests, cluster: tests}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificate_sds_secret_configs: [{{name: default, sds_config: {source}}}]
            validation_context_sds_secret_config: {{name: ROOTCA, sds_config: {source}}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: tests
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}]}}
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
  clusters:
  - name: sds
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment: {{cluster_name: sds, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: "{}"}}}}}}}}]}}]}}
"#,
        bench.socket().display()
    );
    let path = bench.folder.path().join("envoy.yaml");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(program);
    command.args(["--use-dynamic-base-id", "-l", "error", "--concurrency", "1", "-c"]).arg(path);
    Killed(command.spawn().unwrap())
}

#[test]
fn the_test_s_server_serves_envoy() {
    let bench = Bench::new();
    let server = bench.server();
    server.put(vec![bench.pair("first"), trust("ROOTCA", &bench.authority)]);
    let address = process::free_port();
    let _envoy = envoy(&bench, address.port());
    tools::until("Envoy", || bench.curl(address.port(), true).status.success().then_some(()));
    assert!(!bench.curl(address.port(), false).status.success(), "Envoy asks for a certificate");
    server.put(vec![bench.pair("second")]);
    tools::until("Envoy's second certificate", || (served(address) == "second").then_some(()));
    server.put(vec![certificate("default", &bench.authority, "second", "first")]);
    tools::until("Envoy's refusal", || server.requests().iter().any(|one| one.error_detail.is_some()).then_some(()));
}

#[test]
fn before_the_first_secrets_nobody_gets_in_and_with_them_only_who_the_authorities_know() {
    let bench = Bench::new();
    let process = bench.start("");
    let port = process.address().port();
    tools::until("a reason", || ready(&process).contains("No such file").then_some(()));
    assert!(!bench.curl(port, true).status.success());
    let page = process.metrics_page();
    assert!(page.contains("outcome=\"not_ready\"} 1") && page.contains("result=\"unreachable\"} 1"), "{page}");
    let server = bench.server();
    server.put(vec![bench.pair("first")]);
    tools::until("a request", || (!server.requests().is_empty()).then_some(()));
    let first = server.requests().remove(0);
    assert_eq!(first.resource_names, ["default", "ROOTCA"]);
    assert!(!first.node.unwrap().id.is_empty() && first.response_nonce.is_empty());
    assert!(ready(&process).contains("false"), "half of what was asked for is not enough");
    server.put(vec![trust("ROOTCA", &bench.authority)]);
    until_ready(&process);
    assert!(bench.curl(port, true).status.success());
    assert!(!bench.curl(port, false).status.success(), "clients must show a certificate");
    assert!(process.metrics_page().contains("outcome=\"no_certificate\"} 1"), "{}", process.metrics_page());
}

#[test]
fn pushes_under_load_fail_no_request() {
    let bench = Bench::new();
    let server = bench.server();
    server.put(vec![bench.pair("first")]);
    let process = bench.start("?trust=");
    until_ready(&process);
    let port = process.address().port();
    let fresh = || bench.curl(port, false).status.success();
    under_load(port, fresh, |at| {
        server.put(vec![bench.pair(["second", "first"][at % 2])]);
        let version = (at + 2).to_string();
        tools::until("an acknowledgement", || {
            (server.requests().last().unwrap().version_info == version).then_some(())
        });
    });
    let refused = server.requests().into_iter().find(|request| request.error_detail.is_some());
    assert!(refused.is_none(), "{refused:?}");
    let page = process.metrics_page();
    assert!(page.contains("result=\"ok\"} 61"), "{page}");
}

#[test]
fn a_key_that_does_not_fit_is_refused_and_the_old_certificate_serves_on() {
    let bench = Bench::new();
    let server = bench.server();
    server.put(vec![bench.pair("first"), trust("ROOTCA", &bench.authority)]);
    let process = bench.start("");
    until_ready(&process);
    server.put(vec![certificate("default", &bench.authority, "second", "first")]);
    let refusal =
        tools::until("a refusal", || server.requests().into_iter().find(|request| request.error_detail.is_some()));
    assert_eq!((refusal.version_info.as_str(), refusal.response_nonce.as_str()), ("1", "nonce-2"));
    let told = refusal.error_detail.unwrap().message;
    assert!(told.contains("does not fit") && !told.contains("BEGIN"), "{told}");
    process.logged(|line| line.contains("what is held serves on") && line.contains("\"reason\":\"mismatch\""));
    assert_eq!(served(process.address()), "first");
    assert!(ready(&process).contains("true"));
    server.put(vec![bench.pair("second")]);
    tools::until("the second certificate", || (served(process.address()) == "second").then_some(()));
}

#[test]
fn a_dropped_stream_is_made_anew_and_what_is_held_serves_until_then() {
    let bench = Bench::new();
    let server = bench.server();
    let both = |name| vec![bench.pair(name), trust("ROOTCA", &bench.authority)];
    server.put(both("first"));
    let process = bench.start("");
    until_ready(&process);
    let asked = server.requests().len();
    server.cut();
    tools::until("another stream", || {
        server.requests()[asked..].iter().any(|request| request.response_nonce.is_empty()).then_some(())
    });
    server.put(vec![bench.pair("second")]);
    tools::until("the second certificate", || (served(process.address()) == "second").then_some(()));
    drop(server);
    process.logged(|line| line.contains("is gone, what is held serves on"));
    assert!(ready(&process).contains("true"));
    assert!(bench.curl(process.address().port(), true).status.success());
    let server = bench.server();
    server.put(both("first"));
    tools::until("the first certificate", || (served(process.address()) == "first").then_some(()));
}

#[test]
fn a_service_that_has_stopped_with_its_socket_open_is_noticed_and_asked_anew() {
    let bench = Bench::new();
    let server = bench.server();
    server.put(vec![bench.pair("first"), trust("ROOTCA", &bench.authority)]);
    let process = bench.start("");
    until_ready(&process);
    let frozen = server.freeze();
    let line = process.logged(|line| line.contains("is gone, what is held serves on"));
    assert!(line.contains("\"reason\":\"unreachable\""), "{line}");
    assert!(ready(&process).contains("true"));
    assert!(bench.curl(process.address().port(), true).status.success());
    let asked = server.requests().len();
    drop(frozen);
    server.put(vec![bench.pair("second")]);
    tools::until("the second certificate", || (served(process.address()) == "second").then_some(()));
    assert!(server.requests()[asked..].iter().any(|request| request.response_nonce.is_empty()), "by another stream");
}

#[test]
fn whom_pushed_trust_refuses_is_out_at_once() {
    let (bench, other) = (Bench::new(), Authority::new());
    other.issue("client", &CLIENT);
    let server = bench.server();
    server.put(vec![bench.pair("first"), trust("ROOTCA", &bench.authority)]);
    let process = bench.start("");
    until_ready(&process);
    let mut old = Open::new(&process, &bench.authority, &[]);
    assert!(old.asks());
    // Of another certificate alone nobody is judged anew; what comes after it still is.
    server.put(vec![bench.pair("second")]);
    tools::until("the second certificate", || (served(process.address()) == "second").then_some(()));
    assert!(old.asks());
    server.put(vec![trust("ROOTCA", &other)]);
    tools::until("the old client's end", || (!old.asks()).then_some(()));
    assert!(!Open::new(&process, &bench.authority, &[]).asks());
    assert!(Open::new(&process, &other, &[]).asks());
}

#[test]
fn an_upstream_is_spoken_to_with_pushed_secrets_and_not_before() {
    let bench = Bench::new();
    let (chain, key, ca) =
        (bench.authority.path("first.pem"), bench.authority.path("first.key"), bench.authority.path("ca.pem"));
    let nginx = Nginx::mtls_store(&chain, &key, &ca);
    let source = format!("sds:unix:{}?certificate=ours", bench.socket().display());
    let proxy = Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0}}]\n\
         upstreams: {{up: {{url: \"https://localhost:{}\", tls: {{source: \"{source}\"}}}}}}\n\
         routes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n",
        nginx.address().port()
    ))
    .start();
    assert_eq!(proxy.json("PUT", "/x", "{}").status(), 502);
    let server = bench.server();
    server.put(vec![certificate("ours", &bench.authority, "client", "client"), trust("ROOTCA", &bench.authority)]);
    tools::until("the upstream", || (proxy.json("PUT", "/x", "{}").status() < 300).then_some(()));
}

//! Handshakes that go wrong, by accident or on purpose: each has its outcome in the metric, and the listener serves on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::process::Process;
use oilskin_tests::tools;

use super::mtls::{BODY, Bench, text};

fn odd(process: &Process, case: &str) -> String {
    let tool = tools::top().join("tests/tools/handshakes.py");
    let port = process.address().port().to_string();
    tools::run(tools::python().arg(tool).args([&port, case])).trim().to_owned()
}

/// What OpenSSL's client prints.
fn s_client(process: &Process, more: &[&str], input: &[u8]) -> String {
    let mut openssl = tools::program("openssl");
    openssl.args(["s_client", "-connect", &process.address().to_string(), "-ign_eof"]).args(more);
    let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn malformed_handshakes_are_refused_and_counted_and_odd_ones_are_served() {
    let bench = Bench::new();
    let mut process = bench.start(&[]);
    let served = [
        "same",
        "same_name_on_retry",
        "unknown_extensions",
        "large_extension",
        "empty_records_inside",
        // Its data is skipped, unread.
        "early_data",
    ];
    for (at, case) in served.into_iter().enumerate() {
        assert_eq!(odd(&process, case), "served", "{case}");
        assert_eq!(bench.upstream.seen().len(), at + 1, "{case}");
    }
    let protocol = [
        "bad_finished",
        "finished_too_early",
        "data_before_finished",
        "second_hello",
        "twice_the_same_extension",
        "other_name_on_retry",
        "empty_record",
        "empty_alert",
        "empty_change_of_cipher",
        "record_of_unknown_type",
        "oversized_record",
        "oversized_message",
        "empty_hello",
        "clear_text",
        "sslv2",
    ];
    let incompatible = ["ssl_3", "tls_1_0", "tls_1_1", "null_ciphers", "export_ciphers", "anonymous_ciphers"];
    for (outcome, cases) in [("protocol", protocol.as_slice()), ("incompatible", &incompatible)] {
        for (at, case) in cases.iter().enumerate() {
            let told = odd(&process, case);
            assert!(told.starts_with("alert ") || ["closed", "unreadable"].contains(&told.as_str()), "{case}: {told}");
            let counted = || process.handshakes("app", "", outcome) == at as u64 + 1;
            tools::until(case, || counted().then_some(()));
        }
    }
    assert_eq!(bench.upstream.seen().len(), served.len(), "nothing of the refused got through");
    assert_eq!(text(&bench.curl(&process, None, &[])), BODY);
    assert!(process.runs() && !process.log().iter().any(|line| line.contains("panic")), "{:?}", process.log());
}

#[test]
fn where_tls_12_is_spoken_nothing_older_or_weaker_is_and_nobody_renegotiates() {
    let bench = Bench::new();
    let process = bench.tls12(&[]);
    for case in ["ssl_3", "tls_1_0", "tls_1_1", "null_ciphers", "export_ciphers", "anonymous_ciphers"] {
        let told = odd(&process, case);
        assert!(told.starts_with("alert "), "{case}: {told}");
    }
    process.refused("incompatible", 6);
    let weak = ["-tls1_2", "-cipher"];
    for suites in ["AES128-SHA:AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"] {
        let told = s_client(&process, &[&weak[..], &[&format!("{suites}:@SECLEVEL=0")]].concat(), b"");
        assert!(told.contains("handshake failure"), "{suites}: {told}");
    }
    // OpenSSL asks for a new handshake at this; its input stays open, so that only what the listener says can end it.
    let mut openssl = tools::program("timeout");
    openssl.args(["20", "openssl", "s_client", "-tls1_2", "-msg", "-connect", &process.address().to_string()]);
    let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"R\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    let told = text(&output);
    assert_ne!(output.status.code(), Some(124), "it hangs: {told}");
    assert_eq!((told.matches(", ClientHello").count(), told.matches(", ServerHello\n").count()), (2, 1), "{told}");
    assert!(told.contains("warning no_renegotiation"), "{told}");
    assert_eq!(process.handshakes("app", "X25519", "full"), 1, "{}", process.metrics_page());
}

#[test]
fn a_certificate_without_its_key_opens_nothing() {
    let bench = Bench::new();
    let path = |file: &str| bench.authority.path(file);
    let process = bench.start(&[("OILSKIN_TLS_CLIENT_CA_FILE", &path("ca.pem"))]);
    let tool = tools::top().join("tests/tools/handshakes.py");
    let port = process.address().port().to_string();
    let show = |key: &str| {
        let mut python = tools::python();
        tools::run(python.arg(&tool).args([&port, "same", &path("client.pem"), &path(key)])).trim().to_owned()
    };
    assert_eq!(show("client.key"), "served");
    let told = show("server.key");
    assert!(told.starts_with("alert ") || told == "closed", "{told}");
    process.refused("bad_signature", 1);
    assert_eq!(bench.upstream.seen().len(), 1);
}

#[test]
fn tickets_allow_no_early_data() {
    let bench = Bench::new();
    let process = bench.start(&[]);
    let session = tempfile::NamedTempFile::new().unwrap();
    let path = session.path().to_str().unwrap();
    let request = b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    s_client(&process, &["-sess_out", path], request);
    let shown = tools::run(tools::program("openssl").args(["sess_id", "-noout", "-text", "-in", path]));
    assert!(shown.contains("Max Early Data: 0"), "{shown}");
}

#[test]
fn who_asks_for_no_name_or_an_unknown_one_gets_the_first_certificate() {
    let bench = Bench::new();
    bench.authority.issue("other", &Wish { names: "DNS:other.test", ..Wish::default() });
    let path = |file: &str| bench.authority.path(file);
    let yaml = format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, tls: {{cert_file: {}, key_file: {}, more: [{{cert_file: {}, key_file: {}}}]}}}}]\n\
         upstreams: {{up: {{url: \"{}\"}}}}\nroutes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n",
        path("server.pem"),
        path("server.key"),
        path("other.pem"),
        path("other.key"),
        bench.upstream.url()
    );
    let process = Process::start(&bench.keys, &[("OILSKIN_CONFIG_YAML", &yaml)]);
    let request = b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    for (arguments, subject) in [
        (&["-noservername"][..], "CN = server"),
        (&["-servername", "unknown.test"], "CN = server"),
        (&["-servername", "other.test"], "CN = other"),
        (&["-servername", "OTHER.test"], "CN = other"),
    ] {
        let told = s_client(&process, arguments, request);
        assert!(told.contains(&format!("subject={subject}")) && told.contains("200 OK"), "{arguments:?}: {told}");
    }
}

#[test]
fn a_client_with_a_hundred_certificates_is_refused_at_little_cost() {
    let bench = Bench::new();
    // The authority's own, a hundred times, in the place of what leads to it.
    let ca = std::fs::read_to_string(bench.authority.path("ca.pem")).unwrap();
    std::fs::write(bench.authority.path("many.pem"), ca.repeat(100)).unwrap();
    let path = |file: &str| bench.authority.path(file);
    let process = bench.start(&[("OILSKIN_TLS_CLIENT_CA_FILE", &path("ca.pem"))]);
    let started = Instant::now();
    let (certificate, key, chain) = (path("client.pem"), path("client.key"), path("many.pem"));
    s_client(&process, &["-cert", &certificate, "-key", &key, "-cert_chain", &chain], b"");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    process.refused("certificate", 1);
    assert_eq!(text(&bench.curl(&process, Some((&bench.authority, "client")), &[])), BODY);
}

#[test]
fn a_list_of_ten_thousand_works_and_one_that_has_expired_lets_nobody_in() {
    let bench = Bench::new();
    let own = &bench.authority;
    own.issue("gone", &Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/web", usage: "clientAuth", ..Wish::default() });
    own.revoke(&["gone"]);
    own.revoke_many(10_000, 3600);
    let (ca, crl) = (own.path("ca.pem"), own.path("crl.pem"));
    let vars = [("OILSKIN_TLS_CLIENT_CA_FILE", ca.as_str()), ("OILSKIN_TLS_CRL_FILE", &crl)];
    let process = bench.start(&vars);
    assert_eq!(text(&bench.curl(&process, Some((own, "client")), &[])), BODY);
    assert!(!bench.curl(&process, Some((own, "gone")), &[]).status.success());
    process.refused("revoked", 1);
    own.revoke_many(0, -60);
    let process = bench.start(&vars);
    assert!(!bench.curl(&process, Some((own, "client")), &[]).status.success());
    process.refused("revocation_list_expired", 1);
    // Of a stranger's certificates it says nothing, which is no reason to let one in.
    let stranger = Authority::new();
    stranger.revoke(&[]);
    let crl = stranger.path("crl.pem");
    let process = bench.start(&[("OILSKIN_TLS_CLIENT_CA_FILE", &ca), ("OILSKIN_TLS_CRL_FILE", &crl)]);
    assert!(!bench.curl(&process, Some((own, "client")), &[]).status.success());
    process.refused("revocation_unknown", 1);
}

/// A real ClientHello, by OpenSSL, as its bytes.
fn client_hello() -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut openssl = tools::program("openssl");
    openssl.args(["s_client", "-connect", &address, "-servername", "localhost"]);
    let child = openssl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _child = tools::Killed(child);
    let (mut stream, _) = listener.accept().unwrap();
    let mut header = [0; 5];
    stream.read_exact(&mut header).unwrap();
    let mut rest = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut rest).unwrap();
    [header.to_vec(), rest].concat()
}

#[test]
fn thousands_of_handshakes_broken_off_leave_nothing_behind() {
    const EACH: usize = 700;
    let (bench, hello) = (Bench::new(), client_hello());
    let mut process = bench.start(&[]);
    assert_eq!(text(&bench.curl(&process, None, &[])), BODY);
    let (files, mut memory) = (process.open_files(), 0);
    let connect = || TcpStream::connect(process.address()).unwrap();
    for turn in 0..EACH {
        // By then everything that is kept for reuse is there.
        if turn == EACH / 2 {
            memory = process.memory();
        }
        drop(connect());
        connect().write_all(&hello[..hello.len() / 2]).unwrap();
        // It ends with the answer unread, which is a reset.
        let mut whole = connect();
        whole.write_all(&hello).unwrap();
        whole.read_exact(&mut [0; 5]).unwrap();
    }
    tools::until("all of them counted", || (process.handshakes("app", "", "closed") == 3 * EACH as u64).then_some(()));
    tools::until("their sockets closed", || (process.open_files() <= files + 1).then_some(()));
    let grown = process.memory().saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes more than after half of them");
    assert_eq!(text(&bench.curl(&process, None, &[])), BODY);
    assert!(process.runs());
}

#[test]
fn clients_that_never_end_their_handshake_are_bounded_in_number_and_time() {
    let bench = Bench::new();
    let process = bench.start(&[
        ("OILSKIN_WORKERS", "1"),
        ("OILSKIN_LIMITS_HANDSHAKES", "2"),
        ("OILSKIN_TIMEOUTS_HANDSHAKE", "1s"),
    ]);
    let started = Instant::now();
    let mut silent: Vec<_> = (0..8).map(|_| TcpStream::connect(process.address()).unwrap()).collect();
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)), "closed");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    tools::until("all of them counted", || {
        let (late, many) = (process.handshakes("app", "", "timeout"), process.handshakes("app", "", "too_many"));
        (late >= 2 && many >= 2 && late + many == 8).then_some(())
    });
    assert_eq!(text(&bench.curl(&process, None, &[])), BODY);
}

#[test]
fn sslyze_finds_nothing() {
    let bench = Bench::new();
    let process = bench.start(&[]);
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut sslyze = tools::python();
    sslyze.args(["-m", "sslyze", "--mozilla_config", "modern", "--early_data"]);
    sslyze.arg(format!("--certinfo_ca_file={}", bench.authority.path("ca.pem")));
    sslyze.arg(format!("--json_out={}", report.path().display()));
    let output = sslyze.arg(format!("localhost:{}", process.address().port())).output().unwrap();
    let told = text(&output);
    let compliance = told.split("COMPLIANCE AGAINST").nth(1).unwrap_or_else(|| panic!("{output:?}"));
    let complaints: Vec<_> = compliance.lines().filter(|line| line.trim_start().starts_with("* ")).collect();
    // Private authorities are in no browser's store.
    let real: Vec<_> = complaints.iter().filter(|line| !line.contains("certificate_path_validation")).collect();
    assert!(real.is_empty(), "{real:?}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap();
    let scan = &report["server_scan_results"][0]["scan_result"];
    for (test, key, wanted) in [
        ("tls_1_3_early_data", "supports_early_data", false),
        ("tls_compression", "supports_compression", false),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", false),
        ("heartbleed", "is_vulnerable_to_heartbleed", false),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", false),
    ] {
        assert_eq!(scan[test]["result"][key], serde_json::Value::Bool(wanted), "{test}: {}", scan[test]);
    }
}

/// What short-lived private certificates cannot meet.
const ALLOWED: [&str; 7] = [
    "cert_expirationStatus",
    "cert_notAfter",
    "cert_revocation",
    "cert_trust",
    "security_headers",
    "HSTS",
    "DNS_CAArecord",
];

#[test]
fn testssl_finds_nothing() {
    let bench = Bench::new();
    // It waits for the end of what it leaves open.
    let process = bench.tls12(&[("OILSKIN_TIMEOUTS_IDLE", "5s")]);
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut testssl = tools::program("testssl");
    testssl.args(["--quiet", "--color", "0", "--warnings", "off", "--severity", "MEDIUM", "--ip", "127.0.0.1"]);
    testssl.args(["--add-ca", &bench.authority.path("ca.pem")]).arg("--jsonfile").arg(&report);
    testssl.arg(format!("localhost:{}", process.address().port()));
    let output = testssl.current_dir(folder.path()).stdin(Stdio::null()).output().unwrap();
    let written = std::fs::read(&report).unwrap_or_else(|_| panic!("{output:?}"));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&written).unwrap();
    let word = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let real: Vec<_> = findings
        .iter()
        .filter(|one| ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&word(one, "severity").as_str()))
        .filter(|one| !ALLOWED.contains(&word(one, "id").as_str()))
        .collect();
    assert!(real.is_empty(), "{real:?}");
    assert!(text(&output).contains(" Done "), "it came to its end: {}", text(&output));
}

//! Edges between what an app sends, what a route means and what an upstream may answer.

use oilskin_tests::frames::Wire;
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Client, Message, Proxy, Upstream, tools};

fn told(answer: &Message) -> (u16, String) {
    (answer.status(), answer.code())
}

fn yaml(upstream: &Upstream, routes: &str) -> String {
    format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{}\"}}}}\nroutes:\n{routes}",
        upstream.url()
    )
}

#[test]
fn a_route_for_a_host_takes_it_however_it_is_sent() {
    let upstream = Upstream::echo();
    let routes = "- {name: api, match: {listener: out, path: \"/{*rest}\", host: api.example}, upstream: up, fields: [{select: $.ssn}]}\n\
                  - {name: open, match: {listener: out, path: \"/{*rest}\"}, upstream: up}\n";
    let proxy = Proxy::yaml(&yaml(&upstream, routes)).start();
    let body = r#"{"ssn":"123-45-6789"}"#;
    let post = |host: &str| {
        let head = format!(
            "POST / HTTP/1.1\r\n{host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        proxy.client().send(head + body).response("POST")
    };
    for host in ["api.example", "API.example:21901", "api.example.", "api.example:", "u@api.example:80"] {
        assert_eq!(post(&format!("Host: {host}")).text(), body, "{host}");
        assert!(upstream.seen().pop().unwrap().text().contains("oil1."), "{host}");
    }
    assert_eq!(post("Host: other.example").text(), body);
    assert_eq!(upstream.seen().pop().unwrap().text(), body, "another host is another route");
    let before = upstream.seen().len();
    assert_eq!(told(&post("Host: other.example\r\nHost: api.example")), (400, "bad_request".to_owned()));
    assert_eq!(upstream.seen().len(), before);
}

#[test]
fn ciphertext_passes_tokens_on_and_no_plaintext() {
    let upstream = Upstream::json(r#"{"c":"plain","id":"1"}"#);
    let routes = "- {name: all, match: {listener: out, path: \"/{id}\"}, upstream: up, fields: [\
                  {select: $.c, on_decrypt_error: ciphertext, bind: {id: [path.id]}}]}\n";
    let proxy = Proxy::yaml(&yaml(&upstream, routes)).start();
    assert_eq!(told(&proxy.json("GET", "/1", "")), (502, "decrypt_failed".to_owned()));
}

#[test]
fn graphql_in_the_target_does_not_carry_variables_past_their_rules() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.variables.ssn").start();
    for target in ["/g?variables=%7B%22ssn%22:%221%22%7D", "/g?query=%7Ba(s:%221%22)%7D", "/g?v%61riables=1"] {
        assert_eq!(told(&proxy.json("GET", target, "")), (400, "bad_request".to_owned()), "{target}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_tunnel_is_not_opened_and_a_switch_that_no_one_asked_for_is_refused() {
    let upstream = Upstream::scripted(|_, stream| {
        respond(stream, "101 Switching Protocols", &[("Upgrade", "x"), ("Connection", "upgrade")], b"");
        Then::Close
    });
    let proxy = Proxy::before(&upstream).start();
    let answer = proxy.client().send("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").response("GET");
    assert_eq!(told(&answer), (400, "bad_request".to_owned()));
    assert!(upstream.seen().is_empty());
    assert_eq!(told(&proxy.json("GET", "/", "")), (502, "upstream_invalid".to_owned()));
}

#[test]
fn cookie_crumbs_of_http_2_are_one_field_to_http_1() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).start();
    let mut wire = Wire::connect(proxy.address());
    assert_eq!(wire.request("GET", "/", &[("cookie", "a=1"), ("cookie", "b=2")], b"").status(), 200);
    let head = upstream.one().head;
    let cookies: Vec<&str> = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("cookie:")).collect();
    assert_eq!(cookies.len(), 1, "{head}");
    assert!(cookies[0].ends_with("a=1; b=2"), "{head}");
}

#[test]
fn an_answer_of_two_types_is_refused() {
    let upstream = Upstream::scripted(|_, stream| {
        let types = [("Content-Type", "text/plain"), ("Content-Type", "application/json")];
        respond(stream, "200 OK", &types, br#"{"ssn":"attacker"}"#)
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    assert_eq!(told(&proxy.json("GET", "/", "")), (502, "unsupported_type".to_owned()));
}

#[test]
fn a_unix_listener_is_there_until_the_process_ends() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("out.sock");
    let document = format!(
        "listeners:\n- {{name: out, bind: 127.0.0.1:0, direction: egress}}\n- {{name: sock, bind: \"unix:{}\", direction: egress}}\n\
         upstreams: {{up: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: sock, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: $.ssn}}]}}\n",
        socket.display(),
        upstream.url()
    );
    let keys = Keys::new();
    let mut process = Process::start(&keys, &[("OILSKIN_CONFIG_YAML", &document)]);
    for _ in 0..2 {
        let curl = ["-H", "content-type: application/json", "-d", r#"{"ssn":"1"}"#, "http://app/x"];
        let answer = tools::run(tools::program("curl").args(["-sS", "--unix-socket"]).arg(&socket).args(curl));
        assert_eq!(answer, r#"{"ssn":"1"}"#);
    }
    assert!(upstream.seen().iter().all(|request| request.text().contains("oil1.")));
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_keyset_of_someone_else_in_the_store_stops_no_start() {
    let (keys, other) = (Keys::new(), Keys::new());
    other.add("second", oilskin_crypto::Cipher::XChaCha20Poly1305, false);
    std::fs::copy(other.folder().join("keys/second.json"), keys.folder().join("keys/second.json")).unwrap();
    let check = |rule: &str| {
        let mut command = process::command(&keys);
        let output = command.arg("check").env("OILSKIN_CONFIG_YAML", format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"http://127.0.0.1:1\"}}}}\nroutes:\n\
             - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: $.a, keyset: {rule}}}]}}\n"
        )).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check("default").0, Some(0), "{}", check("default").1);
    let (code, said) = check("second");
    assert!(code != Some(0) && said.contains("second"), "{said}");
}

#[test]
fn what_the_http_library_cannot_read_is_not_in_the_log_either() {
    let upstream = Upstream::echo();
    let upstream_url = upstream.url();
    let vars = [("OILSKIN_UPSTREAM", upstream_url.as_str()), ("OILSKIN_LOG", "trace")];
    let process = Process::start(&Keys::new(), &vars);
    let mut wire = Wire::connect(process.address());
    let broken = wire.begin("GET", "/CANARY x", &[("te", "CANARY")], true);
    wire.ended(broken);
    let mut wire = Wire::connect(process.address());
    assert_eq!(wire.request("GET", "/nothing", &[("x-secret", "CANARY")], b"").status(), 200);
    let log = process.log().concat();
    assert!(!log.contains("CANARY"), "{log}");
}

#[test]
fn a_last_slash_leads_past_no_route_with_rules() {
    let upstream = Upstream::echo();
    let protected = [
        ("one", "path: \"/customers/{id}\""),
        ("slashed", "path: \"/orders/{id}/\""),
        ("cart", "path: \"/carts/{id}\""),
        ("below", "path: \"/api/{*rest}\""),
        ("host", "path: \"/items/{id}\", host: api.example"),
    ];
    let mut routes = "- {name: written, match: {listener: out, path: \"/carts/{id}/\"}, upstream: up}\n\
                      - {name: open, match: {listener: out, path: \"/{*rest}\"}, upstream: up}\n"
        .to_owned();
    for (name, place) in protected {
        routes += &format!(
            "- {{name: {name}, match: {{listener: out, {place}}}, upstream: up, fields: [{{select: $.ssn}}]}}\n"
        );
    }
    let proxy = Proxy::yaml(&yaml(&upstream, &routes)).start();
    let body = r#"{"ssn":"123-45-6789"}"#;
    let kind = ("content-type", "application/json");
    for path in ["/customers/1/", "/customers/1/?a=b/c", "/orders/1", "/api"] {
        assert_eq!(told(&proxy.json("POST", path, body)), (400, "ambiguous_path".to_owned()), "{path}");
        let answer = Wire::connect(proxy.address()).request("POST", path, &[kind], body.as_bytes());
        assert_eq!(answer.status(), 400, "{path}");
    }
    assert!(upstream.seen().is_empty(), "nothing was forwarded");
    let sent = |path: &str| {
        assert_eq!(proxy.json("POST", path, body).text(), body, "{path}");
        upstream.seen().pop().unwrap().text()
    };
    for path in ["/customers/1", "/orders/1/", "/carts/1", "/api/", "/api/x", "/api/x/"] {
        assert!(sent(path).contains("oil1."), "{path}");
    }
    // Written with its slash, or of no route with rules either way.
    for path in ["/carts/1/", "/", "/other", "/other/", "/customers", "/customers/"] {
        assert_eq!(sent(path), body, "{path}");
    }
    let to_host = |host: &str| {
        let head = format!("POST /items/1/ HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
        proxy.client().send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).response("POST")
    };
    assert_eq!(told(&to_host("api.example:80")), (400, "ambiguous_path".to_owned()));
    assert_eq!(to_host("other.example").text(), body);
}

#[test]
fn what_is_no_request_is_logged_and_counted_by_its_code_and_without_its_bytes() {
    let upstream = Upstream::echo();
    let url = upstream.url();
    let vars = [("OILSKIN_UPSTREAM", url.as_str()), ("OILSKIN_TIMEOUTS_HEAD", "1s"), ("OILSKIN_LOG", "trace")];
    let process = Process::start(&Keys::new(), &vars);
    let many: String = (0..101).map(|n| format!("X-{n}: CANARY\r\n")).collect();
    let long = "CANARY".repeat(3000);
    let good = "GET /fine HTTP/1.1\r\nHost: a\r\n\r\n";
    for (raw, status) in [
        ("CANARY\r\n\r\n".to_owned(), 400),
        ("GET /CANARY HTTP/1.1\r\nHost: a\r\nCANARY\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        ("GET /CANARY HTTP/1.1\r\nHost:".to_owned(), 408),
    ] {
        let mut client = Client::connect(process.address());
        assert_eq!(client.send(good).response("GET").status(), 200);
        let answer = client.send(&raw).response("GET");
        assert_eq!((answer.status(), answer.text().as_str()), (status, ""), "{raw:.40}");
        assert!(client.rest().is_empty(), "and closed");
    }
    // One that leaves in the middle of its head broke no rule.
    Client::connect(process.address()).send("GET /CANARY HTTP/1.1\r\n").finish();
    let codes = [("bad_request", 2), ("head_too_large", 2), ("head_timeout", 1)];
    tools::until("all of them to be counted", || {
        let page = process.metrics_page();
        let line = |(code, count): &(&str, u32)| {
            format!("oilskin_gate_refusals_total{{side=\"app\",reason=\"{code}\"}} {count}\n")
        };
        codes.iter().all(|code| page.contains(&line(code))).then_some(())
    });
    // They are counted before they are logged.
    let log = tools::until("all of them to be logged", || {
        let log = process.log();
        (log.iter().filter(|line| line.contains("oilskin::gate")).count() >= 5).then_some(log)
    });
    assert!(!log.concat().contains("CANARY"), "{log:#?}");
    let lines = log.iter().filter(|line| line.contains("oilskin::gate"));
    let told: Vec<_> = lines.map(|line| line.contains("\"listener\":\"egress\"")).collect();
    assert_eq!(told, [true; 5], "{log:#?}");
}

#[test]
fn that_nothing_is_encrypted_is_said_once() {
    let upstream = Upstream::echo();
    let url = upstream.url();
    let warning = "nothing is encrypted: no route has fields";
    for (fields, times) in [(None, 1), (Some(("OILSKIN_FIELDS", "$.ssn")), 0)] {
        let mut vars = vec![("OILSKIN_UPSTREAM", url.as_str())];
        vars.extend(fields);
        let keys = Keys::new();
        let process = Process::start(&keys, &vars);
        assert_eq!(process.log().concat().matches(warning).count(), times, "{:?}", process.log());
        let output = process::command(&keys).arg("check").envs(vars).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), said.matches(warning).count()), (Some(0), times), "{said}");
    }
}

#[test]
fn whatever_is_let_out_comes_back_right_up_to_the_limits() {
    let upstream = Upstream::echo();
    let yaml = |limit: &str, bind: &str| {
        format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0}}]\nupstreams: {{up: {{url: \"{}\"}}}}\nlimits: {{{limit}}}\n\
             routes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: \"$..ssn\"{bind}}}]}}]\n",
            upstream.url()
        )
    };
    let bound = ", bind: {record: [\"@.id\"]}";
    let single = |n: usize| format!(r#"{{"ssn":"{}","id":1}}"#, "y".repeat(n));
    let filled = |n: usize| format!(r#"{{"ssn":"y","rest":"{}","id":1}}"#, "z".repeat(n));
    let list = |n: usize| format!("[{}]", vec![r#"{"ssn":"1","id":1}"#; n].join(","));
    type Body = dyn Fn(usize) -> String;
    let cases: [(&str, &str, &Body, std::ops::Range<usize>); 5] = [
        ("max_field: 1KiB", "", &single, 680..740),
        ("max_field: 1KiB", ", pad: 64", &single, 640..740),
        ("bind_window: 1KiB", bound, &single, 640..780),
        ("bind_window: 1KiB", bound, &filled, 860..1010),
        ("bind_window: 1KiB", bound, &list, 1..60),
    ];
    for (limit, bind, body, sizes) in cases {
        let proxy = Proxy::yaml(&yaml(limit, bind)).start();
        let (mut passed, mut refused) = (0, 0);
        for size in sizes {
            let sent = body(size);
            let answer = proxy.json("POST", "/x", &sent);
            match answer.status() {
                200 => {
                    assert_eq!(answer.text(), sent);
                    passed += 1;
                }
                status => {
                    assert_eq!((status, answer.code().as_str()), (413, "too_large"), "{limit}{bind}: {size}");
                    refused += 1;
                }
            }
        }
        assert!(passed > 0 && (refused > 0 || body(1).starts_with('[')), "{limit}{bind}: {passed} and {refused}");
    }
}

#[test]
fn graphql_carries_no_values_past_rules_that_reach_its_variables() {
    let upstream = Upstream::echo();
    let literal = r#"{"query":"{a(ssn:\"SECRET\")}","variables":{"ssn":"x"}}"#;
    for fields in ["$..ssn", "$.*.ssn", "$.variables.ssn", "$[*].variables.ssn, $.variables.ssn"] {
        let proxy = Proxy::before(&upstream).fields(fields).start();
        assert_eq!(told(&proxy.json("POST", "/g", literal)), (400, "malformed".to_owned()), "{fields}");
        let target = "/g?query=%7Ba(ssn:%22SECRET%22)%7D";
        assert_eq!(told(&proxy.json("GET", target, "")), (400, "bad_request".to_owned()), "{fields}");
        let clean = r#"{"query":"query($ssn: String!) { a(ssn: $ssn) }","variables":{"ssn":"SECRET"}}"#;
        assert_eq!(proxy.json("POST", "/g", clean).status(), 200, "{fields}");
    }
    for fields in ["$.variables.ssn", "$.variables"] {
        let proxy = Proxy::before(&upstream).fields(fields).start();
        let batch = r#"[{"query":"{a}","variables":{"ssn":"SECRET"}}]"#;
        assert_eq!(told(&proxy.json("POST", "/g", batch)), (400, "malformed".to_owned()), "{fields}");
    }
    // Rules go on inside a query that is no text.
    let proxy = Proxy::before(&upstream).fields("$..ssn").start();
    let search = r#"{"query":{"ssn":"SECRET"}}"#;
    assert_eq!(proxy.json("POST", "/s", search).text(), search);
    // A search is no GraphQL.
    let proxy = Proxy::before(&upstream).fields("$..ssn").start();
    assert_eq!(proxy.json("POST", "/s", r#"{"query":"name:\"Ada\" 42"}"#).status(), 200);
    assert_eq!(proxy.json("GET", "/s?query=ada+42&variables=1", "").status(), 200);
    assert!(upstream.seen().iter().all(|seen| !seen.text().contains("SECRET") && !seen.target().contains("SECRET")));
}

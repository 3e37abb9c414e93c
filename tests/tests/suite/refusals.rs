//! Bad input: each with a clear error, and nothing of it forwarded.

use std::io::Write;

use oilskin_tests::client::Client;
use oilskin_tests::keys::Keys;
use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Message, Proxy, Upstream};

fn protected() -> (Upstream, Proxy) {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn, $..email").start();
    (upstream, proxy)
}

fn refused(answer: &Message, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    assert!(answer.header("x-request-id").is_some(), "{what}");
}

#[test]
fn a_body_that_is_not_json_is_refused_and_nothing_of_it_forwarded() {
    let (upstream, proxy) = protected();
    let deep = "[".repeat(100_000);
    let cases: &[(&[u8], u16, &str)] = &[
        (br#"{"ssn":"123-45-6789""#, 400, "truncated"),
        (br#"{"ssn":"123-45-6789"} x"#, 400, "malformed"),
        (br#"{"ssn":"123-45-6789"}{}"#, 400, "malformed"),
        (br#"{"ssn":"\ud800"}"#, 400, "malformed"),
        (br#"{"other":"\udc00","ssn":"1"}"#, 400, "malformed"),
        (b"{\"ssn\":\"\x00\"}", 400, "malformed"),
        (b"{\"a\":\x00}", 400, "malformed"),
        (b"\xef\xbb\xbf{}", 400, "malformed"),
        (b"{\"ssn\":\"\xff\"}", 400, "malformed"),
        (b"{\"other\":\"\xc3\"}", 400, "malformed"),
        (b"\xff\xfe{\x00}\x00", 400, "malformed"),
        (b"{'ssn':1}", 400, "malformed"),
        (b"{\"ssn\":1,}", 400, "malformed"),
        (b"{\"ssn\":01}", 400, "malformed"),
        (b"not json", 400, "malformed"),
        (b"   ", 400, "truncated"),
        (deep.as_bytes(), 413, "too_deep"),
    ];
    for (body, status, code) in cases {
        let fields = [("Content-Type", "application/json")];
        let answer = proxy.client().request("POST", "/", &fields, body);
        refused(&answer, *status, code, &String::from_utf8_lossy(&body[..body.len().min(40)]));
    }
    assert!(upstream.seen().is_empty(), "nothing was forwarded");
}

#[test]
fn what_no_reader_can_inspect_is_refused_while_encrypting() {
    let (upstream, proxy) = protected();
    let body = br#"{"ssn":"123-45-6789"}"#;
    for kind in [
        "text/plain",
        "text/html",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/x-ndjson",
        "application/jsonl",
        "text/event-stream",
        "application/json-patch+json",
        "application/octet-stream",
        "application/json; charset=utf-16",
        "",
    ] {
        let fields: &[_] = if kind.is_empty() { &[] } else { &[("Content-Type", kind)] };
        let answer = proxy.client().request("POST", "/", fields, body);
        refused(&answer, 415, "unsupported_type", kind);
    }
    for coding in ["gzip", "br", "zstd", "deflate", "gzip, gzip", "aes128gcm", "rot13"] {
        let fields = [("Content-Type", "application/json"), ("Content-Encoding", coding)];
        refused(&proxy.client().request("POST", "/", &fields, body), 415, "unsupported_coding", coding);
    }
    let twice = [("Content-Type", "application/json"), ("Content-Type", "text/plain")];
    refused(&proxy.client().request("POST", "/", &twice, body), 415, "unsupported_type", "two types");
    assert!(upstream.seen().is_empty(), "nothing was forwarded");
}

#[test]
fn limits_hold_for_selected_values_only() {
    let (upstream, proxy) = protected();
    let selected = format!("{{\"ssn\":\"{}\"}}", "x".repeat(2 << 20));
    refused(&proxy.json("POST", "/", &selected), 413, "too_large", "a selected string of 2 MB");
    let number = format!("{{\"ssn\":{}}}", "1".repeat(10 << 20));
    refused(&proxy.json("POST", "/", &number), 413, "too_large", "a selected number of 10 MB");
    assert!(upstream.seen().is_empty());
    let unselected = format!("{{\"other\":{},\"ssn\":1}}", "1".repeat(10 << 20));
    let answer = proxy.json("POST", "/", &unselected);
    assert_eq!(answer.status(), 200);
    assert!(answer.text() == unselected, "the same bytes come back");
}

#[test]
fn a_value_just_below_the_limit_comes_back() {
    let (_, proxy) = protected();
    let body = format!("{{\"ssn\":\"{}\"}}", "x".repeat(700_000));
    assert!(proxy.json("POST", "/", &body).text() == body);
}

#[test]
fn duplicates_and_escaped_names_are_all_encrypted() {
    let (upstream, proxy) = protected();
    let body = r#"{"ssn":"a-one","\u0073sn":"a-two","ssn":"a-three","SSN":"open"}"#;
    assert_eq!(proxy.json("POST", "/", body).text(), body);
    let sent = upstream.one().text();
    assert!(!sent.contains("a-one") && !sent.contains("a-two") && !sent.contains("a-three"), "{sent}");
    assert_eq!(sent.matches("oil1.").count(), 3);
}

#[test]
fn a_query_that_repeats_a_protected_name_is_refused() {
    let (upstream, proxy) = protected();
    for target in ["/?ssn=1", "/?a=b&ssn=1", "/?%73sn=1", "/?email=x", "/?ssn", "/?s%73n=1;x=2"] {
        refused(&proxy.json("GET", target, ""), 400, "bad_request", target);
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(proxy.json("GET", "/?SSN=1&q=ssn", "").status(), 200);
}

#[test]
fn a_graphql_query_with_literals_is_refused() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.variables.ssn").start();
    for body in [
        r#"{"query":"mutation{save(ssn:\"123\"){id}}","variables":{"ssn":"1"}}"#,
        r#"{"variables":{"ssn":"1"},"query":"{save(n:1){id}}"}"#,
        r#"[{"query":"{save(n:1){id}}"}]"#,
    ] {
        refused(&proxy.json("POST", "/graphql", body), 400, "malformed", body);
    }
    assert!(upstream.seen().is_empty());
    let fine = r#"{"query":"mutation($ssn:String!){save(ssn:$ssn){id}}","variables":{"ssn":"1"}}"#;
    assert_eq!(proxy.json("POST", "/graphql", fine).text(), fine);
}

#[test]
fn a_plaintext_that_looks_like_a_token_is_encrypted_again() {
    let (upstream, proxy) = protected();
    proxy.json("POST", "/", r#"{"ssn":"1"}"#);
    let stored = upstream.one().text();
    assert_eq!(proxy.json("POST", "/", &stored).text(), stored, "the app reads back what it wrote");
    let again = upstream.seen().pop().unwrap().text();
    assert!(again.len() > stored.len() && !again.contains(&stored[8..60]), "{again}");
}

/// Reads what an upstream answers through a proxy with these fields.
fn read_through(body: &str, keys: Keys) -> Message {
    let upstream = Upstream::json(Box::leak(body.to_owned().into_boxed_str()));
    Proxy::before(&upstream).fields("$.ssn").start_with(keys).json("GET", "/", "")
}

#[test]
fn a_token_that_does_not_open_is_one_answer_whatever_the_cause() {
    let (upstream, proxy) = protected();
    proxy.json("POST", "/", r#"{"ssn":"123-45-6789","other":1}"#);
    let stored = upstream.one().text();
    let token = stored.split('"').nth(3).unwrap().to_owned();
    let copy = || {
        let keys = Keys::new();
        for file in ["root.key", "keys/default.json"] {
            std::fs::copy(proxy.keys.folder().join(file), keys.folder().join(file)).unwrap();
        }
        keys
    };
    assert_eq!(read_through(&stored, copy()).text(), r#"{"ssn":"123-45-6789","other":1}"#);
    let flipped = token.replacen(&token[60..61], if &token[60..61] == "A" { "B" } else { "A" }, 1);
    let mut answers = Vec::new();
    for bad in [
        token[..token.len() - 4].to_owned(),
        flipped,
        format!("{token}AAAA"),
        format!("{token}="),
        token.replacen("oil1", "OIL1", 1),
        token.replacen("oil1.AQ", "oil1.gQ", 1),
        "plain".to_owned(),
        "oil1.".to_owned(),
        "oil2.AAAA".to_owned(),
    ] {
        let answer = read_through(&format!("{{\"ssn\":\"{bad}\"}}"), copy());
        refused(&answer, 502, "decrypt_failed", &bad);
        let head: Vec<_> = answer
            .head
            .lines()
            .filter(|line| !line.starts_with("x-request-id") && !line.starts_with("date"))
            .map(str::to_owned)
            .collect();
        let id = answer.header("x-request-id").unwrap().to_owned();
        answers.push((head, answer.text().replace(&id, "ID")));
    }
    let numbers = read_through(r#"{"ssn":42}"#, copy());
    refused(&numbers, 502, "decrypt_failed", "a number where a token was expected");
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
}

#[test]
fn an_answer_that_cannot_be_trusted_is_a_502_and_one_that_no_rule_reads_passes() {
    for (kind, coding, body, code) in [
        ("application/json", "", "{\"ssn\":", "truncated"),
        ("application/json", "", "{} {}", "malformed"),
        ("application/json", "gzip", "xx", "unsupported_coding"),
    ] {
        let upstream = Upstream::scripted(move |_, stream| {
            let mut fields = vec![("Content-Type", kind)];
            if !coding.is_empty() {
                fields.push(("Content-Encoding", coding));
            }
            respond(stream, "200 OK", &fields, body.as_bytes())
        });
        let proxy = Proxy::before(&upstream).fields("$.ssn").start();
        refused(&proxy.json("GET", "/", ""), 502, code, body);
    }
    let upstream =
        Upstream::scripted(|_, stream| respond(stream, "500 Oops", &[("Content-Type", "text/html")], b"<h1>oops</h1>"));
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let answer = proxy.json("GET", "/", "");
    assert_eq!((answer.status(), answer.text().as_str()), (500, "<h1>oops</h1>"));
    assert!(proxy.metrics().contains("oilskin_bodies_not_inspected_total{route=\"egress\"} 1"), "{}", proxy.metrics());
}

#[test]
fn an_answer_without_a_type_is_read_when_it_begins_like_json() {
    let upstream = Upstream::scripted(|request, stream| {
        let body: &[u8] = if request.target() == "/json" { b" {\"ssn\":\"plain\"}" } else { b"hello" };
        respond(stream, "200 OK", &[], body)
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    refused(&proxy.json("GET", "/json", ""), 502, "decrypt_failed", "read as JSON");
    assert_eq!(proxy.json("GET", "/text", "").text(), "hello");
}

#[test]
fn a_wrong_content_length_is_never_a_whole_message() {
    let (upstream, proxy) = protected();
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"ssn\":\"1\"}",
    );
    client.finish();
    if let Ok(answer) = client.try_response("POST") {
        assert!(answer.status() >= 400, "{}", answer.head);
    }
    assert!(upstream.seen().iter().all(|request| !request.complete), "nothing whole was forwarded");
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n{\"ssn\":\"1\"}",
    );
    refused(&client.response("POST"), 400, "truncated", "a length too short");
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_half_a_request_at_most() {
    let (upstream, proxy) = protected();
    let long = "x".repeat(200_000);
    let mut client = proxy.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n{{\"ssn\":\"123-45-6789\",\"x\":\"{long}"
    ));
    drop(client);
    // The next request shows that the worker has dealt with it.
    assert_eq!(proxy.json("POST", "/", "{}").status(), 200);
    assert!(upstream.seen().iter().filter(|request| request.body.len() > 10).all(|request| !request.complete));
}

#[test]
fn an_upstream_that_dies_in_its_body_is_never_a_whole_answer() {
    let upstream = Upstream::scripted(|request, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let length = if request.target() == "/long" { 300_000 } else { 10 };
        let body = format!("{{\"x\":\"{}", "y".repeat(length));
        let _ = stream.write_all(format!("{head}{:x}\r\n{body}\r\n", body.len()).as_bytes());
        Then::Close
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    refused(&proxy.json("GET", "/short", ""), 502, "upstream_closed", "held");
    let mut client = proxy.client();
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.response("GET");
    assert_eq!(answer.status(), 200);
    assert!(!answer.complete, "the app sees that it was cut");
    assert!(proxy.metrics().contains("code=\"aborted\"} 1"), "{}", proxy.metrics());
}

#[test]
fn a_client_chosen_tenant_is_refused_where_it_cannot_be_believed() {
    let upstream = Upstream::echo();
    let yaml = format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{crm: {{url: {}}}}}\nroutes:\n\
         - name: all\n  match: {{listener: out, path: \"/{{*rest}}\"}}\n  upstream: crm\n  tenant: {{header: x-tenant-id}}\n\
         \x20 fields: [{{select: $.ssn}}]\n",
        upstream.url()
    );
    let proxy = Proxy::yaml(&yaml).start();
    let ask = |fields: &[(&str, &str)]| {
        let fields = [fields, &[("Content-Type", "application/json")]].concat();
        Client::connect(proxy.address()).request("POST", "/", &fields, br#"{"ssn":"1"}"#)
    };
    refused(&ask(&[]), 400, "bad_request", "no tenant");
    refused(&ask(&[("X-Tenant-Id", "a"), ("X-Tenant-Id", "b")]), 400, "bad_request", "two tenants");
    refused(&ask(&[("X-Tenant-Id", "")]), 400, "bad_request", "an empty tenant");
    assert!(upstream.seen().is_empty());
    assert_eq!(ask(&[("X-Tenant-Id", "acme")]).text(), r#"{"ssn":"1"}"#);
}

#[test]
fn development_keys_and_tokens_are_refused_in_production() {
    let upstream = Upstream::echo();
    let keys = Keys::with(oilskin_crypto::Cipher::XChaCha20Poly1305, true);
    let vars = [
        ("OILSKIN_UPSTREAM", upstream.url()),
        ("OILSKIN_FIELDS", "$.ssn".to_owned()),
        ("OILSKIN_ROOT_KEY", keys.root_uri()),
        ("OILSKIN_KEY_STORE", keys.store_uri()),
        ("OILSKIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true".to_owned()),
    ];
    let vars = vars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let config = oilskin_tests::config::parse(&vars).unwrap();
    let error = oilskin::App::build(config).err().unwrap().to_string();
    assert!(error.contains("development keys"), "{error}");
    let handle = keys.handle("default");
    let mut token = Vec::new();
    let spec = oilskin_crypto::FieldSpec::new(vec!["ssn".to_owned()]);
    let mut message = oilskin_crypto::Message::new(&handle, None, 0);
    message.encrypt(&spec, oilskin_crypto::Value::Null, oilskin_crypto::Bound::default(), &mut token).unwrap();
    let body = format!("{{\"ssn\":\"{}\"}}", String::from_utf8(token).unwrap());
    refused(&read_through(&body, Keys::new()), 502, "decrypt_failed", "a development token");
}

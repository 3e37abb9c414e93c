//! Bad input, the rest of the list: over both protocols, in both directions, and tokens that belong elsewhere.

use oilskin_crypto::Cipher;
use oilskin_tests::frames::{Side, kind};
use oilskin_tests::keys::Keys;
use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Message, Proxy, Upstream, Wire};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Bodies that are no JSON, each with what it is called.
fn broken() -> Vec<(Vec<u8>, &'static str)> {
    let texts: &[(&[u8], &str)] = &[
        (br#"{"ssn":"canary-6789""#, "truncated"),
        (br#"{"ssn":"canary-6789"#, "truncated"),
        (br#"[1,2"#, "truncated"),
        (br#"{"ssn":"canary-6789"} x"#, "malformed"),
        (br#"{"ssn":"canary-6789"}{}"#, "malformed"),
        (br#"{"ssn":"\ud800"}"#, "malformed"),
        (br#"{"ssn":"\udc00\ud800"}"#, "malformed"),
        (br#"{"other":"\ud83d"}"#, "malformed"),
        (b"{\"ssn\":\"a\x00b\"}", "malformed"),
        (b"{\"other\":\"\x1f\"}", "malformed"),
        (b"{\"a\":1}\x00", "malformed"),
        (b"\xef\xbb\xbf{\"ssn\":null}", "malformed"),
        (b"{\"ssn\":\"\xc3\x28\"}", "malformed"),
        (b"{\"other\":\"\xed\xa0\x80\"}", "malformed"),
        (b"{\"\xff\":1}", "malformed"),
        (br#"{"a":1 "b":2}"#, "malformed"),
        (br#"{"a":+1}"#, "malformed"),
        (br#"{"a":NaN}"#, "malformed"),
        (br#"{a:1}"#, "malformed"),
    ];
    let deep = ["[".repeat(100_000), "{\"a\":".repeat(100_000)];
    let texts = texts.iter().map(|(text, code)| (text.to_vec(), *code));
    texts.chain(deep.map(|deep| (deep.into_bytes(), "too_deep"))).collect()
}

fn code(text: &str) -> &str {
    text.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

#[test]
fn broken_json_is_refused_over_http_2_however_it_is_cut_into_frames() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let mut wire = Wire::connect(proxy.address());
    for (body, want) in broken() {
        for length in [body.len(), 1] {
            let stream = wire.begin("POST", "/", &[JSON], false);
            let few = &body[..body.len().min(2_000)];
            let sent = if length == 1 { few } else { &body };
            if length == 1 && want == "too_deep" {
                continue;
            }
            for piece in sent.chunks(length) {
                wire.data(stream, piece, false);
            }
            wire.data(stream, b"", true);
            let answer = wire.ended(stream);
            let status = if want == "too_deep" { 413 } else { 400 };
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            assert_eq!((answer.status(), code(&answer.text())), (status, want), "{shown}");
            assert!(!answer.text().contains("canary"), "{}", answer.text());
        }
    }
    assert!(upstream.seen().is_empty(), "nothing was forwarded");
}

#[test]
fn broken_json_from_the_upstream_is_a_502_that_shows_nothing_of_it() {
    let cases = broken();
    let served = cases.clone();
    let upstream = Upstream::scripted(move |request, stream| {
        let number: usize = request.target().trim_start_matches('/').parse().unwrap();
        respond(stream, "200 OK", &[JSON], &served[number].0)
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    for (number, (body, want)) in cases.iter().enumerate() {
        let answer = proxy.json("GET", &format!("/{number}"), "");
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let found = answer.code();
        // A value that is no token may be told before the text turns out broken.
        assert!(answer.status() == 502 && (found == *want || found == "decrypt_failed"), "{shown}: {found}");
        assert!(!answer.text().contains("canary"), "{}", answer.text());
    }
}

#[test]
fn a_length_that_does_not_hold_is_never_a_whole_message() {
    let upstream = Upstream::scripted(|request, stream| {
        let length = if request.target().ends_with("short") { 6 } else { 50 };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        use std::io::Write;
        let _ = stream.write_all(format!("{head}{{\"other\":1}}").as_bytes());
        Then::Close
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let answer = proxy.json("GET", "/short", "");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "truncated"));
    let answer = proxy.json("GET", "/long", "");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_closed"));
    // Over HTTP/2 the frames have to add up to the length that was said.
    let echo = Upstream::echo();
    for route in ["$.ssn", ""] {
        let proxy = if route.is_empty() { Proxy::before(&echo) } else { Proxy::before(&echo).fields(route) }.start();
        for length in ["3", "50"] {
            let mut wire = Wire::connect(proxy.address());
            let stream = wire.begin("POST", "/", &[JSON, ("content-length", length)], false);
            wire.data(stream, b"{\"other\":1}", true);
            let answer: Side = wire.ended(stream);
            assert!(!answer.whole() || answer.status() >= 400, "{length}: {answer:?}");
        }
    }
    assert!(echo.seen().iter().all(|request| !request.complete || request.body.is_empty()));
    // Lengths that contradict each other, and one that is none.
    for lengths in [
        "Content-Length: 2\r\nContent-Length: 11",
        "Content-Length: 2, 11",
        "Content-Length: two",
        "Content-Length: -2",
    ] {
        let proxy = Proxy::before(&echo).fields("$.ssn").start();
        let mut client = proxy.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{lengths}\r\n\r\n{{\"other\":1}}"
        ));
        assert_eq!(client.response("POST").status(), 400, "{lengths}");
        assert!(client.rest().is_empty());
    }
    assert!(echo.seen().iter().all(|request| !request.complete || request.body.is_empty()));
}

#[test]
fn words_that_are_no_http_2_end_the_connection_and_reach_no_one() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    type Wrong = fn(&mut Wire);
    let wrongs: [Wrong; 4] = [
        // DATA on a stream that was never begun.
        |wire| wire.send(kind::DATA, 1, 5, b"{\"ssn\":1}"),
        // A frame longer than was agreed on.
        |wire| wire.send(kind::HEADERS, 4, 1, &[0; 20_000]),
        // A header block that is none.
        |wire| wire.send(kind::HEADERS, 5, 1, &[0xff; 40]),
        // A window that goes over its end.
        |wire| wire.send(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
    ];
    for (number, wrong) in wrongs.into_iter().enumerate() {
        let mut wire = Wire::connect(proxy.address());
        wrong(&mut wire);
        wire.to_the_end();
        let (_, code) = wire.goaway.unwrap_or_else(|| panic!("{number}: no GOAWAY"));
        assert_ne!(code, 0, "{number}");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(proxy.json("POST", "/", r#"{"ssn":1}"#).status(), 200, "others are served");
}

fn route(url: &str, more: &str, rule: &str) -> String {
    format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{url}\"}}}}\nroutes:\n\
         - name: all\n  match: {{listener: out, path: \"/c/{{id}}\"}}\n  upstream: up\n{more}  fields: [{{select: $.ssn{rule}}}]\n"
    )
}

/// Writes under one route and reads what was stored under another, with the same keys.
fn moved(keys: &Keys, write: (&str, &str), read: (&str, &str), fields: &[(&str, &str)]) -> Message {
    let upstream = Upstream::echo();
    let writer = Proxy::yaml(&route(&upstream.url(), write.0, write.1)).start_with(keys.copy());
    let mut all = vec![JSON];
    all.push(("x-tenant-id", "acme"));
    let written = writer.client().request("PUT", "/c/1", &all, br#"{"id":1,"ssn":"canary-6789"}"#);
    assert_eq!(written.text(), r#"{"id":1,"ssn":"canary-6789"}"#, "{}", written.head);
    let stored: &'static str = Box::leak(upstream.one().text().into_boxed_str());
    let store = Upstream::json(stored);
    let reader = Proxy::yaml(&route(&store.url(), read.0, read.1)).start_with(keys.copy());
    reader.client().request("GET", "/c/1", fields, b"")
}

#[test]
fn a_token_of_another_context_record_tenant_or_keyset_does_not_open() {
    let keys = Keys::new();
    keys.add("cards", Cipher::Aegis256, false);
    let tenant = "  tenant: {header: x-tenant-id}\n";
    let acme = [("x-tenant-id", "acme")];
    let other = [("x-tenant-id", "other")];
    let bind = ", bind: {record: [path.id]}";
    let none: &[(&str, &str)] = &[];
    for (what, write, read, fields) in [
        ("context", ("", ", context: a"), ("", ", context: b"), none),
        ("record", ("", bind), ("", ", bind: {record: [\"@.other\", path.id], more: [path.id]}"), none),
        ("no record", ("", bind), ("", ""), none),
        ("tenant", (tenant, ""), (tenant, ""), &other[..]),
        ("no tenant", (tenant, ""), ("", ""), none),
        ("keyset", ("", ", keyset: cards"), ("", ""), none),
    ] {
        let answer = moved(&keys, write, read, fields);
        assert_eq!((answer.status(), answer.code().as_str()), (502, "decrypt_failed"), "another {what}");
        assert!(!answer.text().contains("canary"));
    }
    for (write, read, fields) in [
        (("", ", context: a"), ("", ", context: [b, a]"), &[][..]),
        (("", bind), ("", bind), &[]),
        ((tenant, ""), (tenant, ""), &acme),
        (("", ", keyset: cards"), ("", ", keyset: cards"), &[]),
    ] {
        let answer = moved(&keys, write, read, fields);
        assert_eq!(answer.text(), r#"{"id":1,"ssn":"canary-6789"}"#, "{write:?}");
    }
}

#[test]
fn a_bound_member_that_occurs_twice_is_refused_on_both_sides() {
    let bind = ", bind: {record: [\"@.id\"]}";
    let upstream = Upstream::echo();
    let proxy = Proxy::yaml(&route(&upstream.url(), "", bind)).start();
    let ask = |body: &str| proxy.json("PUT", "/c/1", body);
    for body in [
        r#"{"id":1,"id":2,"ssn":"x"}"#,
        r#"{"id":1,"ssn":"x","id":1}"#,
        r#"{"ssn":"x","id":1,"\u0069d":2}"#,
        r#"{"ssn":"x"}"#,
        r#"{"ssn":"x","id":{"a":1}}"#,
    ] {
        let answer = ask(body);
        assert_eq!((answer.status(), answer.code().as_str()), (400, "malformed"), "{body}");
    }
    assert!(upstream.seen().is_empty(), "nothing was forwarded");
    assert_eq!(ask(r#"{"ssn":"x","id":1}"#).status(), 200);
    let stored = upstream.one().text();
    for (from, to) in [("\"id\":1", "\"id\":1,\"id\":1"), ("\"id\":1", "\"id\":2"), (",\"id\":1", "")] {
        let store = Upstream::json(Box::leak(stored.replace(from, to).into_boxed_str()));
        let reader = Proxy::yaml(&route(&store.url(), "", bind)).start_with(proxy.keys.copy());
        let answer = reader.json("GET", "/c/1", "");
        assert_eq!((answer.status(), answer.code().as_str()), (502, "decrypt_failed"), "{to}");
    }
}

//! The ingress listener: requests from the world are decrypted before the app sees them, its answers encrypted before they leave.

use std::collections::BTreeMap;

use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::proxy::Builder;
use oilskin_tests::{Proxy, Upstream, tools};

/// Before `app`, behind a mesh proxy that has authenticated the peers.
fn ingress(app: &Upstream) -> Builder {
    Builder::default()
        .env("OILSKIN_INGRESS_LISTEN", "127.0.0.1:0")
        .env("OILSKIN_INGRESS_TRUST", "mesh")
        .env("OILSKIN_APP", &app.url())
        .fields("$.ssn")
}

/// A body as another service's Oilskin sends it.
fn sealed(keys: &Keys, body: &str) -> String {
    let wire = Upstream::echo();
    let egress = Proxy::before(&wire).fields("$.ssn").start_with(keys.copy());
    assert_eq!(egress.json("POST", "/", body).text(), body);
    wire.one().text()
}

#[test]
fn the_app_sees_plaintext_and_the_world_tokens() {
    let app = Upstream::echo();
    let proxy = ingress(&app).start();
    let sent = sealed(&proxy.keys, r#"{"ssn":"123-45-6789","id":7}"#);
    let answer = json(proxy.address(), "POST", "/in", &sent);
    assert_eq!(answer.status(), 200);
    assert_eq!(app.one().text(), r#"{"ssn":"123-45-6789","id":7}"#);
    assert!(
        answer.text().starts_with(r#"{"ssn":"oil1."#) && answer.text().ends_with(r#"","id":7}"#),
        "{}",
        answer.text()
    );
    assert!(!answer.raw.windows(11).any(|bytes| bytes == b"123-45-6789"));
}

#[test]
fn two_services_with_the_same_keys_read_each_other_through_their_sidecars() {
    let app = Upstream::echo();
    let callee = ingress(&app).start();
    let caller = Builder::default()
        .env("OILSKIN_UPSTREAM", &format!("http://{}", callee.address()))
        .env("OILSKIN_LISTEN", "127.0.0.1:0")
        .fields("$.ssn")
        .start_with(callee.keys.copy());
    let body = "{ \"ssn\" : \"Zo\\u00eb\",\"n\":1.10 }";
    assert_eq!(caller.json("PUT", "/x", body).text(), body);
    assert_eq!(app.one().text(), body);
}

#[test]
fn a_plaintext_or_a_strange_token_from_the_world_never_reaches_the_app() {
    let app = Upstream::echo();
    let proxy = ingress(&app).start();
    let strange = sealed(&Keys::new(), r#"{"ssn":"1"}"#);
    for body in [r#"{"ssn":"123"}"#, r#"{"ssn":null}"#, strange.as_str()] {
        let answer = json(proxy.address(), "POST", "/in", body);
        assert_eq!((answer.status(), answer.code().as_str()), (400, "decrypt_failed"), "{body}");
    }
    assert!(app.seen().is_empty());
    assert!(proxy.metrics().contains(r#"listener="ingress""#), "{}", proxy.metrics());
}

#[test]
fn an_answer_of_the_app_that_cannot_be_read_does_not_leave() {
    let app = Upstream::scripted(|_, stream| {
        oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "text/html")], b"<p>123-45-6789</p>")
    });
    let answer = json(ingress(&app).start().address(), "GET", "/page", "");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "unsupported_type"));
    assert!(!answer.text().contains("123-45-6789"));
}

#[test]
fn an_ingress_listener_whose_peers_anyone_could_be_is_refused_and_a_unix_socket_is_fine() {
    let parse = |listen: &str| {
        let vars = [
            ("OILSKIN_INGRESS_LISTEN", listen),
            ("OILSKIN_APP", "http://127.0.0.1:1"),
            ("OILSKIN_FIELDS", "$.ssn"),
            ("OILSKIN_ROOT_KEY", "file:/k/root.key"),
            ("OILSKIN_KEY_STORE", "file:/k/keys"),
        ];
        let vars: BTreeMap<_, _> = vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        oilskin_tests::config::parse(&vars)
    };
    let problems = parse("127.0.0.1:16006").unwrap_err();
    assert!(problems.contains("authenticated") && problems.contains("trust: mesh"), "{problems}");
    assert!(parse("unix:/run/oilskin.sock").is_ok());

    let app = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("in.sock");
    let wire = Upstream::echo();
    let proxy = Builder::default()
        .env("OILSKIN_UPSTREAM", &wire.url())
        .env("OILSKIN_LISTEN", "127.0.0.1:0")
        .env("OILSKIN_INGRESS_LISTEN", &format!("unix:{}", socket.display()))
        .env("OILSKIN_APP", &app.url())
        .fields("$.ssn")
        .start();
    proxy.json("POST", "/", r#"{"ssn":"123"}"#);
    let token = wire.one().text();
    let curl = ["-H", "content-type: application/json", "-d", &token, "http://app/x"];
    let answer = tools::run(tools::program("curl").args(["-sS", "--unix-socket"]).arg(&socket).args(curl));
    assert_eq!(app.one().text(), r#"{"ssn":"123"}"#);
    assert!(answer.contains("oil1."), "{answer}");
}

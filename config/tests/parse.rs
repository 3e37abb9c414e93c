//! Whole configurations.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use oilskin_config::{Bind, Config, Direction, Mode, OnDecryptError, Op, Problem, Trust, Vars, generated, parse};
use proptest::prelude::*;

fn vars(pairs: &[(&str, &str)]) -> Vars {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn read(pairs: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    parse(&vars(pairs), &|path| Err(format!("{path}: no such file")))
}

fn shown(pairs: &[(&str, &str)]) -> Vec<String> {
    read(pairs).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

const KEYS: [(&str, &str); 2] = [("OILSKIN_ROOT_KEY", "file:/k/root.key"), ("OILSKIN_KEY_STORE", "file:/k/keys")];

fn with_keys<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [KEYS.as_slice(), pairs].concat()
}

#[test]
fn the_environment_alone_makes_one_egress_listener() {
    let pairs = with_keys(&[
        ("OILSKIN_UPSTREAM", "https://crm.internal:8443/base/"),
        ("OILSKIN_FIELDS", "$.ssn, each:$.tags context=tag"),
    ]);
    let config = read(&pairs).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].bind, Bind::Tcp("127.0.0.1:16001".parse().unwrap()));
    assert_eq!(config.upstreams[0].authority, "crm.internal:8443");
    assert_eq!(config.upstreams[0].prefix, "/base");
    let route = &config.routes[0];
    assert_eq!((route.request.op, route.response.op, route.path.is_none()), (Op::Encrypt, Op::Decrypt, true));
    assert_eq!(route.request.rules[0].contexts, ["ssn"]);
    assert!(route.request.rules[1].each);
    assert_eq!(route.request.rules[1].contexts, ["tag"]);
}

#[test]
fn the_ingress_listener_does_the_reverse_and_must_be_trusted() {
    let pairs = with_keys(&[
        ("OILSKIN_INGRESS_LISTEN", "127.0.0.1:16006"),
        ("OILSKIN_APP", "http://127.0.0.1:8080"),
        ("OILSKIN_FIELDS", "$.ssn"),
        ("OILSKIN_INGRESS_TRUST", "mesh"),
    ]);
    let config = read(&pairs).unwrap();
    assert_eq!((config.listeners[0].direction, config.listeners[0].trust), (Direction::Ingress, Trust::Mesh));
    assert_eq!((config.routes[0].request.op, config.routes[0].response.op), (Op::Decrypt, Op::Encrypt));
    let problems = shown(&pairs[..pairs.len() - 1]);
    assert!(problems[0].contains("OILSKIN_INGRESS_LISTEN: decrypting in requests needs"), "{problems:?}");
    let unix = with_keys(&[
        ("OILSKIN_INGRESS_LISTEN", "unix:/run/in.sock"),
        ("OILSKIN_APP", "http://a"),
        ("OILSKIN_FIELDS", "$.ssn"),
    ]);
    assert!(read(&unix).is_ok(), "a Unix socket's peers are known");
}

const DOCUMENT: &str = r#"
listeners:
- {name: out, bind: 127.0.0.1:16001, direction: egress}
upstreams:
  crm: {url: "https://crm.internal:8443", protocol: auto, tls: {ca_file: /etc/ca.pem}}
keys: {roots: [file:/var/lib/oilskin/root.key], hold: any, store: file:/var/lib/oilskin/keys}
routes:
- name: customers
  match: {listener: out, path: "/customers/{id}", methods: [PUT, PATCH, GET]}
  upstream: crm
  fields:
  - {select: "$..ssn", context: [customer.ssn, ssn], bind: {record: ["@.id", "path.id"]}}
  - {select: "$..email", context: customer.email, mode: deterministic}
  - $.note
  response:
    fields: [{select: "$.extra", on_decrypt_error: null}]
  on_decrypt_error: fail
limits: {depth: 64, max_body: 10MiB}
timeouts: {total: 5s}
"#;

#[test]
fn the_document_of_the_manual_is_read() {
    let config = read(&[("OILSKIN_CONFIG_YAML", DOCUMENT)]).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let route = &config.routes[0];
    assert_eq!(route.request.rules.len(), 3);
    assert_eq!(route.response.rules.len(), 4);
    assert_eq!(route.request.rules[0].contexts, ["customer.ssn", "ssn"]);
    assert_eq!(route.request.rules[0].bind[0].places.len(), 2);
    assert_eq!(route.request.rules[1].mode, Mode::Deterministic);
    assert_eq!(route.response.rules[3].on_decrypt_error, OnDecryptError::Null);
    assert_eq!((config.limits.depth, config.limits.body), (64, Some(10 << 20)));
    assert_eq!(config.timeouts.total.as_secs(), 5);
}

#[test]
fn the_environment_wins_over_the_document() {
    let config =
        read(&[("OILSKIN_CONFIG_YAML", DOCUMENT), ("OILSKIN_LIMITS_DEPTH", "32"), ("OILSKIN_DRAIN", "3s")]).unwrap();
    assert_eq!((config.limits.depth, config.timeouts.drain.as_secs()), (32, 3));
    let problems = shown(&[("OILSKIN_CONFIG_YAML", DOCUMENT), ("OILSKIN_FIELDS", "$.a")]);
    assert_eq!(problems, ["OILSKIN_FIELDS: set beside a document with routes: say it there"]);
}

#[test]
fn ten_mistakes_are_named_in_one_run() {
    let problems = shown(&[
        ("OILSKIN_UPSTREAM", "ftp://x"),
        ("OILSKIN_LISTEN", "nowhere"),
        ("OILSKIN_FIELDS", "$.a, $[-1], header:x"),
        ("OILSKIN_DRIAN", "20s"),
        ("OILSKIN_TIMEOUTS_TOTAL", "20"),
        ("OILSKIN_LIMITS_DEPTH", "0"),
        ("OILSKIN_WORKERS", "many"),
        ("OILSKIN_ROOT_KEY", "vault:x"),
        ("OILSKIN_KEY_STORE", ""),
        ("OILSKIN_ADMIN_LISTEN", ":16000"),
        ("OILSKIN_LOG_FORMAT", "xml"),
    ]);
    for name in [
        "OILSKIN_UPSTREAM: the scheme",
        "OILSKIN_LISTEN: not an address",
        "OILSKIN_FIELDS: field 2 ($[-1]): a negative index",
        "OILSKIN_FIELDS: field 3 (header:x): header: is not yet",
        "OILSKIN_DRIAN: unknown; did you mean OILSKIN_DRAIN?",
        "OILSKIN_TIMEOUTS_TOTAL: not a duration",
        "OILSKIN_LIMITS_DEPTH: must be",
        "OILSKIN_WORKERS: not a whole number",
        "OILSKIN_ROOT_KEY: must be vault:MOUNT/keys/NAME",
        "OILSKIN_KEY_STORE: set but empty",
        "OILSKIN_ADMIN_LISTEN: must be on loopback",
        "OILSKIN_LOG_FORMAT: must be one of",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(name)), "{name}: {problems:#?}");
    }
}

#[test]
fn a_field_of_the_environment_is_named_once_with_its_number() {
    let fields = |text: &str| shown(&with_keys(&[("OILSKIN_UPSTREAM", "http://a"), ("OILSKIN_FIELDS", text)]));
    for (text, problem) in [
        ("$.z, $..[?@.a==1, ?@.b==2]", "field 2 ($..[?@.a==1, ?@.b==2]): a filter cannot be decided"),
        ("$..[?match(@.a,'x')], $.z", "field 1 ($..[?match(@.a,'x')]): "),
        ("$.z, $", "field 2 ($): the context must be"),
        ("$.z, $.a context=", "field 2 ($.a context=): the context must be"),
        ("$.z, pkcs11:pin-value=1234", "field 2: not a JSONPath"),
        ("$.y,, $.z", "field 2: empty"),
        ("$.z, $.a[1", "field 2 ($.a[1): not a JSONPath"),
    ] {
        let problems = fields(text);
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].starts_with(&format!("OILSKIN_FIELDS: {problem}")), "{problems:?}");
        assert!(!problems[0].contains("1234"), "{problems:?}");
    }
    assert_eq!(fields("$['a context=b,c'], $.z context=z, "), [""; 0]);
}

#[test]
fn a_filter_of_the_log_that_shows_nothing_is_refused() {
    let log = |text: &str| read(&[("OILSKIN_UPSTREAM", "http://a"), ("OILSKIN_LOG", text)]);
    for good in ["info", "OFF", "warn,oilskin=debug", "info, oilskin::request=trace,rustls=warn"] {
        assert_eq!(log(good).unwrap().log.filter, good.replace(", ", ","));
    }
    for (text, part) in [
        ("nonsense", "directive 1: must be a level (off, error, warn, info, debug, trace) or MODULE=LEVEL"),
        ("inof", "did you mean info?"),
        ("oilskin", "or MODULE=LEVEL"),
        ("info,oilskin=verbose", "directive 2: must be a level"),
        ("info,oilskn=debug", "directive 2: there is no module of that name; did you mean oilskin?"),
        ("info,", "directive 2: must be a level"),
        ("oilskin/request=debug", "not a module's name"),
        ("[span{a=1}]=debug", "not a module's name"),
    ] {
        let problems = log(text).unwrap_err();
        assert!(
            problems[0].to_string().starts_with("OILSKIN_LOG: ") && problems[0].message.contains(part),
            "{problems:?}"
        );
    }
    let document = format!("{DOCUMENT}log: {{filter: inof}}\n");
    let problems = shown(&[("OILSKIN_CONFIG_YAML", &document)]);
    assert!(problems[0].starts_with("OILSKIN_CONFIG_YAML:20:15: log.filter: "), "{problems:?}");
}

#[test]
fn two_listeners_at_one_address_are_named_both() {
    let clash = |pairs: &[(&str, &str)]| {
        shown(&[&[("OILSKIN_UPSTREAM", "http://a"), ("OILSKIN_APP", "http://b")], pairs].concat())
    };
    let inward = ("OILSKIN_INGRESS_LISTEN", "127.0.0.1:16006");
    for (pairs, problem) in [
        (
            [inward, ("OILSKIN_ADMIN_LISTEN", "127.0.0.1:16001")],
            "OILSKIN_ADMIN_LISTEN: OILSKIN_LISTEN and service.admin (OILSKIN_ADMIN_LISTEN) share an address",
        ),
        (
            [("OILSKIN_INGRESS_LISTEN", "0.0.0.0:7"), ("OILSKIN_LISTEN", "127.0.0.1:7")],
            "OILSKIN_INGRESS_LISTEN: OILSKIN_LISTEN and OILSKIN_INGRESS_LISTEN share an address",
        ),
        (
            [inward, ("OILSKIN_LISTEN", "127.0.0.1:16020")],
            "OILSKIN_LISTEN: OILSKIN_LISTEN and service.metrics (OILSKIN_METRICS_LISTEN) share an address",
        ),
        (
            [("OILSKIN_INGRESS_LISTEN", "unix:/run/o.sock"), ("OILSKIN_HEALTH_LISTEN", "unix:/run/o.sock")],
            "OILSKIN_HEALTH_LISTEN: OILSKIN_INGRESS_LISTEN and service.health (OILSKIN_HEALTH_LISTEN) share an address",
        ),
    ] {
        let problems = clash(&pairs);
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].starts_with(problem), "{problems:?}");
    }
    assert_eq!(clash(&[inward, ("OILSKIN_ADMIN_LISTEN", "off"), ("OILSKIN_LISTEN", "127.0.0.1:16000")]), [""; 0]);
    assert_eq!(clash(&[("OILSKIN_INGRESS_LISTEN", "127.0.0.1:0"), ("OILSKIN_LISTEN", "127.0.0.1:0")]), [""; 0]);
    let second = DOCUMENT.replace("upstreams:\n", "- {name: in, bind: \":16001\"}\nupstreams:\n");
    let problems = shown(&[("OILSKIN_CONFIG_YAML", &second)]);
    let named = "OILSKIN_CONFIG_YAML:4:20: listeners[0].bind and listeners[1].bind share an address; give each its own";
    assert_eq!(problems, [named]);
}

#[test]
fn a_place_above_the_document_is_refused() {
    let bound = |select: &str, place: &str| {
        let rule = format!("- {{select: \"{select}\", context: c, bind: {{r: [\"{place}\", path.id]}}}}\n  - $.note");
        shown(&[("OILSKIN_CONFIG_YAML", &DOCUMENT.replace("- $.note", &rule))])
    };
    for (select, place) in [
        ("$.s", "@^.id"),
        ("$.a.s", "@^^.id"),
        ("$[*].s", "@^^.id"),
        ("$[0].s", "@^.id"),
        ("$.items[0:2].s", "@^^^.id"),
        ("$[0]", "@.id"),
        ("$", "@.id"),
    ] {
        let problems = bound(select, place);
        let named = problems.iter().find(|problem| problem.contains("above the document"));
        let named = named.unwrap_or_else(|| panic!("{select} {place}: {problems:#?}"));
        assert!(named.starts_with("OILSKIN_CONFIG_YAML:14:") && named.contains("].fields[2].bind.r: "), "{named}");
    }
    for (select, place) in
        [("$.s", "@.id"), ("$.a.s", "@^.id"), ("$[*].s", "@^.id"), ("$..s", "@^^^^.id"), ("$['a',0].s", "@^.id")]
    {
        assert_eq!(bound(select, place), [""; 0], "{select} {place}");
    }
}

#[test]
fn a_problem_is_one_line_whatever_was_typed() {
    let problems = shown(&[("OILSKIN_DRA\rIN\n\u{1b}[2J", "20s")]);
    assert!(problems[0].starts_with("OILSKIN_DRA\\rIN\\n\\u{1b}[2J: unknown"), "{problems:?}");
}

#[test]
fn mistakes_of_a_document_are_named_with_their_places() {
    let text = "listeners:\n- {name: out, bind: 127.0.0.1:1, directon: egress}\nupstreams: {crm: {url: \"http://a\"}}\nroutes:\n\
                - {name: a, match: {listener: aut, path: x}, upstream: cmr, fields: [{select: $.a, bind: {x: path.id}, mode: deterministic}]}\n\
                - {name: b, match: {listener: out, path: /b}, upstream: crm, upstream: crm, fields: [{query: ssn}]}\n";
    let problems = shown(&[("OILSKIN_CONFIG_YAML", text)]);
    for part in [
        "OILSKIN_CONFIG_YAML:2:34: listeners[0]: directon is unknown; did you mean direction?",
        "there is no listener aut; did you mean out?",
        "a path pattern begins with /",
        "there is no upstream cmr; did you mean crm?",
        "the route's pattern has no parameter {id}",
        "bind and mode: deterministic exclude each other",
        "the key upstream stands twice",
        "query is not yet in this version",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:#?}");
    }
}

#[test]
fn what_would_be_unsafe_is_refused() {
    let document = |extra: &str, listener: &str| {
        format!(
            "listeners: [{{name: l, bind: {listener}}}]\nupstreams: {{u: {{url: \"http://a\"}}}}\nkeys: {{roots: [file:/r], store: file:/s}}\nroutes:\n\
             - {{name: r, match: {{listener: l, path: \"/{{*x}}\"}}, upstream: u, {extra}}}\n"
        )
    };
    for (extra, listener, part) in [
        ("request: {op: decrypt, fields: [$.a]}", "127.0.0.1:1", "decrypting in requests"),
        ("tenant: {header: x-tenant}, fields: [$.a]", "0.0.0.0:1", "a tenant header is believed"),
        ("fields: [{select: $.a, keyset: \"p-{tenant}\"}]", "127.0.0.1:1", "the route has no tenant"),
        ("fields: [{select: $.a, accept_tokens: true}]", "127.0.0.1:1", "needs bind"),
        ("fields: [{select: $, context: x, on_decrypt_error: drop}]", "127.0.0.1:1", "whole document"),
        ("fields: [$]", "127.0.0.1:1", "context must be"),
        ("fields: [{select: $..a, bind: {r: \"@.id\"}}, \"$..id\"]", "127.0.0.1:1", "is protected itself"),
        ("fields: [{select: $.a, pad: 0}]", "127.0.0.1:1", "1 to 65536"),
        ("fields: [{select: $.a, keyset: ../x}]", "127.0.0.1:1", "keyset name"),
    ] {
        let problems = shown(&[("OILSKIN_CONFIG_YAML", &document(extra, listener))]);
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:#?}");
    }
}

#[test]
fn patterns_that_mean_the_same_request_are_refused() {
    let document = |paths: &[&str]| {
        let routes: Vec<String> = paths
            .iter()
            .enumerate()
            .map(|(n, path)| format!("- {{name: r{n}, match: {{listener: l, path: \"{path}\"}}, upstream: u}}\n"))
            .collect();
        format!(
            "listeners: [{{name: l, bind: 127.0.0.1:1}}]\nupstreams: {{u: {{url: \"http://a\"}}}}\nroutes:\n{}",
            routes.concat()
        )
    };
    for paths in [&["/c/{id}", "/c/{x}"][..], &["/c/{id}", "/c/{*rest}"], &["/a", "/a"], &["/{*a}b", "/"]] {
        assert!(!shown(&[("OILSKIN_CONFIG_YAML", &document(paths))]).is_empty(), "{paths:?}");
    }
    assert!(read(&[("OILSKIN_CONFIG_YAML", &document(&["/c/{id}", "/c/new", "/c/{id}/x", "/f/{*rest}"]))]).is_ok());
}

#[test]
fn nothing_at_all_says_what_to_set() {
    let problems = shown(&[]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("OILSKIN_UPSTREAM") && problems[0].contains("oilskin dev"), "{problems:?}");
    let unprotected = shown(&[("OILSKIN_UPSTREAM", "http://a"), ("OILSKIN_FIELDS", "$.a")]);
    assert!(unprotected[0].contains("oilskin keys init"), "{unprotected:?}");
}

#[test]
fn kubernetes_service_links_are_no_settings() {
    let links = [("OILSKIN_SERVICE_HOST", "10.0.0.1"), ("OILSKIN_PORT_80_TCP_ADDR", "x"), ("OILSKIN_PORT", "tcp://x")];
    assert!(read(&[&links[..], &[("OILSKIN_UPSTREAM", "http://a")]].concat()).is_ok());
}

#[test]
fn unsafe_choices_are_warned_about() {
    let pairs = with_keys(&[
        ("OILSKIN_UPSTREAM", "http://a"),
        ("OILSKIN_FIELDS", "$.a, $.a.b"),
        ("OILSKIN_PLAINTEXT", "accept"),
        ("OILSKIN_UNSAFE_OPAQUE_TYPES", "image/*"),
    ]);
    let warnings = read(&pairs).unwrap().warnings.join("\n");
    for part in ["plaintext: accept", "image/* pass unread", "$.a.b can never win"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[test]
fn a_document_that_is_no_map_is_never_ignored() {
    for text in ["/etc/oilskin.yaml", "\"text\"", "[]", "- a", "null", "# nothing", "7"] {
        let problems = read(&[("OILSKIN_CONFIG_YAML", text), ("OILSKIN_UPSTREAM", "http://127.0.0.1:1")]).unwrap_err();
        let said: String = problems.iter().map(ToString::to_string).collect();
        assert!(said.contains("not a document of settings"), "{text}: {said}");
    }
}

#[test]
fn the_generated_files_are_in_step_with_the_table() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    let file = |name: &str| std::fs::read_to_string(format!("{docs}/{name}")).unwrap_or_default();
    assert!(file("configuration.md") == generated::configuration_page(), "run `make docs`");
    assert!(file("config.schema.json") == generated::json_schema(), "run `make docs`");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,300}", name in "OILSKIN_[A-Z_]{0,20}", value in ".{0,40}") {
        let _ = read(&[("OILSKIN_CONFIG_YAML", text.as_str()), (name.as_str(), value.as_str())]);
        let _ = read(&[("OILSKIN_UPSTREAM", text.as_str()), ("OILSKIN_FIELDS", value.as_str())]);
    }

    #[test]
    fn no_mangled_document_makes_it_panic(cuts in prop::collection::vec((0_usize..900, 0_usize..40, "[a-z:{}\\[\\]\"&*! \n-]{0,6}"), 1..5)) {
        let mut text = DOCUMENT.to_owned();
        for (at, length, put) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.replace_range(at..end, &put);
        }
        let _ = read(&[("OILSKIN_CONFIG_YAML", text.as_str())]);
    }
}

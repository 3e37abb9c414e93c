//! Mistakes of a document: each named once, at its own place, and none hidden by another.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use oilskin_config::{Config, Problem, Vars, parse};

fn read(pairs: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let vars: Vars = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    parse(&vars, &|path| Err(format!("{path}: no such file")))
}

fn shown(pairs: &[(&str, &str)]) -> Vec<String> {
    read(pairs).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// One listener `l` and one upstream `u` in lines 1 to 3, then these routes from line 5 on, one a line.
fn document(routes: &[&str]) -> String {
    let routes: String = routes.iter().map(|route| format!("- {{{route}}}\n")).collect();
    format!(
        "listeners: [{{name: l, bind: 127.0.0.1:1}}]\nupstreams: {{u: {{url: \"http://a\"}}}}\n\
         keys: {{roots: [file:/r], store: file:/s}}\nroutes:\n{routes}"
    )
}

fn of_document(text: &str) -> Vec<String> {
    shown(&[("OILSKIN_CONFIG_YAML", text)])
}

/// One route with this path and more settings.
fn of_route(path: &str, more: &str) -> Vec<String> {
    of_document(&document(&[&format!("name: r, match: {{listener: l, path: \"{path}\"}}, upstream: u{more}")]))
}

#[test]
fn a_parameter_that_stands_twice_is_refused() {
    let bound = ", fields: [{select: $.s, bind: {r: path.a}}]";
    for path in ["/x/{a}/{a}", "/{a}/{b}/{*a}"] {
        let problems = of_route(path, bound);
        let named =
            "OILSKIN_CONFIG_YAML:5:40: routes[0].match.path: the parameter {a} stands twice; give each its own name";
        assert_eq!(problems, [named], "{path}");
    }
    assert_eq!(of_route("/x/{a}/{b}", bound), [""; 0]);
}

#[test]
fn a_bad_root_or_store_hides_no_other_mistake_of_the_keys() {
    for (roots, store) in [("nonsense", "file:/s"), ("file:/r", "nonsense"), ("pkcs11:x", "vault:x")] {
        let problems = shown(&[
            ("OILSKIN_UPSTREAM", "http://a"),
            ("OILSKIN_ROOT_KEY", roots),
            ("OILSKIN_KEY_STORE", store),
            ("OILSKIN_ROOT_HOLD", "quorum:0"),
            ("OILSKIN_KEYSET_SIGNER", "x"),
            ("OILSKIN_KEYSET_MIN_EPOCH", "-1"),
        ]);
        let bad = usize::from(roots != "file:/r") + usize::from(store != "file:/s");
        assert_eq!(problems.len(), 3 + bad, "{problems:#?}");
    }
    let text = document(&["name: r, match: {listener: l, path: /}, upstream: u"]);
    let problems = of_document(&text.replace("[file:/r]", "[nonsense, file:/r], hold: \"quorum:2\""));
    assert_eq!(problems.len(), 1, "two roots are written: {problems:#?}");
    let problems = of_document(&text.replace("[file:/r]", "[]"));
    assert!(problems.iter().any(|problem| problem.contains("keys: roots is missing")), "{problems:#?}");
}

#[test]
fn what_has_a_mistake_is_there_all_the_same() {
    let text =
        document(&["name: r, match: {listener: l, path: /a}, upstream: u, fields: [$.a, {select: $.b, pad: 0}]"]);
    let problems = of_document(&text.replace("http://a", "ftp://a").replace("bind: 127.0.0.1:1", "bind: nowhere"));
    assert_eq!(problems.len(), 3, "{problems:#?}");
    for (problem, part) in problems.iter().zip(["listeners[0].bind", "upstreams.u.url", "fields[1].pad"]) {
        assert!(problem.contains(part), "{problems:#?}");
    }
}

#[test]
fn routes_that_conflict_are_named_at_their_own_places() {
    let route = |name: &str, path: &str, more: &str| {
        format!("name: {name}, match: {{listener: l, path: \"{path}\"{more}}}, upstream: u")
    };
    let routes = [
        route("a", "/c/{id}", ""),
        route("b", "/c/{x}", ""),
        route("c", "/c/{*rest}", ""),
        route("d", "/p", ", methods: [PUT, GET]"),
        route("e", "/p", ", methods: [GET]"),
        route("f", "/c/{id}", ", host: \"*\""),
        route("g", "/p", ", methods: [get]"),
    ];
    let problems = of_document(&document(&routes.each_ref().map(String::as_str)));
    let at =
        |line: usize, rest: &str| format!("OILSKIN_CONFIG_YAML:{line}:40: routes[{}].match.path: {rest}", line - 5);
    let own: Vec<_> = problems.iter().filter(|problem| problem.contains("match.path")).collect();
    assert_eq!(
        own,
        [
            &at(6, "another route takes /c/{x} before it"),
            &at(7, "the pattern /c/{*rest} cannot stand beside /c/{id}: a request could mean either"),
            &at(9, "another route takes GET /p before it"),
        ]
    );
    assert_eq!(problems.len(), 5, "a bad host and a bad method are no conflicts: {problems:#?}");
    let problems = of_document(&document(&[&routes[0], &routes[1]]).replace("http://a", "ftp://a"));
    assert_eq!(problems.len(), 2, "a bad upstream hides no conflict: {problems:#?}");
}

#[test]
fn a_count_is_no_size() {
    let problems = |name: &str, value: &str| shown(&[("OILSKIN_UPSTREAM", "http://a"), (name, value)]);
    for name in ["HEAD_FIELDS", "STREAMS", "CONNECTIONS", "HANDSHAKES", "UPSTREAM_CONNECTIONS", "DEPTH"] {
        let name = format!("OILSKIN_LIMITS_{name}");
        for value in ["many", "1KiB", "10B"] {
            assert_eq!(problems(&name, value), [format!("{name}: not a whole number")]);
        }
        assert!(problems(&name, "0")[0].contains("must be 1 to"), "{name}");
        assert_eq!(problems(&name, "10"), [""; 0]);
    }
    for value in ["many", "10", "1KiB"] {
        let said = problems("OILSKIN_LIMITS_MAX_FIELD", value);
        assert_eq!(said.is_empty(), value == "1KiB", "{said:?}");
    }
}

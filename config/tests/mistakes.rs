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

#[test]
fn a_pattern_that_no_request_matches_is_refused() {
    for path in [
        "//", "/a//b", "/a/../b", "/..", "/./a", "/%41", "/a%2fb", "/a%", "/a%zz", "/a%5C", "/%00", "/a?b", "/a#b",
        "/a;b", "/a\\\\b", "/a b", "/a\\tb", "/{}", "/{*}", "/{a", "/a}", "/{{a}}", "/{a{b}", "/{a/b}", "/{*a}/b",
    ] {
        let problems = of_route(path, "");
        assert!(problems.len() == 1 && problems[0].contains("routes[0].match.path: "), "{path}: {problems:#?}");
    }
    for path in ["/", "/a/", "/a%20b/%C3%A9", "/{a}/{*b}", "/a.b/..c/~x", "/v1/{id}:close", "/{*rest}", "/é"] {
        assert_eq!(of_route(path, ""), [""; 0], "{path}");
    }
}

#[test]
fn settings_that_can_never_work_are_refused() {
    for (more, problem) in [
        (", fields: [{select: $.a, bind: {r: []}}]", "routes[0].fields[0].bind.r: names no place"),
        (", fields: [{select: $.a, context: []}]", "routes[0].fields[0].context: an empty list"),
        (
            ", fields: [{select: $.a, mode: deterministic, unlinkable: true}]",
            "routes[0].fields[0]: unlinkable and mode",
        ),
        (", fields: [{select: $.a, name: n}, {select: $.b, name: n}]", "routes[0].fields: two rules of one phase"),
        (", fields: [{select: $.a, name: $.b}, $.b]", "routes[0].fields: two rules of one phase are named $.b"),
        (
            ", fields: [{select: $.a, name: n}], response: {fields: [{select: $.b, name: n}]}",
            "routes[0].response.fields: two rules of one phase are named n",
        ),
    ] {
        let problems = of_route("/x", more);
        assert!(problems.len() == 1 && problems[0].contains(problem), "{more}: {problems:#?}");
    }
    let apart = ", request: {fields: [{select: $.a, name: n}]}, response: {fields: [{select: $.b, name: n}]}";
    assert_eq!(of_route("/x", apart), [""; 0], "two phases");
    assert_eq!(of_route("/x", ", fields: [$.a, $.a]"), [""; 0], "a warning: one never wins");
    let methods = document(&["name: r, match: {listener: l, path: /x, methods: []}, upstream: u"]);
    assert!(of_document(&methods)[0].contains("routes[0].match.methods: an empty list"));
}

#[test]
fn two_routes_of_one_name_or_for_one_request_are_refused() {
    let named = document(&[
        "name: r, match: {listener: l, path: /a}, upstream: u",
        "name: r, match: {listener: l, path: /b}, upstream: u",
    ]);
    assert_eq!(of_document(&named), ["OILSKIN_CONFIG_YAML:6:10: routes[1].name: another route is named r"]);
    let shadowed = document(&[
        "name: a, match: {listener: l, path: /a}, upstream: u",
        "name: b, match: {listener: l, path: /a, methods: [GET]}, upstream: u",
    ]);
    assert!(of_document(&shadowed)[0].contains("routes[1].match.path: another route takes GET /a before it"));
}

#[test]
fn a_listener_without_a_route_is_warned_about() {
    let text = document(&["name: r, match: {listener: l, path: /a}, upstream: u"]);
    let text =
        text.replace("{name: l, bind: 127.0.0.1:1}", "{name: l, bind: 127.0.0.1:1}, {name: m, bind: 127.0.0.1:2}");
    let warnings = read(&[("OILSKIN_CONFIG_YAML", &text)]).unwrap().warnings;
    assert!(
        warnings.contains(&"listener m: no route leads from it: all it takes gets no_route".to_owned()),
        "{warnings:?}"
    );
}

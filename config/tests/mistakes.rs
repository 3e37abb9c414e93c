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

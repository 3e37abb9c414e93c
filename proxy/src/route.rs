//! Which route a request takes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use oilskin_config as config;

use crate::snapshot::Route;

/// The routes of one listener.
#[derive(Default)]
pub(crate) struct Table {
    /// Hosts named by routes; looked up before `any_host`.
    by_host: HashMap<String, Shapes>,
    any_host: Shapes,
    /// Paths decide: then a path that reads in two ways is refused.
    by_path: bool,
    /// Some route with a path has rules: what a catch-all takes may be that route's but for its last slash.
    protects: bool,
    /// The same, and its pattern ends with a slash.
    protects_slashed: bool,
}

#[derive(Default)]
struct Shapes {
    shapes: matchit::Router<Methods>,
    /// The environment's catch-all, which is no pattern.
    any_path: Methods,
}

/// The routes of one shape, told apart by method.
#[derive(Default, Clone)]
struct Methods {
    routes: Vec<Arc<Route>>,
    /// The shape ends with `{*…}`.
    catch_all: bool,
}

/// A route and the parts of the path it names, percent-encoded as they came.
pub(crate) struct Match<'p> {
    pub(crate) route: &'p Arc<Route>,
    pub(crate) params: Vec<&'p str>,
    /// A catch-all took it: no one wrote whether the path ends with a slash.
    caught: bool,
}

/// Why no route is taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoMatch {
    NoRoute,
    Ambiguous,
    /// With its last slash added or left off, the path is of a route with rules.
    Slash,
}

impl Methods {
    fn find(&self, method: &Method) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.takes(method))
    }

    fn protect(&self) -> bool {
        self.routes.iter().any(|route| route.protects())
    }
}

impl Table {
    /// Compiles the routes of listener `listener`.
    ///
    /// # Errors
    /// A pattern that `matchit` cannot hold; the configuration was checked for that, so it names a defect.
    pub(crate) fn new(
        routes: &[(usize, &config::Route, Arc<Route>)],
        listener: usize,
    ) -> Result<Self, matchit::InsertError> {
        let mut table = Self::default();
        let mut grouped = Grouped::new();
        let mut count = 0_usize;
        for (_, text, route) in routes.iter().filter(|(of, ..)| *of == listener) {
            count += 1;
            match &text.path {
                Some(path) => {
                    table.by_path = true;
                    let key = (text.host.clone(), shape(path).0);
                    let catch_all = base_of_rest(&key.1).is_some();
                    let methods = grouped.entry(key).or_insert(Methods { routes: Vec::new(), catch_all });
                    methods.routes.push(Arc::clone(route));
                }
                None => table.shapes(text.host.as_ref()).any_path.routes.push(Arc::clone(route)),
            }
        }
        table.by_path &= count > 1 || !only_catch_all(&grouped);
        for (key, methods) in empty_rests(&grouped) {
            grouped.entry(key).or_insert(methods);
        }
        for ((host, shape), methods) in grouped {
            table.protects |= methods.protect();
            // Of `/` nothing is left without it.
            table.protects_slashed |= methods.protect() && shape.len() > 1 && shape.ends_with('/');
            table.shapes(host.as_ref()).shapes.insert(shape, methods)?;
        }
        Ok(table)
    }

    fn shapes(&mut self, host: Option<&String>) -> &mut Shapes {
        match host {
            Some(host) => self.by_host.entry(host.clone()).or_default(),
            None => &mut self.any_host,
        }
    }

    /// Finds the route of a request; `host` gives what the app sent, asked for only where a route cares.
    pub(crate) fn find<'p, 'h>(
        &'p self,
        host: impl FnOnce() -> Option<&'h str>,
        method: &Method,
        path: &'p str,
    ) -> Result<Match<'p>, NoMatch> {
        if self.by_path && reads_two_ways(path) {
            return Err(NoMatch::Ambiguous);
        }
        let sent = if self.by_host.is_empty() { None } else { host().map(str::to_ascii_lowercase) };
        let found = self.take(sent.as_deref(), method, path).ok_or(NoMatch::NoRoute)?;
        if found.caught
            && let Some(other) = self.other_slash(path)
            && let Some(meant) = self.take(sent.as_deref(), method, &other)
            && meant.route.protects()
            && !Arc::ptr_eq(meant.route, found.route)
        {
            return Err(NoMatch::Slash);
        }
        Ok(found)
    }

    fn take<'p>(&'p self, host: Option<&str>, method: &Method, path: &'p str) -> Option<Match<'p>> {
        // As it was sent, and by its name alone: clients add the port, and a route means the host.
        let hosts = host.map(|host| [host, name_of(host)]);
        let found = hosts.iter().flatten().find_map(|host| self.by_host.get(*host)?.find(method, path));
        found.or_else(|| self.any_host.find(method, path))
    }

    /// The path with its last slash left off or added, where a route with rules may be written so: many servers read
    /// both alike.
    fn other_slash<'p>(&self, path: &'p str) -> Option<Cow<'p, str>> {
        match path.strip_suffix('/') {
            Some("") => None,
            Some(bare) => self.protects.then_some(Cow::Borrowed(bare)),
            None => self.protects_slashed.then(|| Cow::Owned(format!("{path}/"))),
        }
    }
}

impl Shapes {
    fn find<'p>(&'p self, method: &Method, path: &'p str) -> Option<Match<'p>> {
        if let Ok(found) = self.shapes.at(path)
            && let Some(route) = found.value.find(method)
        {
            let params = found.params.iter().map(|(_, value)| value).collect();
            return Some(Match { route, params, caught: found.value.catch_all });
        }
        let route = self.any_path.find(method)?;
        let params = Vec::new();
        Some(Match { route, params, caught: true })
    }
}

/// A host without user, port and the dot of the root.
fn name_of(host: &str) -> &str {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let name = match host.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Routes by host and shape.
type Grouped = HashMap<(Option<String>, String), Methods>;

fn only_catch_all(grouped: &Grouped) -> bool {
    grouped.keys().all(|(_, shape)| shape == "/{*p0}")
}

/// `/{*rest}` serves `/` too, which matchit keeps apart. So does `/api/{*rest}` with rules serve `/api/`: an open route
/// that takes the rest must not.
fn empty_rests(grouped: &Grouped) -> Vec<((Option<String>, String), Methods)> {
    let empty = |((host, shape), methods): (&(Option<String>, String), &Methods)| {
        let base = base_of_rest(shape).filter(|base| base.ends_with('/') && (*base == "/" || methods.protect()))?;
        Some(((host.clone(), base.to_owned()), Methods { routes: methods.routes.clone(), catch_all: false }))
    };
    grouped.iter().filter_map(empty).collect()
}

/// What stands before the catch-all of a shape.
fn base_of_rest(shape: &str) -> Option<&str> {
    let (base, rest) = shape.rsplit_once("{*p")?;
    // Doubled braces are meant as they are.
    (rest.ends_with('}') && !base.ends_with('{')).then_some(base)
}

/// A pattern with its parameters numbered, so that routes may name them differently; and their names.
pub(crate) fn shape(pattern: &str) -> (String, Vec<String>) {
    let mut out = String::with_capacity(pattern.len());
    let mut names = Vec::new();
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let (before, after) = rest.split_at(open);
        out.push_str(before);
        if let Some(escaped) = after.strip_prefix("{{") {
            out.push_str("{{");
            rest = escaped;
            continue;
        }
        let Some(close) = after.find('}') else { break };
        let (inside, tail) = after.split_at(close);
        let name = inside.trim_start_matches('{');
        let star = if name.starts_with('*') { "*" } else { "" };
        out.push_str(&format!("{{{star}p{}}}", names.len()));
        names.push(name.trim_start_matches('*').to_owned());
        rest = tail.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    (out, names)
}

/// A path that two servers may read differently: what an escape could hide, and segments that vanish.
fn reads_two_ways(path: &str) -> bool {
    let bytes = path.as_bytes();
    if bytes.iter().any(|byte| matches!(byte, b';' | b'\\')) {
        return true;
    }
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (Some(&high), Some(&low)) = (rest.get(at + 1), rest.get(at + 2)) else {
            return true;
        };
        let Some(byte) = unhex(high, low) else {
            return true;
        };
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if unreserved || matches!(byte, b'/' | b'\\' | 0) {
            return true;
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if matches!(segment, "." | "..") || (segment.is_empty() && !last) {
            return true;
        }
    }
    false
}

/// The byte of two hexadecimal digits.
pub(crate) fn unhex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_forget_the_names_of_their_parameters() {
        assert_eq!(
            shape("/c/{id}/x/{*rest}"),
            ("/c/{p0}/x/{*p1}".to_owned(), vec!["id".to_owned(), "rest".to_owned()])
        );
        assert_eq!(shape("/a/{{b}}").0, "/a/{{b}}");
    }

    #[test]
    fn what_stands_before_a_catch_all_is_told() {
        assert_eq!(base_of_rest("/{*p0}"), Some("/"));
        assert_eq!(base_of_rest("/c/{p0}/{*p1}"), Some("/c/{p0}/"));
        for shape in ["/", "/c/{p0}", "/{{*p0}}"] {
            assert_eq!(base_of_rest(shape), None, "{shape}");
        }
    }

    #[test]
    fn a_host_is_its_name_however_it_is_sent() {
        for host in
            ["api.example", "api.example:21901", "api.example.", "api.example.:80", "api.example:", "u@api.example:443"]
        {
            assert_eq!(name_of(host), "api.example", "{host}");
        }
        assert_eq!(name_of("[::1]:80"), "[::1]");
        assert_eq!(name_of("[::1]"), "[::1]");
    }

    #[test]
    fn a_path_with_two_readings_is_told() {
        for path in [
            "/a/%2e%2e/b",
            "/a/../b",
            "/a//b",
            "/a;x",
            "/a%2Fb",
            "/a%5cb",
            "/a%00",
            "/%41",
            "//a",
            "/a/.",
            "/a%",
            "/a%zz",
            "/./a",
            "/a\\b",
        ] {
            assert!(reads_two_ways(path), "{path}");
        }
        for path in ["/", "/a", "/a/", "/a/b%20c", "/%C3%A9", "/a.b/c", "/..a"] {
            assert!(!reads_two_ways(path), "{path}");
        }
    }
}

//! Which route a request takes.

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
}

#[derive(Default)]
struct Shapes {
    shapes: matchit::Router<Methods>,
    /// The environment's catch-all, which is no pattern.
    any_path: Methods,
}

/// The routes of one shape, told apart by method.
#[derive(Default)]
struct Methods(Vec<Arc<Route>>);

/// A route and the parts of the path it names, percent-encoded as they came.
pub(crate) struct Match<'p> {
    pub(crate) route: &'p Arc<Route>,
    pub(crate) params: Vec<&'p str>,
}

/// Why no route is taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoMatch {
    NoRoute,
    Ambiguous,
}

impl Methods {
    fn find(&self, method: &Method) -> Option<&Arc<Route>> {
        self.0.iter().find(|route| route.takes(method))
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
        let mut grouped: HashMap<(Option<String>, String), Methods> = HashMap::new();
        let mut count = 0_usize;
        for (_, text, route) in routes.iter().filter(|(of, ..)| *of == listener) {
            count += 1;
            match &text.path {
                Some(path) => {
                    table.by_path = true;
                    let key = (text.host.clone(), shape(path).0);
                    grouped.entry(key).or_default().0.push(Arc::clone(route));
                }
                None => table.shapes(text.host.as_ref()).any_path.0.push(Arc::clone(route)),
            }
        }
        table.by_path &= count > 1 || !only_catch_all(&grouped);
        let roots: Vec<_> = grouped.keys().filter(|(_, shape)| shape == "/").map(|(host, _)| host.clone()).collect();
        for ((host, shape), methods) in grouped {
            let shapes = &mut table.shapes(host.as_ref()).shapes;
            // `/{*rest}` serves `/` too, which matchit keeps apart; a route for `/` itself goes first.
            if shape == "/{*p0}" && !roots.contains(&host) {
                shapes.insert("/", Methods(methods.0.clone()))?;
            }
            shapes.insert(shape, methods)?;
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
        if !self.by_host.is_empty()
            && let Some(host) = host()
        {
            // As it was sent, and by its name alone: clients add the port, and a route means the host.
            let sent = host.to_ascii_lowercase();
            let found =
                [sent.as_str(), name_of(&sent)].iter().find_map(|host| self.by_host.get(*host)?.find(method, path));
            if let Some(found) = found {
                return Ok(found);
            }
        }
        self.any_host.find(method, path).ok_or(NoMatch::NoRoute)
    }
}

impl Shapes {
    fn find<'p>(&'p self, method: &Method, path: &'p str) -> Option<Match<'p>> {
        if let Ok(found) = self.shapes.at(path)
            && let Some(route) = found.value.find(method)
        {
            let params = found.params.iter().map(|(_, value)| value).collect();
            return Some(Match { route, params });
        }
        let route = self.any_path.find(method)?;
        let params = Vec::new();
        Some(Match { route, params })
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

fn only_catch_all(grouped: &HashMap<(Option<String>, String), Methods>) -> bool {
    grouped.keys().all(|(_, shape)| shape == "/{*p0}")
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

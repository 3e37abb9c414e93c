//! `listeners:`, `upstreams:`, `routes:`.

use super::rules::{on_error, rules};
use super::sockets::{Socket, listeners};
use super::{Reader, conflicts, join, one_of, tls};
use crate::problem::{Place, did_you_mean};
use crate::value::{self, path, url};
use crate::yaml::{Data, Node};
use crate::{
    Bind, BindPlace, ClientAuth, Direction, Listener, OnDecryptError, Op, Phase, Protocol, Route, Rule, Scheme,
    Segment, Selector, Step, Tenant, Trust, Upstream, UpstreamTls,
};

/// Listeners, upstreams and routes.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) listeners: Vec<Listener>,
    /// Where they listen, to be compared with all others.
    pub(super) sockets: Vec<Socket>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) routes: Vec<Route>,
}

impl Listener {
    /// Whether its peers are authenticated: by certificates, on a Unix socket, or by a mesh proxy on loopback.
    fn authenticated(&self) -> bool {
        let certificates = self.tls.as_ref().is_some_and(|tls| tls.client_auth == ClientAuth::Required);
        certificates || matches!(self.bind, Bind::Unix(_)) || self.trust == Trust::Mesh
    }
}

pub(super) fn traffic(r: &mut Reader<'_>, tree: &Node, warnings: &mut Vec<String>) -> Traffic {
    let (listeners, sockets) = listeners(r, tree);
    let upstreams = upstreams(r, tree);
    let written = Written::of(tree);
    let mut traffic = Traffic { listeners, sockets, upstreams, routes: Vec::new() };
    let mut nodes = Vec::new();
    if tree.get("listeners").is_none() {
        r.problem(&tree.place, "listeners", "missing: routes need a listener");
    }
    for (index, node) in r.list(tree, "", "routes").into_iter().enumerate() {
        let at = format!("routes[{index}]");
        r.known_keys(node, &at, "routes[]");
        let route = route(r, node, &at, &traffic, &written);
        if let Some(name) = node.get("name").filter(|_| traffic.routes.iter().any(|other| other.name == route.name)) {
            r.problem(&name.place, &join(&at, "name"), format!("another route is named {}", route.name));
        }
        check(r, &node.place, &at, &route, &traffic, warnings);
        traffic.routes.push(route);
        nodes.push(node);
    }
    if tree.get("routes").is_none() {
        r.problem(&tree.place, "routes", "missing: nothing passes by itself");
    }
    conflicts::conflicts(r, &nodes, &traffic.routes);
    for (index, listener) in traffic.listeners.iter().enumerate() {
        if !traffic.routes.iter().any(|route| route.listener == index) {
            warnings.push(format!("listener {}: no route leads from it: all it takes gets no_route", listener.name));
        }
    }
    traffic
}

/// Names as they are written, also of what has mistakes of its own: it is there.
struct Written<'a> {
    listeners: Vec<&'a str>,
    upstreams: Vec<&'a str>,
}

impl<'a> Written<'a> {
    fn of(tree: &'a Node) -> Self {
        let listeners = match tree.get("listeners").map(|node| &node.data) {
            Some(Data::List(items)) => items.iter().filter_map(|item| item.get("name")?.as_text()).collect(),
            _ => Vec::new(),
        };
        let upstreams = match tree.get("upstreams").map(|node| &node.data) {
            Some(Data::Map(entries)) => entries.iter().map(|entry| entry.key.as_str()).collect(),
            _ => Vec::new(),
        };
        Self { listeners, upstreams }
    }
}

fn upstreams(r: &mut Reader<'_>, tree: &Node) -> Vec<Upstream> {
    let entries = match tree.get("upstreams") {
        None => return Vec::new(),
        Some(Node { data: Data::Map(entries), .. }) => entries,
        Some(other) => {
            r.problem(&other.place, "upstreams", "must be a map of names");
            return Vec::new();
        }
    };
    let mut upstreams = Vec::new();
    for entry in entries {
        let at = join("upstreams", &entry.key);
        if let Err(message) = value::name(&entry.key) {
            r.problem(&entry.key_place, &at, message);
        }
        r.known_keys(&entry.value, &at, "upstreams.*");
        let tls = tls::upstream(r, &entry.value, &at);
        let protocol = r.setting(&entry.value, &at, "protocol", |text| {
            let words =
                [("auto", None), ("h1", Some(Protocol::H1)), ("h2", Some(Protocol::H2)), ("h2c", Some(Protocol::H2))];
            one_of(&words, text)
        });
        let Some(url) = r.required(&entry.value, &at, "url", url::parse) else { continue };
        if let (Some(node), true) = (entry.value.get("tls"), url.scheme != Scheme::Https) {
            r.problem(&node.place, &join(&at, "tls"), "is for https:// alone");
        }
        upstreams.push(upstream(&entry.key, url, protocol.flatten().unwrap_or(Protocol::Auto), tls));
    }
    upstreams
}

pub(super) fn upstream(name: &str, url: url::Url, protocol: Protocol, tls: Option<UpstreamTls>) -> Upstream {
    Upstream {
        name: name.to_owned(),
        scheme: url.scheme,
        target: url.target,
        authority: url.authority,
        prefix: url.prefix,
        protocol,
        tls: tls.filter(|_| url.scheme == Scheme::Https),
    }
}

/// The place of what has a mistake that was named: no configuration comes of it, and nothing stands there.
const WRONG: usize = usize::MAX;

/// The index among `good` of a thing by its name; a problem with the nearest one if nothing that is `written` has it.
fn by_name<'a>(
    r: &mut Reader<'_>,
    node: &Node,
    at: &str,
    key: &str,
    written: &[&str],
    mut good: impl Iterator<Item = &'a str>,
) -> usize {
    let Some(wanted) = r.required(node, at, key, |text| Ok(text.to_owned())) else { return WRONG };
    if !written.contains(&wanted.as_str()) {
        let place = node.get(key).map_or(&node.place, |node| &node.place);
        let near = did_you_mean(&wanted, written.iter().copied());
        r.problem(place, &join(at, key), format!("there is no {key} {wanted}{near}"));
    }
    good.position(|name| name == wanted).unwrap_or(WRONG)
}

/// What a listener's direction does to each phase.
pub(super) fn ops(direction: Direction) -> (Op, Op) {
    match direction {
        Direction::Egress => (Op::Encrypt, Op::Decrypt),
        Direction::Ingress => (Op::Decrypt, Op::Encrypt),
    }
}

/// A route; what is wrong with it was named, and stands in it as nothing.
fn route(r: &mut Reader<'_>, node: &Node, at: &str, traffic: &Traffic, written: &Written<'_>) -> Route {
    let name = r.required(node, at, "name", |text| value::name(text).map(|()| text.to_owned()));
    let matched = node.get("match");
    let empty = Node::map(&node.place);
    let matching = matched.unwrap_or(&empty);
    let match_at = join(at, "match");
    if matched.is_some() {
        r.known_keys(matching, &match_at, "routes[].match");
    }
    let names = traffic.listeners.iter().map(|one| one.name.as_str());
    let listener = by_name(r, matching, &match_at, "listener", &written.listeners, names);
    let path = r.required(matching, &match_at, "path", path::pattern);
    let mut methods = Vec::new();
    r.not_empty(matching, &match_at, "methods");
    for item in r.list(matching, &match_at, "methods") {
        let Some(text) = r.text(item, &match_at) else { continue };
        match value::method(&text) {
            Ok(()) => methods.push(text),
            Err(message) => r.problem(&item.place, &join(&match_at, "methods"), message),
        }
    }
    let host = r.setting(matching, &match_at, "host", value::host);
    let names = traffic.upstreams.iter().map(|one| one.name.as_str());
    let upstream = by_name(r, node, at, "upstream", &written.upstreams, names);
    let keep_host = r.setting(node, at, "host", |text| one_of(&[("keep", true)], text)).unwrap_or(false);
    let on_decrypt_error = on_error(r, node, at).unwrap_or(OnDecryptError::Fail);
    // As written, good or not: a place that names one of them is no second mistake.
    let params = matching.get("path").and_then(Node::as_text).map(path::params).unwrap_or_default();
    let both = rules(r, node, at, &params, (on_decrypt_error, &[]));
    let direction = traffic.listeners.get(listener).map(|listener| listener.direction);
    let (request_op, response_op) = ops(direction.unwrap_or(Direction::Egress));
    let request = phase(r, node, at, "request", (request_op, &both, &params, on_decrypt_error));
    let response = phase(r, node, at, "response", (response_op, &both, &params, on_decrypt_error));
    let mut opaque = Vec::new();
    for item in r.list(node, at, "opaque") {
        let Some(text) = r.text(item, at) else { continue };
        match value::media_type(&text) {
            Ok(()) => opaque.push(text.to_ascii_lowercase()),
            Err(message) => r.problem(&item.place, &join(at, "opaque"), message),
        }
    }
    let tenant = tenant(r, node, at);
    let require_inspection = r.setting(node, at, "require_inspection", value::boolean).unwrap_or(false);
    let access_log = r.setting(node, at, "access_log", value::boolean).unwrap_or(false);
    Route {
        name: name.unwrap_or_default(),
        listener,
        path,
        methods,
        host,
        upstream,
        keep_host,
        request,
        response,
        opaque,
        require_inspection,
        tenant,
        access_log,
    }
}

type Inherited<'a> = (Op, &'a [Rule], &'a [String], OnDecryptError);

fn phase(
    r: &mut Reader<'_>,
    node: &Node,
    at: &str,
    key: &str,
    (op, both, params, on_decrypt_error): Inherited<'_>,
) -> Phase {
    let mut phase = Phase { op, rules: both.to_vec() };
    if let Some(own) = node.get(key) {
        let at = join(at, key);
        r.known_keys(own, &at, if key == "request" { "routes[].request" } else { "routes[].response" });
        let words = [("encrypt", Op::Encrypt), ("decrypt", Op::Decrypt)];
        phase.op = r.setting(own, &at, "op", |text| one_of(&words, text)).unwrap_or(op);
        phase.rules.extend(rules(r, own, &at, params, (on_decrypt_error, both)));
    }
    phase
}

fn tenant(r: &mut Reader<'_>, node: &Node, at: &str) -> Option<Tenant> {
    let found = node.get("tenant")?;
    let at = join(at, "tenant");
    if let Data::Scalar(text) = &found.data {
        if let Err(message) = value::short(text) {
            r.problem(&found.place, &at, message);
        }
        return Some(Tenant::Literal(text.clone()));
    }
    r.known_keys(found, &at, "routes[].tenant");
    let header = r.required(found, &at, "header", |text| match value::is_token(text) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("not a header's name".to_owned()),
    });
    header.map(Tenant::Header)
}

/// What holds between a route and its listener.
pub(super) fn check(
    r: &mut Reader<'_>,
    place: &Place,
    at: &str,
    route: &Route,
    traffic: &Traffic,
    warnings: &mut Vec<String>,
) {
    if let Some(listener) = traffic.listeners.get(route.listener) {
        believed(r, place, at, route, listener);
    }
    let all = || route.request.rules.iter().chain(&route.response.rules);
    if route.tenant.is_none() && all().any(|rule| rule.keyset.contains("{tenant}")) {
        r.problem(place, at, "a keyset names {tenant}, but the route has no tenant");
    }
    if all().any(|rule| rule.plaintext_accepted) {
        warnings.push(format!("route {}: plaintext: accept: its rules keep secrets but prove nothing", route.name));
    }
    if !route.opaque.is_empty() {
        warnings.push(format!(
            "route {}: unsafe: {} pass unread although fields are protected",
            route.name,
            route.opaque.join(", ")
        ));
    }
    for phase in [&route.request, &route.response] {
        bound_and_protected(r, place, at, &phase.rules);
        shadowed(route, &phase.rules, warnings);
    }
}

/// What asks for peers that are known.
fn believed(r: &mut Reader<'_>, place: &Place, at: &str, route: &Route, listener: &Listener) {
    if route.request.op == Op::Decrypt && !route.request.rules.is_empty() && !listener.authenticated() {
        r.problem(
            place,
            at,
            "decrypting in requests needs a listener whose peers are authenticated: by client certificates (tls with client_ca_file), a \
             Unix socket, or trust: mesh on loopback; \
             else anyone who reaches it can have any token opened",
        );
    }
    let believed =
        listener.authenticated() || (listener.direction == Direction::Egress && value::is_local(&listener.bind));
    if matches!(route.tenant, Some(Tenant::Header(_))) && !believed {
        r.problem(
            place,
            at,
            "a tenant header is believed only on an authenticated listener or an egress one on loopback",
        );
    }
}

/// A bound member that a rule protects is another value on the way back, so nothing opens: refused where it can be told.
fn bound_and_protected(r: &mut Reader<'_>, place: &Place, at: &str, rules: &[Rule]) {
    for rule in rules {
        for (bind, bound) in rule.bind.iter().flat_map(|bind| bind.places.iter().map(move |place| (bind, place))) {
            let Some(path) = bound_path(rule, bound) else { continue };
            if let Some(protects) = rules.iter().find(|other| other.select.covers(&path, false)) {
                let message = format!(
                    "{} binds {} to a member that is protected itself, by {}",
                    rule.name, bind.name, protects.name
                );
                r.problem(place, at, message);
            }
        }
    }
}

/// Where a bound value stands, as a selector would say it; places further up are told when a document shows them.
fn bound_path(rule: &Rule, place: &BindPlace) -> Option<Selector> {
    let child = |name: &String| Segment::Child(vec![Step::Name(name.clone())]);
    match place {
        BindPlace::Document(names) => Some(Selector::of(names.iter().map(child).collect())),
        BindPlace::Relative { up: 0, names } => {
            let (last, before) = rule.select.segments().split_last()?;
            let mut path = before.to_vec();
            match last {
                Segment::Child(_) => path.extend(names.iter().map(child)),
                Segment::Descendant(_) => {
                    let (first, rest) = names.split_first()?;
                    path.push(Segment::Descendant(vec![Step::Name(first.clone())]));
                    path.extend(rest.iter().map(child));
                }
            }
            Some(Selector::of(path))
        }
        BindPlace::Relative { .. } | BindPlace::Path(_) => None,
    }
}

/// Rules that can never win: the first for the same value does.
fn shadowed(route: &Route, rules: &[Rule], warnings: &mut Vec<String>) {
    for (index, rule) in rules.iter().enumerate() {
        let earlier = rules.iter().take(index).find(|other| other.select.covers(&rule.select, other.each));
        let later = rules.iter().skip(index + 1).find(|other| !other.each && other.select.covers(&rule.select, true));
        if let Some(winner) = earlier.or(later) {
            let warning =
                format!("route {}: rule {} can never win: {} takes its values", route.name, rule.name, winner.name);
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
}

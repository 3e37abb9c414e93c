//! The environment alone: one egress listener, and an ingress one if named, each with a catch-all route.

use super::routes::{Traffic, check, ops, upstream};
use super::rules::{checked, plain};
use super::sockets::Socket;
use super::tls::{NOT_ON_UNIX, Parts, tls12};
use super::{Reader, backend, one_of};
use crate::env::Settings;
use crate::problem::{Place, Problem};
use crate::value::{self, Read, url};
use crate::{
    Backend, Bind, Direction, Listener, ListenerTls, PeerPattern, Phase, Protocol, Route, Rule, Scheme, Selector,
    Source, Trust, UpstreamTls,
};

/// Variables that make what a document with `routes:` says itself.
const MAKES_ROUTES: &[&str] = &[
    "OILSKIN_UPSTREAM",
    "OILSKIN_LISTEN",
    "OILSKIN_FIELDS",
    "OILSKIN_PLAINTEXT",
    "OILSKIN_BACKEND",
    "OILSKIN_UPSTREAM_CA_FILE",
    "OILSKIN_UPSTREAM_SOURCE",
    "OILSKIN_UPSTREAM_CERT_FILE",
    "OILSKIN_UPSTREAM_KEY_FILE",
    "OILSKIN_UPSTREAM_CRL_FILE",
    "OILSKIN_UPSTREAM_ALLOW",
    "OILSKIN_TLS_SOURCE",
    "OILSKIN_TLS_CERT_FILE",
    "OILSKIN_TLS_KEY_FILE",
    "OILSKIN_TLS_CLIENT_CA_FILE",
    "OILSKIN_TLS_CRL_FILE",
    "OILSKIN_TLS_ALLOW",
    "OILSKIN_INGRESS_TLS_SOURCE",
    "OILSKIN_INGRESS_TLS_CERT_FILE",
    "OILSKIN_INGRESS_TLS_KEY_FILE",
    "OILSKIN_INGRESS_TLS_CLIENT_CA_FILE",
    "OILSKIN_INGRESS_TLS_CRL_FILE",
    "OILSKIN_INGRESS_TLS_ALLOW",
    "OILSKIN_ACCESS_LOG",
    "OILSKIN_UNSAFE_OPAQUE_TYPES",
    "OILSKIN_INGRESS_LISTEN",
    "OILSKIN_APP",
    "OILSKIN_INGRESS_TRUST",
];

pub(super) fn refuse_beside(r: &mut Reader<'_>, vars: &Settings) {
    for name in MAKES_ROUTES.iter().filter(|name| vars.contains_key(**name)) {
        r.problems.push(Problem::env(*name, "set beside a document with routes: say it there"));
    }
}

struct Vars<'a, 'p> {
    vars: &'a Settings,
    r: &'a mut Reader<'p>,
}

impl Vars<'_, '_> {
    fn read<T>(&mut self, name: &str, read: impl Fn(&str) -> Read<T>) -> Option<T> {
        match read(self.vars.get(name)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.r.problems.push(Problem::env(name, message));
                None
            }
        }
    }
}

impl Vars<'_, '_> {
    /// The parts of TLS whose names begin so; what they lack is said under the names of their variables.
    fn tls<T>(
        &mut self,
        prefix: &str,
        ca: &str,
        make: impl FnOnce(Parts) -> Result<T, (&'static str, &'static str)>,
    ) -> Option<T> {
        let name = |part: &str| format!("{prefix}_{part}");
        let file = |text: &str| match text.is_empty() {
            true => Err("must be a path".to_owned()),
            false => Ok(text.into()),
        };
        let allow = |text: &str| text.split(',').map(|one| PeerPattern::parse(one.trim())).collect();
        let vars = self.vars;
        let parts = Parts {
            source: self.read(&name("SOURCE"), |text| Source::parse(text, vars)),
            cert: self.read(&name("CERT_FILE"), file),
            key: self.read(&name("KEY_FILE"), file),
            ca: self.read(&name(ca), file),
            crl: self.read(&name("CRL_FILE"), file),
            allow: self.read(&name("ALLOW"), allow).unwrap_or_default(),
        };
        if parts.is_empty() {
            return None;
        }
        match make(parts) {
            Ok(tls) => Some(tls),
            Err((part, message)) => {
                self.r.problems.push(Problem::env(name(&part.to_ascii_uppercase()), message));
                None
            }
        }
    }
}

pub(super) fn traffic(r: &mut Reader<'_>, vars: &Settings, warnings: &mut Vec<String>) -> Traffic {
    let mut traffic = Traffic::default();
    let mut v = Vars { vars, r };
    let rules = fields(&mut v);
    let opaque = v.read("OILSKIN_UNSAFE_OPAQUE_TYPES", |text| {
        let types: Vec<String> = text.split(',').map(|kind| kind.trim().to_ascii_lowercase()).collect();
        types.iter().try_for_each(|kind| value::media_type(kind)).map(|()| types)
    });
    let access_log = v.read("OILSKIN_ACCESS_LOG", value::boolean).unwrap_or(false);
    let upstream_tls = v.tls("OILSKIN_UPSTREAM", "CA_FILE", Parts::upstream);
    let oldest = v.read("OILSKIN_UPSTREAM_MIN_TLS", tls12);
    let tls = v.tls("OILSKIN_TLS", "CLIENT_CA_FILE", Parts::listener);
    let app_tls = v.tls("OILSKIN_INGRESS_TLS", "CLIENT_CA_FILE", Parts::listener);
    let listen = v.read("OILSKIN_LISTEN", value::bind);
    let app_listen = v.read("OILSKIN_INGRESS_LISTEN", value::bind);
    let trust = v.read("OILSKIN_INGRESS_TRUST", |text| one_of(&[("mesh", Trust::Mesh)], text)).unwrap_or(Trust::Bind);
    let out = v.read("OILSKIN_UPSTREAM", url::parse);
    let app = v.read("OILSKIN_APP", url::parse);
    let (tls_made, app_tls_made) = (tls.is_some(), app_tls.is_some());
    let mut wrong = Vec::new();
    let mut side = |name: &str,
                    (url, upstream_tls): (url::Url, Option<UpstreamTls>),
                    bind: Bind,
                    direction,
                    trust,
                    tls: Option<ListenerTls>| {
        let index = traffic.listeners.len();
        let place = listener_place(name);
        if tls.is_some() && matches!(bind, Bind::Unix(_)) {
            wrong.push(Problem::new(&place, "", NOT_ON_UNIX));
        }
        traffic.sockets.push(Socket { setting: place.to_string(), place, bind: bind.clone() });
        traffic.listeners.push(Listener { name: name.to_owned(), bind, direction, trust, tls });
        let upstream_name = if direction == Direction::Egress { "upstream" } else { "app" };
        traffic.upstreams.push(upstream(upstream_name, url, Protocol::Auto, upstream_tls));
        let (request, response) = ops(direction);
        traffic.routes.push(Route {
            name: name.to_owned(),
            listener: index,
            path: None,
            methods: Vec::new(),
            host: None,
            upstream: index,
            keep_host: false,
            request: Phase { op: request, rules: rules.clone() },
            response: Phase { op: response, rules: rules.clone() },
            opaque: opaque.clone().unwrap_or_default(),
            require_inspection: false,
            tenant: None,
            access_log,
        });
    };
    if let Some(url) = out {
        if upstream_tls.is_some() && url.scheme != Scheme::Https {
            let message = "the certificates and authorities of OILSKIN_UPSTREAM_* are for https:// alone";
            v.r.problems.push(Problem::env("OILSKIN_UPSTREAM", message));
        }
        let bind = listen.unwrap_or(Bind::Tcp(([127, 0, 0, 1], 16001).into()));
        let upstream_tls = upstream_tls.or_else(|| Parts::default().upstream().ok());
        let upstream_tls = upstream_tls.map(|tls| UpstreamTls { tls12: oldest.unwrap_or(false), ..tls });
        side("egress", (url, upstream_tls), bind, Direction::Egress, Trust::Bind, tls);
    }
    for (prefix, made, lacking) in
        [("OILSKIN_TLS", tls_made, "OILSKIN_UPSTREAM"), ("OILSKIN_INGRESS_TLS", app_tls_made, "OILSKIN_APP")]
    {
        if made && !vars.contains_key(lacking) {
            let source = format!("{prefix}_SOURCE");
            let name = if vars.contains_key(&source) { source } else { format!("{prefix}_CERT_FILE") };
            v.r.problems.push(Problem::env(name, format!("its listener is not there: set {lacking}")));
        }
    }
    match (app_listen, app) {
        (Some(bind), Some(url)) => {
            side("ingress", (url, Parts::default().upstream().ok()), bind, Direction::Ingress, trust, app_tls)
        }
        _ if vars.contains_key("OILSKIN_INGRESS_LISTEN") && !vars.contains_key("OILSKIN_APP") => {
            v.r.problems.push(Problem::env("OILSKIN_APP", "missing: it says where OILSKIN_INGRESS_LISTEN leads"));
        }
        _ if vars.contains_key("OILSKIN_APP") && !vars.contains_key("OILSKIN_INGRESS_LISTEN") => {
            v.r.problems.push(Problem::env("OILSKIN_INGRESS_LISTEN", "missing: OILSKIN_APP is reached through it"));
        }
        _ => {}
    }
    if !["OILSKIN_UPSTREAM", "OILSKIN_APP", "OILSKIN_INGRESS_LISTEN"].iter().any(|name| vars.contains_key(*name)) {
        let message = "nothing to do: set OILSKIN_UPSTREAM to where the app's requests go (and OILSKIN_FIELDS to what is \
                       protected), or OILSKIN_CONFIG to a document with routes, or run `oilskin dev` to try it";
        v.r.problem(&Place::Nowhere, "", message);
    }
    v.r.problems.append(&mut wrong);
    for route in &traffic.routes {
        check(v.r, &listener_place(&route.name), "", route, &traffic, warnings);
    }
    traffic
}

fn listener_place(route: &str) -> Place {
    Place::Env(if route == "ingress" { "OILSKIN_INGRESS_LISTEN" } else { "OILSKIN_LISTEN" }.to_owned())
}

fn fields(v: &mut Vars<'_, '_>) -> Vec<Rule> {
    let accepted =
        v.read("OILSKIN_PLAINTEXT", |text| one_of(&[("refuse", false), ("accept", true)], text)).unwrap_or(false);
    let backend = v.read("OILSKIN_BACKEND", backend::parse).unwrap_or(Backend::Local);
    let Some(text) = v.vars.get("OILSKIN_FIELDS") else { return Vec::new() };
    let place = Place::Env("OILSKIN_FIELDS".to_owned());
    let mut rules = Vec::new();
    for (index, text) in split(text).into_iter().enumerate() {
        let before = v.r.problems.len();
        match field(text) {
            Ok(rule) => {
                let (encrypt, decrypt) = (backend.clone(), vec![backend.clone()]);
                rules.extend(checked(v.r, &place, "", Rule { plaintext_accepted: accepted, encrypt, decrypt, ..rule }));
            }
            Err(message) => v.r.problem(&place, "", message),
        }
        for problem in v.r.problems.iter_mut().skip(before) {
            problem.message = format!("field {}{}: {}", index + 1, shown(text), problem.message);
        }
    }
    rules
}

/// The field as written, where it looks like one; anything else may be a secret in the wrong place.
fn shown(text: &str) -> String {
    let looks = ["$", "each:", "form:", "query:", "header:"].iter().any(|start| text.starts_with(start));
    match text.char_indices().nth(80) {
        _ if !looks => String::new(),
        Some((end, _)) => format!(" ({}…)", text.get(..end).unwrap_or_default()),
        None => format!(" ({text})"),
    }
}

/// The bytes outside brackets, which are those outside quotes, too.
fn outside(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    text.bytes().enumerate().filter(move |(_, byte)| {
        if let Some(open) = quote {
            (quote, escaped) = match byte {
                _ if escaped => (quote, false),
                b'\\' => (quote, true),
                byte => (quote.filter(|_| *byte != open), false),
            };
            return false;
        }
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b'\'' | b'"' if depth > 0 => quote = Some(*byte),
            _ => {}
        }
        depth == 0
    })
}

const CONTEXT: &str = " context=";

/// Whether the option begins there.
fn is_context(text: &str, at: usize) -> bool {
    text.get(at..).is_some_and(|tail| tail.starts_with(CONTEXT))
}

/// Splits at commas outside brackets and quotes; a context's name ends at any. A comma behind the last field is allowed.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let end =
            outside(text).find(|(at, byte)| *byte == b',' || is_context(text, *at)).map_or(text.len(), |(at, _)| at);
        let (selector, option) = text.split_at(end);
        let end = selector.len() + option.find(',').unwrap_or(option.len());
        let (part, tail) = text.split_at(end);
        parts.push(part.trim());
        rest = tail.get(1..);
    }
    if parts.len() > 1 && parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    parts
}

/// One field: `[each:]SELECTOR[ context=NAME]`.
fn field(text: &str) -> Read<Rule> {
    if text.is_empty() {
        return Err("empty: a comma too many?".to_owned());
    }
    for place in ["form:", "query:", "header:"] {
        if text.starts_with(place) {
            return Err(format!("{place} is not yet in this version"));
        }
    }
    let (each, text) = match text.strip_prefix("each:") {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let option = outside(text).find(|(at, _)| is_context(text, *at));
    let (selector, context) = match option.and_then(|(at, _)| text.split_at_checked(at)) {
        Some((selector, option)) => (selector.trim_end(), option.strip_prefix(CONTEXT).map(str::to_owned)),
        None => (text, None),
    };
    let select = Selector::parse(selector).map_err(|error| error.to_string())?;
    if context.as_ref().is_some_and(|context| context.contains(char::is_whitespace)) {
        // More likely the next field, which would go unprotected, than a name.
        return Err("white space in a context; is a comma missing before the next field?".to_owned());
    }
    Ok(plain(select, context, each))
}

#[cfg(test)]
mod tests {
    use super::{field, split};

    #[test]
    fn commas_inside_brackets_and_quotes_do_not_split() {
        assert_eq!(split("$.a, $['b','c'],$..d context=x"), ["$.a", "$['b','c']", "$..d context=x"]);
        assert_eq!(split("$.a, nonsense, $.b,"), ["$.a", "nonsense", "$.b"]);
        for whole in [
            "$[1,2]",
            "$..[?@.a==1, ?@.b==2]",
            "$[?match(@.a,'x')]",
            r"$['a],\'b', 1]",
            r#"$["it's, it"]"#,
            "$['a context=b, c']",
        ] {
            assert_eq!(split(&format!("{whole}, $.z")), [whole, "$.z"]);
        }
        assert_eq!(split("$.a context=it's[x, $.b"), ["$.a context=it's[x", "$.b"], "a context's name is any text");
        assert_eq!(split(" , "), [""]);
    }

    #[test]
    fn the_option_stands_outside_of_names() {
        let rule = field("each:$['a context=b'] context=c").unwrap();
        assert_eq!(
            (rule.select.last_name(), rule.contexts.as_slice()),
            (Some("a context=b"), ["c".to_owned()].as_slice())
        );
        assert_eq!(field("$['a context=b']").unwrap().contexts, ["a context=b"]);
    }

    #[test]
    fn a_forgotten_comma_is_no_part_of_a_context() {
        assert!(field("$.ssn context=customer $.email").is_err());
        assert!(field("$.ssn context=customer\n$.email").is_err());
        assert!(field("$['a b'] context=customer.ssn").is_ok());
    }
}

//! The tree, read: every value checked, every problem noted.

mod backend;
mod conflicts;
mod keys;
mod routes;
mod rules;
mod secret;
mod shortcut;
mod sockets;
mod tls;
mod vault;

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::env::Settings;
use crate::problem::{Place, Problem, did_you_mean};
use crate::table::{LATER, ROWS};
use crate::value::{self, Read};
use crate::yaml::{Data, Node};
use crate::{Bind, Config, KeySettings, Keys, Limits, Log, LogFormat, Rule, Source, Timeouts};

/// Notes problems while a tree is read.
pub(crate) struct Reader<'a> {
    pub(crate) problems: &'a mut Vec<Problem>,
    pub(crate) vars: &'a Settings,
}

impl Reader<'_> {
    pub(crate) fn problem(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(place, path, message));
    }

    /// A scalar's text.
    pub(crate) fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.data {
            Data::Scalar(text) => Some(text.clone()),
            _ => {
                self.problem(&node.place, path, "must be a single value");
                None
            }
        }
    }

    /// The setting `key` of `node`, read by `read`; none where it is absent or wrong.
    pub(crate) fn setting<T>(&mut self, node: &Node, at: &str, key: &str, read: impl Fn(&str) -> Read<T>) -> Option<T> {
        let found = node.get(key)?;
        let path = join(at, key);
        let text = self.text(found, &path)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(&found.place, &path, message);
                None
            }
        }
    }

    /// The same, which must be there.
    pub(crate) fn required<T>(
        &mut self,
        node: &Node,
        at: &str,
        key: &str,
        read: impl Fn(&str) -> Read<T>,
    ) -> Option<T> {
        if node.get(key).is_none() {
            self.problem(&node.place, at, format!("{key} is missing"));
        }
        self.setting(node, at, key, read)
    }

    /// The elements of a list; a single value counts as one.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, at: &str, key: &str) -> Vec<&'n Node> {
        match node.get(key) {
            None => Vec::new(),
            Some(Node { data: Data::List(items), .. }) => items.iter().collect(),
            Some(one @ Node { data: Data::Scalar(_), .. }) => vec![one],
            Some(other) => {
                self.problem(&other.place, &join(at, key), "must be a list");
                Vec::new()
            }
        }
    }

    /// Reports a list that says nothing: whoever writes one means something by it.
    pub(crate) fn not_empty(&mut self, node: &Node, at: &str, key: &str) {
        if let Some(found @ Node { data: Data::List(items), .. }) = node.get(key)
            && items.is_empty()
        {
            self.problem(&found.place, &join(at, key), "an empty list; leave it out");
        }
    }

    /// Reports keys that no row of the table has.
    pub(crate) fn known_keys(&mut self, node: &Node, at: &str, pattern: &str) {
        let Data::Map(entries) = &node.data else {
            self.problem(&node.place, at, "must be a map of settings");
            return;
        };
        let known: BTreeSet<&str> = ROWS.iter().filter_map(|row| child_of(row.path, pattern)).collect();
        if known.contains("*") {
            return;
        }
        for entry in entries {
            if known.contains(entry.key.as_str()) {
                continue;
            }
            let message = if pattern == "fields[]" && LATER.contains(&entry.key.as_str()) {
                format!("{} is not yet in this version", entry.key)
            } else {
                format!("{} is unknown{}", entry.key, did_you_mean(&entry.key, known.iter().copied()))
            };
            self.problem(&entry.key_place, at, message);
        }
    }
}

/// The next name of `path` below `pattern`.
fn child_of<'p>(path: &'p str, pattern: &str) -> Option<&'p str> {
    let rest = match pattern {
        "" => path,
        _ => path.strip_prefix(pattern)?.strip_prefix('.')?,
    };
    let name = rest.split('.').next()?;
    let name = name.strip_suffix("[]").unwrap_or(name);
    (!(pattern.is_empty() && name == "fields")).then_some(name)
}

pub(crate) fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// One of the words, or the rule.
pub(crate) fn one_of<T: Copy>(words: &[(&str, T)], text: &str) -> Read<T> {
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("must be one of {}", words.join(", "))
    })
}

/// Reads a whole configuration.
pub(crate) fn config(tree: Node, vars: &Settings, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut reader = Reader { problems, vars };
    let r = &mut reader;
    if matches!(tree.data, Data::Empty) {
        r.problem(&tree.place, "", "the document is empty");
        return None;
    }
    r.known_keys(&tree, "", "");
    let mut warnings = Vec::new();
    let limits = limits(r, &tree);
    let timeouts = timeouts(r, &tree);
    let (service, service_sockets) = sockets::service(r, &tree);
    let log = Log {
        filter: section(r, &tree, "log")
            .and_then(|log| r.setting(log, "log", "filter", value::log_filter))
            .unwrap_or_else(|| "info".to_owned()),
        format: section(r, &tree, "log").and_then(|log| {
            r.setting(log, "log", "format", |text| {
                one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)], text)
            })
        }),
    };
    let workers = r.setting(&tree, "", "workers", |text| {
        let count = usize::try_from(value::count(text)?).ok().and_then(NonZeroUsize::new);
        count.filter(|count| count.get() <= 256).ok_or_else(|| "must be 1 to 256".to_owned())
    });
    let unsafe_unlocked_keys = r.setting(&tree, "", "unsafe_unlocked_keys", value::boolean).unwrap_or(false);
    if unsafe_unlocked_keys {
        warnings.push("unsafe_unlocked_keys: keys may be written to swap".to_owned());
    }
    let keys = keys::keys(r, &tree, &mut warnings);
    let traffic = if tree.get("routes").is_some() || tree.get("listeners").is_some() {
        shortcut::refuse_beside(r, vars);
        routes::traffic(r, &tree, &mut warnings)
    } else {
        shortcut::traffic(r, vars, &mut warnings)
    };
    let asks_vault = |source: &Source| matches!(source, Source::Vault(_));
    let listeners = traffic.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let rules = || traffic.routes.iter().flat_map(|route| route.request.rules.iter().chain(&route.response.rules));
    let needs_vault = keys.as_ref().is_some_and(Keys::asks_vault)
        || listeners.flat_map(|tls| &tls.identities).any(asks_vault)
        || traffic.upstreams.iter().any(|upstream| upstream.tls.as_ref().is_some_and(|tls| asks_vault(&tls.identity)))
        || rules().any(|rule| rule.vault_key().is_some());
    if let Some(node) = tree.get("vault") {
        r.known_keys(node, "vault", "vault");
    }
    // Its variables may be there for others: nothing is said of them where nothing here asks.
    let vault = if needs_vault { vault::vault(r, &tree, vars, &mut warnings) } else { None };
    sockets::shared(r, traffic.sockets.iter().chain(&service_sockets));
    backend::together(r, rules());
    let unclear = r.problems.iter().any(backend::is_unclear);
    if rules().any(Rule::is_local) && keys.is_none() && tree.get("keys").is_none() && !unclear {
        r.problem(&Place::Nowhere, "keys", "fields are protected but no keys are configured: set OILSKIN_ROOT_KEY and OILSKIN_KEY_STORE (`oilskin keys init` makes both), or run `oilskin dev`");
    }
    if tls::are_for_development(&traffic) {
        warnings.push(DEVELOPMENT.to_owned());
    }
    if rules().next().is_none() {
        warnings.push("nothing is encrypted: no route has fields".to_owned());
    }
    Some(Config {
        workers,
        listeners: traffic.listeners,
        upstreams: traffic.upstreams,
        routes: traffic.routes,
        keys,
        vault,
        limits,
        timeouts,
        service,
        log,
        unsafe_unlocked_keys,
        warnings,
    })
}

/// Reads where the admin port is.
pub(crate) fn admin(tree: Node, vars: &Settings, problems: &mut Vec<Problem>) -> Option<Option<Bind>> {
    let mut reader = Reader { problems, vars };
    Some(sockets::service(&mut reader, &tree).0.admin)
}

/// Reads the settings of keys alone.
pub(crate) fn key_settings(tree: Node, vars: &Settings, problems: &mut Vec<Problem>) -> Option<KeySettings> {
    let mut reader = Reader { problems, vars };
    let (r, tree) = (&mut reader, &tree);
    let mut warnings = Vec::new();
    let Some(keys) = keys::keys(r, tree, &mut warnings) else {
        if tree.get("keys").is_none() {
            r.problem(&Place::Nowhere, "keys", NO_KEYS);
        }
        return None;
    };
    let slab = limits(r, tree).key_slab;
    let unsafe_unlocked_keys = r.setting(tree, "", "unsafe_unlocked_keys", value::boolean).unwrap_or(false);
    let vault = if keys.asks_vault() {
        Some(vault::vault(r, tree, vars, &mut warnings)?)
    } else if tree.get("vault").is_some_and(|node| node.get("address").is_some()) {
        // A command may name a root there; where none does, what is wrong with it is nobody's matter.
        let mut problems = Vec::new();
        let vault = vault::vault(&mut Reader { problems: &mut problems, vars }, tree, vars, &mut warnings);
        vault.filter(|_| problems.is_empty())
    } else {
        None
    };
    let admin = sockets::service(r, tree).0.admin;
    Some(KeySettings { keys, vault, admin, slab, unsafe_unlocked_keys, warnings })
}

const DEVELOPMENT: &str = "CERTIFICATES FOR DEVELOPMENT ONLY: a source is dev:, an authority whose private key lies unprotected in a \
                           folder of this machine, and whoever reads that is everyone";

const NO_KEYS: &str =
    "no keys are configured: set OILSKIN_ROOT_KEY (file:/path/root.key) and OILSKIN_KEY_STORE (file:/path/keys)";

/// A map below the top, its keys checked once.
fn section<'n>(r: &mut Reader<'_>, tree: &'n Node, key: &str) -> Option<&'n Node> {
    let found = tree.get(key)?;
    let before = r.problems.len();
    r.known_keys(found, key, key);
    // A section read twice says what is wrong with it once; `parse` drops doubles.
    (r.problems.len() == before || matches!(found.data, Data::Map(_))).then_some(found)
}

fn limits(r: &mut Reader<'_>, tree: &Node) -> Limits {
    let empty = Node::map(&Place::Nowhere);
    let node = section(r, tree, "limits").unwrap_or(&empty);
    let mut within = |key: &str, default: u64, (low, high): (u64, u64), read: fn(&str) -> Read<u64>| {
        let read = |text: &str| {
            let number = read(text)?;
            if (low..=high).contains(&number) { Ok(number) } else { Err(format!("must be {low} to {high}")) }
        };
        r.setting(node, "limits", key, read).unwrap_or(default)
    };
    let usize_of = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let nonzero = |number: u64| NonZeroUsize::new(usize_of(number)).unwrap_or(NonZeroUsize::MIN);
    let mut count = |key: &str, default: u64, high: u64| within(key, default, (1, high), value::count);
    let head_fields = usize_of(count("head_fields", 100, 1000));
    let streams = u32::try_from(count("streams", 100, 10_000)).unwrap_or(NonZeroU32::MIN.get());
    let connections = node.get("connections").map(|_| nonzero(count("connections", 10_000, 1 << 20)));
    let handshakes = nonzero(count("handshakes", 256, 1 << 16));
    let upstream_connections = nonzero(count("upstream_connections", 1024, 1 << 16));
    let depth = usize_of(count("depth", 128, 10_000));
    let mut size = |key: &str, default: u64, low: u64, high: u64| within(key, default, (low, high), bytes);
    Limits {
        head: usize_of(size("head", 16 << 10, 1 << 10, 1 << 20)),
        head_fields,
        streams,
        connections,
        handshakes,
        upstream_connections,
        depth,
        body: node.get("max_body").map(|_| size("max_body", u64::MAX, 0, u64::MAX)),
        min_body_rate: size("min_body_rate", 100, 0, 1 << 30),
        field: usize_of(size("max_field", 1 << 20, 1 << 10, 1 << 30)),
        hold: usize_of(size("hold_bytes", 64 << 10, 1 << 10, 1 << 30)),
        bind_window: usize_of(size("bind_window", 256 << 10, 1 << 10, 1 << 30)),
        key_slab: usize_of(size("key_slab", 48 << 10, 4 << 10, 1 << 30)),
    }
}

/// A size; a bare number counts bytes.
fn bytes(text: &str) -> Read<u64> {
    value::count(text).or_else(|_| value::size(text))
}

fn timeouts(r: &mut Reader<'_>, tree: &Node) -> Timeouts {
    let empty = Node::map(&Place::Nowhere);
    let node = section(r, tree, "timeouts").unwrap_or(&empty);
    let mut time = |key: &str, default: u64| {
        let read = |text: &str| {
            let time = value::duration(text)?;
            let fits = (Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&time);
            if fits { Ok(time) } else { Err("must be 1ms to 24h".to_owned()) }
        };
        r.setting(node, "timeouts", key, read).unwrap_or(Duration::from_secs(default))
    };
    Timeouts {
        connect: time("connect", 2),
        head: time("head", 10),
        handshake: time("handshake", 10),
        identity_age: time("identity_age", 3600),
        idle: time("idle", 60),
        body_idle: time("body_idle", 30),
        total: time("total", 60),
        drain: time("drain", 20),
        upstream_age: time("upstream_age", 600),
        pool_wait: time("pool_wait", 1),
    }
}

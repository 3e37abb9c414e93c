//! The environment: which variables are ours, which are unknown, and the document they name or are.

use std::collections::BTreeMap;

use crate::problem::{Place, Problem, did_you_mean};
use crate::table::{ENV_ONLY, ROWS, is_service_link};
use crate::yaml::{self, Data, Node};
use crate::{ReadFile, Vars};

/// The variable by which every SPIFFE workload finds its agent. Not ours, so what is wrong with it counts only where it is asked for.
pub(crate) const SPIFFE_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Our variables that are set to something, and those of [`ECOSYSTEM`].
pub(crate) type Settings = BTreeMap<String, String>;

/// How names begin that the ecosystem has given: all of Vault's clients know its own.
const ECOSYSTEM: [&str; 2] = ["VAULT_", SPIFFE_SOCKET];

/// Picks ours out; unset, empty, malformed and non-Unicode are four cases.
pub(crate) fn settings(vars: &Vars, problems: &mut Vec<Problem>) -> Settings {
    let mut ours = Settings::new();
    for (name, value) in vars {
        let Some(name) = name.to_str() else { continue };
        let own = name.starts_with("OILSKIN");
        if is_service_link(name) || !(own || ECOSYSTEM.iter().any(|known| name.starts_with(known))) {
            continue;
        }
        let known = || ENV_ONLY.iter().chain(ROWS).map(|row| row.env).filter(|name| !name.is_empty());
        if own && !known().any(|known| known == name) {
            problems.push(Problem::env(name, format!("unknown{}", did_you_mean(name, known()))));
            continue;
        }
        match value.to_str() {
            // They are the whole pod's: what is wrong with them is told where they are used.
            None | Some("") if !own => {}
            None => problems.push(Problem::env(name, "not Unicode")),
            Some("") => problems.push(Problem::env(name, "set but empty; unset it or give it a value")),
            Some(value) => {
                ours.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    ours
}

/// The document, with the environment's settings laid over it.
pub(crate) fn document(vars: &Settings, read: ReadFile<'_>, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut tree = match (vars.get("OILSKIN_CONFIG"), vars.get("OILSKIN_CONFIG_YAML")) {
        (Some(_), Some(_)) => {
            problems.push(Problem::env("OILSKIN_CONFIG_YAML", "set beside OILSKIN_CONFIG; give one of them"));
            return None;
        }
        (Some(path), None) => match read(path) {
            Ok(text) => yaml::parse(path, &text, problems)?,
            Err(error) => {
                problems.push(Problem::env("OILSKIN_CONFIG", format!("cannot be read: {error}")));
                return None;
            }
        },
        (None, Some(text)) => yaml::parse("OILSKIN_CONFIG_YAML", text, problems)?,
        (None, None) => Node::map(&Place::Nowhere),
    };
    if !matches!(tree.data, Data::Map(_)) {
        let message = match vars.contains_key("OILSKIN_CONFIG_YAML") {
            true => "not a document of settings (`listeners:`, `routes:` …); a path to one goes into OILSKIN_CONFIG",
            false => "not a document of settings (`listeners:`, `routes:` …)",
        };
        problems.push(Problem::new(&tree.place, "", message));
        return None;
    }
    for row in ROWS.iter().filter(|row| !row.env.is_empty()) {
        if let Some(value) = vars.get(row.env) {
            let place = Place::Env(row.env.to_owned());
            let node = match row.path {
                "keys.roots" => {
                    let roots = value.split_ascii_whitespace().map(|root| Node::scalar(&place, root));
                    Node::new(&place, Data::List(roots.collect()))
                }
                _ => Node::scalar(&place, value),
            };
            tree.set(row.path, node);
        }
    }
    Some(tree)
}

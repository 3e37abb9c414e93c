//! Routes that cannot stand beside each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Reader;
use crate::Route;
use crate::value::path::shape;
use crate::yaml::Node;

/// The listener as it is written, which may have mistakes of its own, and the host.
type Table<'a> = (&'a str, Option<&'a str>);

/// Patterns that one table cannot hold together. `nodes` are the routes' own.
pub(super) fn conflicts(r: &mut Reader<'_>, nodes: &[&Node], routes: &[Route]) {
    let mut tables: BTreeMap<Table<'_>, (matchit::Router<()>, BTreeMap<String, &str>)> = BTreeMap::new();
    let mut seen: BTreeSet<(Table<'_>, String, &str)> = BTreeSet::new();
    for (index, (node, route)) in nodes.iter().zip(routes).enumerate() {
        let (Some(table), Some(path)) = (table(node, route), route.path.as_deref()) else { continue };
        let place = node.get("match").and_then(|node| node.get("path")).map_or(&node.place, |node| &node.place);
        let at = format!("routes[{index}].match.path");
        let shape = shape(path);
        for method in methods(route) {
            let all = seen.contains(&(table, shape.clone(), ""));
            if all || !seen.insert((table, shape.clone(), method)) {
                let request = format!("{method} {path}");
                r.problem(place, &at, format!("another route takes {} before it", request.trim_start()));
            }
        }
        let (router, patterns) = tables.entry(table).or_default();
        match router.insert(shape.clone(), ()) {
            Ok(()) => {}
            Err(matchit::InsertError::Conflict { with }) if with == shape => {}
            Err(matchit::InsertError::Conflict { with }) => {
                let with = patterns.get(&with).copied().unwrap_or(&with);
                let message = format!("the pattern {path} cannot stand beside {with}: a request could mean either");
                r.problem(place, &at, message);
            }
            Err(error) => r.problem(place, &at, format!("the pattern {path}: {error}")),
        }
        patterns.entry(shape).or_insert(path);
    }
}

/// Where a route belongs; nowhere if what says so has mistakes of its own.
fn table<'a>(node: &'a Node, route: &'a Route) -> Option<Table<'a>> {
    let matching = node.get("match")?;
    let unread = |key: &str, empty: bool| matching.get(key).is_some() && empty;
    if unread("host", route.host.is_none()) || unread("methods", route.methods.is_empty()) {
        return None;
    }
    Some((matching.get("listener")?.as_text()?, route.host.as_deref()))
}

/// Its methods; `""` for all of them.
fn methods(route: &Route) -> Vec<&str> {
    match route.methods.as_slice() {
        [] => vec![""],
        some => some.iter().map(String::as_str).collect(),
    }
}

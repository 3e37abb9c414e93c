//! Secrets: in a variable, or, safer, in a file that another names.

use super::Reader;
use super::tls::path;
use crate::problem::Problem;
use crate::value::Read;
use crate::vault::{Secret, Secreted};
use crate::yaml::Node;

/// Where a secret may stand.
pub(super) struct Names {
    /// The part of the document, and its key there for the file.
    pub(super) at: &'static str,
    pub(super) key: &'static str,
    pub(super) variable: &'static str,
    /// The variable that names the file.
    pub(super) twin: &'static str,
}

/// A secret from its variable or its file; none where neither is given, and never both.
pub(super) fn read(
    r: &mut Reader<'_>,
    node: &Node,
    names: Names,
    fits: impl Fn(&str) -> Read<String>,
    warnings: &mut Vec<String>,
) -> Option<Secreted> {
    let Names { at, key, variable, twin } = names;
    let here = r.vars.get(variable);
    match (here, node.get(key)) {
        (Some(_), Some(_)) => {
            r.problems.push(Problem::env(variable, format!("set beside {twin}; give one of them")));
            None
        }
        (None, None) => None,
        (Some(text), None) => match fits(text) {
            Ok(text) => {
                warnings.push(format!("{variable}: whoever sees the environment has it; {twin} is safer"));
                Some(Secreted::Here(Secret::new(&text)))
            }
            Err(message) => {
                r.problems.push(Problem::env(variable, message));
                None
            }
        },
        (None, Some(_)) => r.setting(node, at, key, path).map(Secreted::File),
    }
}

//! Configuration of a test, as a process would read it.

use std::collections::BTreeMap;

use oilskin_config::Config;

/// Reads a configuration; all problems in one text where it is wrong.
///
/// # Errors
/// The problems, a line each.
pub fn parse(vars: &BTreeMap<String, String>) -> Result<Config, String> {
    let vars = vars.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| error.to_string());
    oilskin_config::parse(&vars, &read).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

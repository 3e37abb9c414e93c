//! `oilskin check`: everything a start would do short of binding and connecting.

use oilskin_config::Vars;
use serde_json::json;

use super::{Exit, Printer, read_file};
use crate::App;

pub(super) fn run(vars: &Vars, printer: &Printer) -> Exit {
    let config = match oilskin_config::parse(vars, &read_file) {
        Ok(config) => config,
        Err(problems) => return printer.problems(&problems),
    };
    let mut warnings = config.warnings.clone();
    match App::check(&config) {
        Ok(more) => warnings.extend(more),
        Err(error) => {
            printer.failed(&error);
            return Exit::of(&error);
        }
    }
    let rules = |route: &oilskin_config::Route| route.request.rules.len().max(route.response.rules.len());
    let (listeners, routes) = (config.listeners.len(), config.routes.len());
    let fields: usize = config.routes.iter().map(rules).sum();
    let mut text = format!("good: {listeners} listeners, {routes} routes, {fields} rules");
    for warning in &warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    let document = json!({"ok": true, "listeners": listeners, "routes": routes, "rules": fields, "warnings": warnings});
    printer.result(text, &document);
    Exit::Done
}

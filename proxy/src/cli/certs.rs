//! `oilskin certs`: asks the running process' admin port and prints what it holds.

use std::fmt::Write as _;

use oilskin_config::Vars;
use serde_json::Value;

use super::{Exit, Printer, admin, read_file};

pub(super) fn run(vars: &Vars, printer: &Printer) -> Exit {
    let found = match oilskin_config::parse_admin(vars, &read_file) {
        Ok(found) => found,
        Err(problems) => return printer.problems(&problems),
    };
    let Some(bind) = found else {
        return printer.failed("the admin port is off: set OILSKIN_ADMIN_LISTEN for the process and for this command");
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return printer.failed(error),
    };
    match runtime.block_on(admin::ask(&bind, "/certs")) {
        Ok(document) => {
            printer.result(text(&document), &document);
            Exit::Done
        }
        Err(error) => {
            let at = crate::app::shown(&bind);
            printer.failed(format_args!(
                "no answer from the admin port ({at}): {error}; is oilskin running with these settings?"
            ))
        }
    }
}

/// A paragraph for each source.
fn text(document: &Value) -> String {
    let mut text = String::new();
    let certificates = document.get("certificates").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for certificate in certificates {
        let of = |key: &str| certificate.get(key).and_then(Value::as_str).unwrap_or("-");
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&Printer::strong(of("source")));
        if let Some(days) = certificate.get("days_left").and_then(Value::as_i64) {
            let names = certificate.get("names").and_then(Value::as_array).into_iter().flatten();
            let names: Vec<&str> = names.filter_map(Value::as_str).collect();
            let _ = write!(text, "\n  names      {}\n  serial     {}", names.join(", "), of("serial"));
            let _ =
                write!(text, "\n  issuer     {}\n  ends       {} ({days} days left)", of("issuer"), of("not_after"));
        }
        let _ = write!(text, "\n  last swap  {}", of("last_swap"));
        if let Some(refusal) = certificate.get("last_refusal").filter(|refusal| !refusal.is_null()) {
            let of = |key: &str| refusal.get(key).and_then(Value::as_str).unwrap_or("-");
            let _ = write!(text, "\n  refused    {}: {} ({})", of("at"), of("text"), of("reason"));
        }
    }
    if text.is_empty() { "no certificate is in use".to_owned() } else { text }
}

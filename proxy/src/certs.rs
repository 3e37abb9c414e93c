//! What people are told of certificates: `/certs` on the admin port, and `oilskin certs`, which prints the same.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::tls::{Facts, Identities, Report, stamp};

/// Every source, its certificate, its last change and its last refusal.
pub(crate) fn document(identities: &Identities) -> Value {
    let certificates: Vec<Value> = identities.report().iter().map(one).collect();
    json!({"certificates": certificates})
}

fn one(report: &Report) -> Value {
    let mut shown = json!({
        "source": report.source,
        "last_swap": report.status.swapped.map(stamp),
        "last_refusal": report.status.refused.as_ref().map(|(at, refused)| {
            json!({"at": stamp(*at), "reason": refused.reason, "text": refused.text})
        }),
    });
    if let (Some(facts), Some(shown)) = (&report.facts, shown.as_object_mut()) {
        add(facts, shown);
    }
    shown
}

fn add(facts: &Facts, shown: &mut serde_json::Map<String, Value>) {
    let now = SystemTime::now();
    // Whole days, rounded down: negative once it has expired.
    let left = match facts.not_after.duration_since(now) {
        Ok(left) => i64::try_from(left.as_secs() / 86_400).unwrap_or(i64::MAX),
        Err(past) => -1 - i64::try_from(past.duration().as_secs() / 86_400).unwrap_or(i64::MAX - 1),
    };
    shown.insert("serial".to_owned(), facts.serial.as_str().into());
    shown.insert("issuer".to_owned(), facts.issuer.as_str().into());
    shown.insert("names".to_owned(), facts.names.as_slice().into());
    shown.insert("not_before".to_owned(), stamp(facts.not_before).into());
    shown.insert("not_after".to_owned(), stamp(facts.not_after).into());
    shown.insert("days_left".to_owned(), left.into());
}

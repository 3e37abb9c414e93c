//! What a probe found, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::found::{Fit, Found, Probed, TokenFound, Wrap};
use crate::cli::Printer;

pub(super) fn text(found: &Found) -> String {
    let (library, module) = (&found.library, found.module.display().to_string());
    let mut text = match library.is_empty() {
        true => format!("{}\n", Printer::strong(&module)),
        false => format!("{}\n  {module}\n", Printer::strong(library)),
    };
    if !library.is_empty() {
        heading(&mut text, "Tokens");
        tokens(&mut text, found);
    }
    if let Some(probed) = &found.tried {
        tried(&mut text, probed);
    }
    match (&found.ended, &found.tried) {
        (Some(ended), _) => {
            heading(&mut text, "Not fit for a root key");
            let _ = write!(text, "  {ended}");
        }
        (None, Some(probed)) => verdict(&mut text, &module, probed),
        (None, None) => {
            text.push_str("\nMore needs a login: --pin-file FILE, and --token LABEL where there are several.")
        }
    }
    text
}

fn tokens(text: &mut String, found: &Found) {
    for token in &found.tokens {
        let _ = write!(text, "  {}  {} · serial {} · slot {}", token.label, token.model, token.serial, token.slot);
        text.push_str(if token.chosen && found.tried.is_some() { "   <- tried\n" } else { "\n" });
        let lists = if token.lists.is_empty() { "no AES".into() } else { token.lists.join(", ") };
        let _ = writeln!(text, "      lists {lists}");
    }
    if found.tokens.is_empty() {
        text.push_str("  none that is initialised\n");
    }
}

fn heading(text: &mut String, name: &str) {
    let _ = writeln!(text, "\n{}", Printer::strong(name));
}

fn tried(text: &mut String, probed: &Probed) {
    if !probed.wraps.is_empty() {
        heading(text, &format!("{:<24}{:<12}{:<16}{}", "Wrapping", "round trip", "alterations", "bound data"));
    }
    for wrap in &probed.wraps {
        text.push_str(&row(wrap));
    }
    if let (Some(own), Some(zeroes)) = (&probed.own_iv, &probed.zero_iv) {
        heading(text, "IV of AES-GCM");
        let is_trap = zeroes == "taken as they are";
        let trap = if is_trap { ": never left to this token, one IV would serve for ever" } else { "" };
        let _ = writeln!(text, "  one of ours           {own}\n  zeroes                {zeroes}{trap}");
    }
    if !probed.latency.is_empty() {
        heading(text, &format!("{:<24}{:>10}{:>10}   of {} calls", "Time", "p50", "p99", probed.count));
    }
    for timed in &probed.latency {
        let fewer = if timed.calls < probed.count { format!("   of {}", timed.calls) } else { String::new() };
        let _ = writeln!(text, "  {:<22}{:>10}{:>10}{fewer}", timed.call, time(timed.middle), time(timed.late));
    }
    if let Some(threads) = &probed.threads {
        heading(text, "Behaviour");
        let threads = match threads {
            Ok(rate) => format!("every answer right, {rate:.0} round trips/s"),
            Err(why) => why.clone(),
        };
        let _ = writeln!(text, "  threads               4 sessions at once: {threads}");
    }
    if let Some(handles) = &probed.handles {
        let _ = writeln!(text, "  after a new login     {handles}");
    }
}

fn row(wrap: &Wrap) -> String {
    let note = wrap.note.as_ref().map(|note| format!("  {note}")).unwrap_or_default();
    match &wrap.worked {
        Ok(worked) => {
            let detects = if worked.detects { "detected" } else { "NOT DETECTED" };
            let binds = if worked.binds { "yes" } else { "none" };
            format!("  {:<22}{:<12}{detects:<16}{binds}{note}\n", wrap.name, "yes")
        }
        Err(why) => format!("  {:<22}no: {why}\n", wrap.name),
    }
}

fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..1_000.0 => format!("{micros:.1} µs"),
        _ => format!("{:.2} ms", micros / 1e3),
    }
}

fn verdict(text: &mut String, module: &str, probed: &Probed) {
    let fit = match (&probed.fit, &probed.threads) {
        (Some(fit), Some(Ok(_))) => fit,
        (_, threads) => {
            let threads = threads.as_ref().and_then(|threads| threads.as_ref().err());
            let threads = threads.map(|why| format!("several threads: {why}"));
            let why = threads.or_else(|| probed.not_fit.clone()).unwrap_or_default();
            heading(text, "Not fit for a root key");
            let _ = write!(text, "  {why}");
            return;
        }
    };
    heading(text, "Fit for a root key");
    let _ = writeln!(text, "  profile={}: {}", fit.profile, fit.how);
    if let Some(why) = &probed.not_gcm {
        let _ = writeln!(text, "  AES-GCM does not do: {why}");
    }
    let _ = writeln!(text, "\nMake the key, once:\n  {}", keygen(module, probed, fit));
    let _ = write!(text, "\nThen set:\n  OILSKIN_ROOT_KEY='{}'", fit.uri);
}

fn keygen(module: &str, probed: &Probed, fit: &Fit) -> String {
    format!(
        "pkcs11-tool --module {} --token-label '{}' --login \\\n    --keygen --key-type AES:32 --label '{}' --id 01 --sensitive {}",
        module, probed.label, probed.object, fit.usage
    )
}

pub(super) fn document(found: &Found) -> Value {
    let token = |token: &TokenFound| {
        json!({"label": token.label, "serial": token.serial, "model": token.model, "slot": token.slot,
               "tried": token.chosen && found.tried.is_some(), "lists": token.lists})
    };
    let tokens: Vec<Value> = found.tokens.iter().map(token).collect();
    let tried = found.tried.as_ref().map(|probed| {
        let wrap = |wrap: &Wrap| match &wrap.worked {
            Ok(worked) => json!({"mechanism": wrap.name, "round_trip": true, "detects_alterations": worked.detects,
                                 "binds_data": worked.binds, "note": wrap.note}),
            Err(why) => json!({"mechanism": wrap.name, "round_trip": false, "said": why}),
        };
        let wraps: Vec<Value> = probed.wraps.iter().map(wrap).collect();
        let micros = |time: &Duration| (time.as_secs_f64() * 1e7).round() / 10.0;
        let latency = probed.latency.iter().map(|timed| {
            json!({"call": timed.call, "calls": timed.calls, "p50_us": micros(&timed.middle), "p99_us": micros(&timed.late)})
        });
        let latency: Vec<Value> = latency.collect();
        let threads = probed.threads.as_ref().map(|threads| {
            json!({"right": threads.is_ok(), "round_trips_per_second": threads.as_ref().ok().map(|rate| rate.round()),
                   "why": threads.as_ref().err()})
        });
        let fit = probed.fit.as_ref();
        json!({"fit": found.is_good() && probed.is_fit(), "why_not": probed.not_fit, "why_not_gcm": probed.not_gcm,
               "iv": fit.and_then(|fit| fit.iv.as_ref()), "wraps": wraps, "own_iv": probed.own_iv, "zero_iv": probed.zero_iv,
               "threads": threads, "handles": probed.handles, "latency": latency, "calls": probed.count,
               "profile": fit.map(|fit| &fit.profile), "root_key": fit.map(|fit| &fit.uri)})
    });
    json!({"ok": found.is_good(), "module": found.module.display().to_string(), "library": found.library, "tokens": tokens,
           "token": tried, "ended": found.ended})
}

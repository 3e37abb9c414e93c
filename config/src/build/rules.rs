//! `fields:`: rules.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use super::{Reader, backend, join, one_of};
use crate::problem::Place;
use crate::value::{self, Read};
use crate::yaml::{Data, Node};
use crate::{Backend, BindPlace, BindValue, Frame, Mode, OnDecryptError, Rule, Selector};

pub(super) const ON_ERROR: &[(&str, OnDecryptError)] = &[
    ("fail", OnDecryptError::Fail),
    ("ciphertext", OnDecryptError::Ciphertext),
    ("null", OnDecryptError::Null),
    ("drop", OnDecryptError::Drop),
];

/// A rule with nothing said but its selector.
pub(super) fn plain(select: Selector, context: Option<String>, each: bool) -> Rule {
    let context = context.unwrap_or_else(|| select.default_context());
    Rule {
        name: select.as_str().to_owned(),
        select,
        each,
        keyset: "default".to_owned(),
        contexts: vec![context],
        mode: Mode::Random,
        bind: Vec::new(),
        pad: None,
        unlinkable: false,
        plaintext_accepted: false,
        accept_tokens: false,
        on_decrypt_error: OnDecryptError::Fail,
        encrypt: Backend::Local,
        decrypt: vec![Backend::Local],
        frame: Frame::Typed,
        key_version: None,
    }
}

/// `null` unquoted is YAML's nothing; here it is the word.
pub(super) fn on_error(r: &mut Reader<'_>, node: &Node, at: &str) -> Option<OnDecryptError> {
    let Data::Map(entries) = &node.data else { return None };
    let found = entries.iter().find(|entry| entry.key == "on_decrypt_error")?;
    match found.value.data {
        Data::Empty => Some(OnDecryptError::Null),
        _ => r.setting(node, at, "on_decrypt_error", |text| one_of(ON_ERROR, text)),
    }
}

/// Reads the rules of a route or phase; `params` are the parameters of the route's pattern, `before` the rules that stand
/// in the same phase already.
pub(super) fn rules(
    r: &mut Reader<'_>,
    node: &Node,
    at: &str,
    params: &[String],
    (on_decrypt_error, before): (OnDecryptError, &[Rule]),
) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (index, item) in r.list(node, at, "fields").into_iter().enumerate() {
        let at = format!("{}[{index}]", join(at, "fields"));
        if let Data::Scalar(text) = &item.data {
            match Selector::parse(text) {
                Ok(select) => rules.extend(checked(r, &item.place, &at, plain(select, None, false))),
                Err(error) => r.problem(&item.place, &at, error.to_string()),
            }
            continue;
        }
        r.known_keys(item, &at, "fields[]");
        rules.extend(rule(r, item, &at, params, on_decrypt_error));
    }
    for (index, rule) in rules.iter().enumerate() {
        // Of two that select the same and have no names one never wins, which is a warning.
        let named =
            |other: &Rule| other.name == rule.name && [other, rule].iter().any(|one| one.name != one.select.as_str());
        if before.iter().chain(rules.iter().take(index)).any(named) {
            let place = node.get("fields").map_or(&node.place, |node| &node.place);
            r.problem(place, &join(at, "fields"), format!("two rules of one phase are named {}", rule.name));
        }
    }
    rules
}

fn rule(
    r: &mut Reader<'_>,
    node: &Node,
    at: &str,
    params: &[String],
    on_decrypt_error: OnDecryptError,
) -> Option<Rule> {
    let later = crate::table::LATER.iter().any(|key| node.get(key).is_some());
    if later && node.get("select").is_none() {
        return None;
    }
    let select = r.required(node, at, "select", |text| Selector::parse(text).map_err(|error| error.to_string()));
    let contexts = contexts(r, node, at);
    let bind = binds(r, node, at, params, select.as_ref());
    let keyset = r.setting(node, at, "keyset", |text| value::keyset(text).map(|()| text.to_owned()));
    let mode = r.setting(node, at, "mode", |text| {
        one_of(&[("random", Mode::Random), ("deterministic", Mode::Deterministic)], text)
    });
    let pad = r.setting(node, at, "pad", |text| {
        let number = u32::try_from(value::count(text)?).ok().and_then(NonZeroU32::new);
        number.filter(|pad| pad.get() <= 65_536).ok_or_else(|| "must be 1 to 65536".to_owned())
    });
    let opaque = r.setting(node, at, "opaque", value::boolean).unwrap_or(false);
    let plaintext = r.setting(node, at, "plaintext", |text| one_of(&[("refuse", false), ("accept", true)], text));
    let on_error = on_error(r, node, at).unwrap_or(on_decrypt_error);
    let accept_tokens = r.setting(node, at, "accept_tokens", value::boolean);
    let name = r.setting(node, at, "name", |text| value::short(text).map(|()| text.to_owned()));
    let each = r.setting(node, at, "each", value::boolean).unwrap_or(false);
    let unlinkable = r.setting(node, at, "unlinkable", value::boolean).unwrap_or(false);
    let backends = backend::read(r, node, at);
    let base = plain(select?, None, each);
    let rule = Rule {
        name: name.unwrap_or(base.name),
        keyset: keyset.unwrap_or(base.keyset),
        contexts: contexts.unwrap_or(base.contexts),
        mode: mode.unwrap_or(base.mode),
        bind,
        pad: pad.or(if opaque { NonZeroU32::new(1) } else { None }),
        unlinkable,
        plaintext_accepted: plaintext.unwrap_or(false),
        accept_tokens: accept_tokens.unwrap_or(false) || on_error == OnDecryptError::Ciphertext,
        on_decrypt_error: on_error,
        each,
        select: base.select,
        encrypt: backends.encrypt,
        decrypt: backends.decrypt,
        frame: backends.frame,
        key_version: backends.key_version,
    };
    checked(r, &node.place, at, rule)
}

/// Rules across settings.
pub(super) fn checked(r: &mut Reader<'_>, place: &Place, at: &str, rule: Rule) -> Option<Rule> {
    let before = r.problems.len();
    for context in &rule.contexts {
        if !(1..=255).contains(&context.len()) {
            r.problem(place, at, "the context must be 1 to 255 bytes; this selector names nothing, so write context:");
        }
        if context.chars().any(char::is_control) {
            r.problem(place, at, "the context holds a control character");
        }
    }
    if !rule.bind.is_empty() && rule.mode == Mode::Deterministic {
        r.problem(place, at, "bind and mode: deterministic exclude each other");
    }
    if rule.unlinkable && rule.mode == Mode::Deterministic {
        r.problem(place, at, "unlinkable and mode: deterministic exclude each other: equal values have equal tokens");
    }
    if rule.accept_tokens && rule.bind.is_empty() {
        r.problem(
            place,
            at,
            "accept_tokens (and on_decrypt_error: ciphertext) needs bind, else a token of another record passes",
        );
    }
    backend::check(r, place, at, &rule);
    if rule.on_decrypt_error == OnDecryptError::Drop && rule.select.segments().is_empty() {
        r.problem(place, at, "on_decrypt_error: drop cannot leave out the whole document");
    }
    (r.problems.len() == before).then_some(rule)
}

fn contexts(r: &mut Reader<'_>, node: &Node, at: &str) -> Option<Vec<String>> {
    r.not_empty(node, at, "context");
    let items = r.list(node, at, "context");
    if items.is_empty() {
        return None;
    }
    let path = join(at, "context");
    if items.len() > 8 {
        r.problem(&node.place, &path, "at most 8 contexts");
    }
    let mut contexts = Vec::new();
    for item in items {
        contexts.extend(r.text(item, &path));
    }
    Some(contexts)
}

fn binds(r: &mut Reader<'_>, node: &Node, at: &str, params: &[String], select: Option<&Selector>) -> Vec<BindValue> {
    let path = join(at, "bind");
    let entries = match node.get("bind") {
        None => return Vec::new(),
        Some(Node { data: Data::Map(entries), .. }) => entries,
        Some(other) => {
            r.problem(&other.place, &path, "must be a map of names to places: {record: \"@.id\"}");
            return Vec::new();
        }
    };
    let mut binds = Vec::new();
    let mut names = BTreeSet::new();
    for entry in entries {
        let path = join(&path, &entry.key);
        if value::short(&entry.key).is_err() || !names.insert(entry.key.clone()) || entries.len() > 255 {
            r.problem(&entry.key_place, &path, "at most 255 names of 1 to 255 bytes, each once");
        }
        let items: Vec<&Node> = match &entry.value.data {
            Data::List(items) => items.iter().collect(),
            _ => vec![&entry.value],
        };
        if items.is_empty() {
            r.problem(&entry.value.place, &path, "names no place, so it binds to nothing");
        }
        let mut places = Vec::new();
        for item in items {
            let Some(text) = r.text(item, &path) else { continue };
            match place(&text, params).and_then(|place| within(place, select)) {
                Ok(place) => places.push(place),
                Err(message) => r.problem(&item.place, &path, message),
            }
        }
        binds.push(BindValue { name: entry.key.clone(), places });
    }
    binds.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    binds
}

/// `@.id`, `@^.id`, `$.a.id`, `path.id`.
fn place(text: &str, params: &[String]) -> Read<BindPlace> {
    if let Some(name) = text.strip_prefix("path.") {
        return match params.iter().any(|param| param == name) {
            true => Ok(BindPlace::Path(name.to_owned())),
            false => Err(format!("the route's pattern has no parameter {{{name}}}")),
        };
    }
    let names = |rest: &str| -> Read<Vec<String>> {
        let rule = || "a place is @.name, @^.name, $.name or path.name".to_owned();
        let rest = rest.strip_prefix('.').ok_or_else(rule)?;
        let names: Vec<String> = rest.split('.').map(str::to_owned).collect();
        let fits = names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']', '*', '\'', '"']));
        if fits { Ok(names) } else { Err(rule()) }
    };
    if let Some(rest) = text.strip_prefix('@') {
        let up = rest.bytes().take_while(|byte| *byte == b'^').count();
        return Ok(BindPlace::Relative { up, names: names(rest.trim_start_matches('^'))? });
    }
    match text.strip_prefix('$') {
        Some(rest) => Ok(BindPlace::Document(names(rest)?)),
        None => Err("a place is @.name, @^.name, $.name or path.name".to_owned()),
    }
}

/// The place, unless it stands above the document: what is never there proves nothing.
fn within(place: BindPlace, select: Option<&Selector>) -> Read<BindPlace> {
    match (&place, select.and_then(Selector::most_objects)) {
        (BindPlace::Relative { up, .. }, Some(objects)) if *up >= objects => Err(format!(
            "@{} leads above the document (objects around what this selector selects: {objects} at most)",
            "^".repeat(*up)
        )),
        _ => Ok(place),
    }
}

//! `backend:`, `encrypt:`, `decrypt:`: what holds a rule's key.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::{Reader, join, one_of};
use crate::problem::{Place, Problem};
use crate::value::{self, Read};
use crate::yaml::Node;
use crate::{Backend, Frame, Mode, Rule, VaultKey, home};

/// What a rule says of it.
pub(super) struct Backends {
    pub(super) encrypt: Backend,
    pub(super) decrypt: Vec<Backend>,
    pub(super) frame: Frame,
    pub(super) key_version: Option<NonZeroU32>,
}

/// `local`, `vault:MOUNT/keys/NAME`.
pub(super) fn parse(text: &str) -> Read<Backend> {
    match text.split_once(':') {
        Some(("vault", key)) => home::vault_key(key).map(Backend::Vault),
        _ if text == "local" => Ok(Backend::Local),
        _ => Err("must be local or vault:MOUNT/keys/NAME".to_owned()),
    }
}

pub(super) fn read(r: &mut Reader<'_>, node: &Node, at: &str) -> Backends {
    let backend = r.setting(node, at, "backend", parse);
    let encrypt = r.setting(node, at, "encrypt", parse);
    r.not_empty(node, at, "decrypt");
    let path = join(at, "decrypt");
    let mut decrypt = Vec::new();
    for item in r.list(node, at, "decrypt") {
        let Some(text) = r.text(item, &path) else { continue };
        match parse(&text) {
            Ok(backend) if decrypt.contains(&backend) => r.problem(&item.place, &path, "it stands here already"),
            Ok(backend) => decrypt.push(backend),
            Err(message) => r.problem(&item.place, &path, message),
        }
    }
    if node.get("backend").is_some() && (node.get("encrypt").is_some() || node.get("decrypt").is_some()) {
        r.problem(&node.place, at, "backend stands for encrypt and decrypt: write either it or them");
    }
    if node.get("encrypt").is_some() != node.get("decrypt").is_some() {
        r.problem(&node.place, at, "encrypt and decrypt belong together");
    }
    let frame = r.setting(node, at, "frame", |text| one_of(&[("typed", Frame::Typed), ("bare", Frame::Bare)], text));
    let key_version = r.setting(node, at, "key_version", |text| {
        let version = u32::try_from(value::count(text)?).ok().and_then(NonZeroU32::new);
        version.ok_or_else(|| "must be 1 or more".to_owned())
    });
    let both = backend.unwrap_or(Backend::Local);
    let backends = Backends {
        encrypt: encrypt.unwrap_or_else(|| both.clone()),
        decrypt: if decrypt.is_empty() { vec![both] } else { decrypt },
        frame: frame.unwrap_or(Frame::Typed),
        key_version,
    };
    let names = |key: &str| node.get(key).is_some();
    if backends.all().all(|backend| *backend == Backend::Local) {
        for key in ["frame", "key_version"].into_iter().filter(|key| names(key)) {
            r.problem(&node.place, at, format!("{key} is for keys of Vault's"));
        }
    } else if names("keyset") && !backends.all().any(|backend| *backend == Backend::Local) {
        r.problem(&node.place, at, "keyset is for local keys; Vault's is named by backend");
    }
    backends
}

impl Backends {
    fn all(&self) -> impl Iterator<Item = &Backend> {
        std::iter::once(&self.encrypt).chain(&self.decrypt)
    }
}

/// A rule's backends beside its other settings.
pub(super) fn check(r: &mut Reader<'_>, place: &Place, at: &str, rule: &Rule) {
    if !rule.decrypt.contains(&rule.encrypt) {
        r.problem(place, at, "decrypt must name what encrypt names: nobody could read what is written");
    }
    let Some(key) = rule.vault_key() else { return };
    let another = |backend: &&Backend| matches!(backend, Backend::Vault(other) if other != key);
    if rule.decrypt.iter().any(|backend| another(&backend)) {
        r.problem(place, at, "two keys of Vault's in one rule: a ciphertext does not say which it is of");
    }
    if rule.frame == Frame::Bare && rule.pad.is_some() {
        r.problem(place, at, "frame: bare has no room for a type or padding");
    }
}

/// All rules beside one another: a key of Vault's is convergent or it is not, and only one of both fits a rule.
pub(super) fn together<'a>(r: &mut Reader<'_>, rules: impl Iterator<Item = &'a Rule>) {
    let mut modes: BTreeMap<&VaultKey, BTreeSet<bool>> = BTreeMap::new();
    for (key, rule) in rules.filter_map(|rule| Some((rule.vault_key()?, rule))) {
        modes.entry(key).or_default().insert(rule.mode == Mode::Deterministic);
    }
    for (key, _) in modes.into_iter().filter(|(_, modes)| modes.len() > 1) {
        let why = format!(
            "{key} stands in rules with mode: deterministic, which need a convergent key, and in others, which need one that is not: \
             name two keys"
        );
        r.problem(&Place::Nowhere, "fields", why);
    }
}

/// Whether something is wrong with what a rule says of its backend, so that it may be another than it seems.
pub(super) fn is_unclear(problem: &Problem) -> bool {
    let by_variable = matches!(&problem.place, Place::Env(name) if name == "OILSKIN_BACKEND");
    by_variable || ["backend", "encrypt", "decrypt"].iter().any(|key| problem.path.ends_with(key))
}

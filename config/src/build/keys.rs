//! `keys:`.

use std::time::Duration;

use super::{Reader, join, one_of, secret};
use crate::value;
use crate::yaml::{Data, Node};
use crate::{Hold, Keys, Root, Store};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Most root keys: every choice of k of them may have to be tried.
const MAX_ROOTS: usize = 8;

pub(super) fn keys(r: &mut Reader<'_>, tree: &Node, warnings: &mut Vec<String>) -> Option<Keys> {
    let node = tree.get("keys")?;
    r.known_keys(node, "keys", "keys");
    let items = r.list(node, "keys", "roots");
    if node.get("roots").is_none_or(|node| matches!(&node.data, Data::List(items) if items.is_empty())) {
        r.problem(&node.place, "keys", "roots is missing: set OILSKIN_ROOT_KEY");
    }
    let mut roots = Vec::new();
    for root in &items {
        let Some(text) = r.text(root, "keys.roots") else { continue };
        match Root::parse(&text) {
            Ok(root) => roots.push(root),
            Err(message) => r.problem(&root.place, &join("keys", "roots"), message),
        }
    }
    let names = secret::Names {
        at: "keys",
        key: "passphrase_file",
        variable: "OILSKIN_ROOT_PASSPHRASE",
        twin: "OILSKIN_ROOT_PASSPHRASE_FILE",
    };
    let passphrase = secret::read(r, node, names, |text| Ok(text.to_owned()), warnings);
    if passphrase.is_some() && !roots.iter().any(|root| matches!(root, Root::File(_))) {
        r.problem(&node.place, "keys", "a passphrase is given, and no root key is a file");
    }
    if items.len() > MAX_ROOTS {
        r.problem(&node.place, "keys.roots", "more than 8 root keys");
    }
    let hold = r.setting(node, "keys", "hold", value::hold).unwrap_or(Hold::Any);
    if matches!(hold, Hold::Quorum(k) if k.get() > items.len()) {
        r.problem(&node.place, "keys.hold", "asks for more roots than there are");
    }
    if node.get("store").is_none() {
        r.problem(&node.place, "keys", "store is missing: set OILSKIN_KEY_STORE");
    }
    // All are read before one that is wrong ends it: each mistake is named.
    let store = r.setting(node, "keys", "store", Store::parse);
    let signer = r.setting(node, "keys", "signer", value::signer);
    let min_epoch = r.setting(node, "keys", "min_epoch", value::count).unwrap_or(0);
    let mut between = |key: &str, from: Duration, to: Duration, default: Duration| {
        let bounded = |text: &str| {
            let read = value::duration(text)?;
            let fits = (from..=to).contains(&read);
            fits.then_some(read).ok_or_else(|| format!("must be {} s to {} s", from.as_secs(), to.as_secs()))
        };
        r.setting(node, "keys", key, bounded).unwrap_or(default)
    };
    let refresh = between("refresh", SECOND, 60 * MINUTE, MINUTE);
    let root_check = between("root_check", SECOND, DAY, 5 * MINUTE).max(refresh);
    let stale_encrypt = between("stale_encrypt", SECOND, 30 * DAY, 60 * MINUTE);
    let stale_decrypt = between("stale_decrypt", SECOND, 30 * DAY, 240 * MINUTE);
    let rotate_after = between("rotate_after", DAY, 3_650 * DAY, 90 * DAY);
    let idle = between("idle", SECOND, 30 * DAY, 60 * MINUTE);
    if stale_encrypt <= root_check || stale_decrypt <= root_check {
        let message = "stale_encrypt and stale_decrypt must be longer than root_check, or keys end while all is well";
        let said =
            ["stale_encrypt", "stale_decrypt", "root_check", "refresh"].into_iter().find_map(|key| node.get(key));
        r.problem(said.map_or(&node.place, |said| &said.place), "keys.stale_encrypt", message);
    }
    let rotator = r.setting(node, "keys", "rotator", |text| one_of(&[("command", false), ("sidecars", true)], text));
    if rotator == Some(true) && signer.is_some() {
        r.problem(
            &node.place,
            "keys.rotator",
            "sidecars hold no signer's key: documents that are signed are rotated by the command",
        );
    }
    let max_uses = r.setting(node, "keys", "max_uses", |text| value::count_between(text, 1, 1 << 48));
    let max_held = r.setting(node, "keys", "max_held", |text| value::count_between(text, 1, 100_000));
    Some(Keys {
        roots,
        passphrase,
        hold,
        store: store?,
        signer,
        min_epoch,
        refresh,
        root_check,
        stale_encrypt,
        stale_decrypt,
        rotate_after,
        sidecars_rotate: rotator.unwrap_or(false),
        max_uses: max_uses.unwrap_or(1 << 40),
        max_held: max_held.and_then(|count| usize::try_from(count).ok()).unwrap_or(300),
        idle,
        development: false,
    })
}

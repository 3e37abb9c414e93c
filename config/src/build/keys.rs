//! `keys:`.

use super::{Reader, join};
use crate::value;
use crate::yaml::Node;
use crate::{Hold, Keys};

pub(super) fn keys(r: &mut Reader<'_>, tree: &Node) -> Option<Keys> {
    let node = tree.get("keys")?;
    r.known_keys(node, "keys", "keys");
    let mut roots = Vec::new();
    for root in r.list(node, "keys", "roots") {
        let Some(text) = r.text(root, "keys.roots") else { continue };
        match value::root(&text) {
            Ok(root) => roots.push(root),
            Err(message) => r.problem(&root.place, &join("keys", "roots"), message),
        }
    }
    if node.get("roots").is_none() {
        r.problem(&node.place, "keys", "roots is missing: set OILSKIN_ROOT_KEY");
    }
    let hold = r.setting(node, "keys", "hold", value::hold).unwrap_or(Hold::Any);
    if matches!(hold, Hold::Quorum(k) if k.get() > roots.len()) {
        r.problem(&node.place, "keys.hold", "asks for more roots than there are");
    }
    if node.get("store").is_none() {
        r.problem(&node.place, "keys", "store is missing: set OILSKIN_KEY_STORE");
    }
    let store = r.setting(node, "keys", "store", value::store)?;
    Some(Keys {
        roots,
        hold,
        store,
        signer: r.setting(node, "keys", "signer", value::signer),
        min_epoch: r.setting(node, "keys", "min_epoch", value::count).unwrap_or(0),
        development: false,
    })
}

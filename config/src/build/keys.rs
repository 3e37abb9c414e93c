//! `keys:`.

use super::{Reader, join};
use crate::value;
use crate::yaml::{Data, Node};
use crate::{Hold, Keys};

pub(super) fn keys(r: &mut Reader<'_>, tree: &Node) -> Option<Keys> {
    let node = tree.get("keys")?;
    r.known_keys(node, "keys", "keys");
    let items = r.list(node, "keys", "roots");
    if node.get("roots").is_none_or(|node| matches!(&node.data, Data::List(items) if items.is_empty())) {
        r.problem(&node.place, "keys", "roots is missing: set OILSKIN_ROOT_KEY");
    }
    let mut roots = Vec::new();
    for root in &items {
        let Some(text) = r.text(root, "keys.roots") else { continue };
        match value::root(&text) {
            Ok(root) => roots.push(root),
            Err(message) => r.problem(&root.place, &join("keys", "roots"), message),
        }
    }
    let hold = r.setting(node, "keys", "hold", value::hold).unwrap_or(Hold::Any);
    if matches!(hold, Hold::Quorum(k) if k.get() > items.len()) {
        r.problem(&node.place, "keys.hold", "asks for more roots than there are");
    }
    if node.get("store").is_none() {
        r.problem(&node.place, "keys", "store is missing: set OILSKIN_KEY_STORE");
    }
    // All are read before one that is wrong ends it: each mistake is named.
    let store = r.setting(node, "keys", "store", value::store);
    let signer = r.setting(node, "keys", "signer", value::signer);
    let min_epoch = r.setting(node, "keys", "min_epoch", value::count).unwrap_or(0);
    Some(Keys { roots, hold, store: store?, signer, min_epoch, development: false })
}

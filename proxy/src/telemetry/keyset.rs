//! Keysets that are held.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Metrics of all keysets.
#[derive(Debug, Default, Clone)]
pub(super) struct Keysets {
    epochs: Family<KeysetLabel, Gauge<u64, AtomicU64>>,
    refreshes: Family<RefreshLabels, Counter>,
    left: Family<LeftLabels, Gauge>,
    overdue: Family<KeysetLabel, Gauge>,
    roots: Family<RootLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeysetLabel {
    keyset: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeftLabels {
    keyset: String,
    op: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RootLabels {
    keyset: String,
    root: String,
}

impl Keysets {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("keyset_epoch", "Epoch of the keyset document in use", self.epochs.clone());
        registry.register("keyset_refreshes", "Refreshes of keysets, by result", self.refreshes.clone());
        registry.register_with_unit(
            "keyset_left",
            "How long its keys may still be used if store and roots do not answer again",
            Unit::Seconds,
            self.left.clone(),
        );
        registry.register(
            "keyset_rotation_overdue",
            "1 where a version is older than rotate_after, or has been used for most of max_uses",
            self.overdue.clone(),
        );
        registry.register(
            "keyset_root_opens",
            "1 where this root key unwrapped its share of the keyset when it was last asked; 0 is redundancy lost",
            self.roots.clone(),
        );
    }

    pub(super) fn refreshed(&self, result: &'static str) {
        self.refreshes.get_or_create(&RefreshLabels { result }).inc();
    }

    pub(super) fn of(&self, keyset: &str) -> KeysetMetrics {
        KeysetMetrics { keyset: keyset.to_owned(), roots: BTreeSet::new(), all: self.clone() }
    }
}

/// The metrics of one keyset. They go with it: tenants come and go, and their names are not bounded.
#[derive(Debug)]
pub(crate) struct KeysetMetrics {
    keyset: String,
    /// Those that were told of.
    roots: BTreeSet<String>,
    all: Keysets,
}

impl KeysetMetrics {
    /// A document was loaded.
    pub(crate) fn epoch(&self, epoch: u64) {
        self.all.epochs.get_or_create_owned(&KeysetLabel { keyset: self.keyset.clone() }).set(epoch);
    }

    /// Whether a rotation is overdue.
    pub(crate) fn overdue(&self, overdue: bool) {
        self.all.overdue.get_or_create_owned(&KeysetLabel { keyset: self.keyset.clone() }).set(overdue.into());
    }

    /// Whether a root, by its URI, unwrapped its share.
    pub(crate) fn root(&mut self, root: &str, opens: bool) {
        self.roots.insert(root.to_owned());
        let labels = RootLabels { keyset: self.keyset.clone(), root: root.to_owned() };
        self.all.roots.get_or_create_owned(&labels).set(opens.into());
    }

    /// What is left of the time to encrypt, and of the time to decrypt.
    pub(crate) fn left(&self, encrypt: Duration, decrypt: Duration) {
        for (op, left) in [("encrypt", encrypt), ("decrypt", decrypt)] {
            let labels = LeftLabels { keyset: self.keyset.clone(), op };
            self.all.left.get_or_create_owned(&labels).set(i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
        }
    }
}

impl Drop for KeysetMetrics {
    fn drop(&mut self) {
        for root in std::mem::take(&mut self.roots) {
            self.all.roots.remove(&RootLabels { keyset: self.keyset.clone(), root });
        }
        self.all.overdue.remove(&KeysetLabel { keyset: self.keyset.clone() });
        self.all.epochs.remove(&KeysetLabel { keyset: self.keyset.clone() });
        for op in ["encrypt", "decrypt"] {
            self.all.left.remove(&LeftLabels { keyset: self.keyset.clone(), op });
        }
    }
}

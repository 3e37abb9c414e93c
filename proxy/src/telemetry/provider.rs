//! Calls to what keeps keys, certificates and tokens for us.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Calls of all providers.
#[derive(Debug, Default)]
pub(super) struct Providers {
    calls: Family<CallLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    provider: &'static str,
    op: &'static str,
    result: &'static str,
}

impl Providers {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("provider_requests", "Calls to Vault and other providers, by result", self.calls.clone());
    }

    pub(super) fn of(&self, provider: &'static str) -> ProviderCalls {
        ProviderCalls { provider, calls: self.calls.clone() }
    }
}

/// The calls of one provider.
#[derive(Debug, Clone)]
pub(crate) struct ProviderCalls {
    provider: &'static str,
    calls: Family<CallLabels, Counter>,
}

impl ProviderCalls {
    /// A call has ended: `ok`, or why it came to nothing.
    pub(crate) fn ended(&self, op: &'static str, result: &'static str) {
        self.calls.get_or_create(&CallLabels { provider: self.provider, op, result }).inc();
    }
}

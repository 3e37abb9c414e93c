//! The registry: one struct owns every metric, nothing is global. Names are a contract (`docs/`).

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Histogram;
use super::keyset::{KeysetMetrics, Keysets};
use super::provider::{ProviderCalls, Providers};
use super::tls::{CertificateGauge, Handshake, Tls};

/// All metrics of a process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) seconds: Histogram,
    pub(super) fields: Family<FieldLabels, Counter>,
    pub(super) not_inspected: Family<RouteLabel, Counter>,
    gate_refusals: Family<GateLabels, Counter>,
    app_connections: Gauge,
    upstream_connections: Gauge,
    reload_failed: Gauge,
    generation: Gauge<u64, AtomicU64>,
    keysets: Keysets,
    tls: Tls,
    providers: Providers,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) listener: String,
    pub(super) route: String,
    pub(super) code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FieldLabels {
    pub(super) rule: String,
    pub(super) op: &'static str,
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RouteLabel {
    pub(super) route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabels {
    side: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SideLabel {
    side: &'static str,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// Whoever connects to a listener.
    App,
    /// Whom we connect to.
    Upstream,
}

impl Peer {
    /// Its label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Upstream => "upstream",
        }
    }
}

impl Metrics {
    /// Everything registered, at zero.
    pub(crate) fn new() -> Self {
        let connections = Family::<SideLabel, Gauge>::default();
        let gauge = |side: Peer| connections.get_or_create_owned(&SideLabel { side: side.as_str() });
        let mut metrics = Self {
            registry: Registry::with_prefix("oilskin"),
            requests: Family::default(),
            seconds: Histogram::default(),
            fields: Family::default(),
            not_inspected: Family::default(),
            gate_refusals: Family::default(),
            app_connections: gauge(Peer::App),
            upstream_connections: gauge(Peer::Upstream),
            reload_failed: Gauge::default(),
            generation: Gauge::default(),
            keysets: Keysets::default(),
            tls: Tls::default(),
            providers: Providers::default(),
        };
        metrics.registry.register("connections", "Open connections", connections);
        metrics.register_traffic();
        metrics.register_state();
        metrics
    }

    fn register_traffic(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Requests ended, by answer", self.requests.clone());
        registry.register_with_unit(
            "request",
            "From a request's head to the end of its answer",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("fields", "Fields met, by what became of them", self.fields.clone());
        registry.register(
            "bodies_not_inspected",
            "Bodies passed because no rule reads their type",
            self.not_inspected.clone(),
        );
        registry.register("gate_refusals", "Connections refused for their bytes", self.gate_refusals.clone());
    }

    fn register_state(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "config_reload_failed",
            "1 while the last reload was refused and an older state serves",
            self.reload_failed.clone(),
        );
        registry.register("config_generation", "Configurations taken since the start", self.generation.clone());
        self.keysets.register(registry);
        self.tls.register(registry);
        self.providers.register(registry);
        registry.register("build", "What runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    }

    /// A connection that counts as open until the guard is dropped.
    pub(crate) fn connection(&self, peer: Peer) -> ConnectionGuard {
        let gauge = match peer {
            Peer::App => self.app_connections.clone(),
            Peer::Upstream => self.upstream_connections.clone(),
        };
        gauge.inc();
        ConnectionGuard(gauge)
    }

    /// Counts a refusal by the gate.
    pub(crate) fn gate_refused(&self, peer: Peer, reason: &'static str) {
        self.gate_refusals.get_or_create(&GateLabels { side: peer.as_str(), reason }).inc();
    }

    /// A configuration serves.
    pub(crate) fn config_taken(&self, generation: u64) {
        self.generation.set(generation);
        self.reload_failed.set(0);
    }

    /// A reload was refused.
    #[cfg(test)]
    pub(crate) fn config_refused(&self) {
        self.reload_failed.set(1);
    }

    /// The metrics of one keyset, for as long as they are kept.
    pub(crate) fn keyset(&self, keyset: &str) -> KeysetMetrics {
        self.keysets.of(keyset)
    }

    /// A refresh of a keyset has ended: `ok`, or why it came to nothing.
    pub(crate) fn keyset_refreshed(&self, result: &'static str) {
        self.keysets.refreshed(result);
    }

    /// The metrics of one certificate source.
    pub(crate) fn certificate(&self, source: &str) -> CertificateGauge {
        self.tls.certificate(source)
    }

    /// The calls to one provider.
    pub(crate) fn provider(&self, provider: &'static str) -> ProviderCalls {
        self.providers.of(provider)
    }

    /// A TLS handshake has ended.
    pub(crate) fn handshake(&self, peer: Peer, done: &Handshake) {
        self.tls.handshake(peer, done);
    }

    /// Media type of [`Metrics::text`].
    pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The exposition.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing into a string cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps `oilskin_connections` up by one.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_until_its_guard_is_gone() {
        let metrics = Metrics::new();
        let guard = metrics.connection(Peer::App);
        assert!(metrics.text().contains("oilskin_connections{side=\"app\"} 1\n"));
        drop(guard);
        assert!(metrics.text().contains("oilskin_connections{side=\"app\"} 0\n"));
        assert!(metrics.text().contains("oilskin_connections{side=\"upstream\"} 0\n"));
    }

    #[test]
    fn a_refused_reload_shows_until_one_is_taken() {
        let metrics = Metrics::new();
        metrics.config_refused();
        assert!(metrics.text().contains("oilskin_config_reload_failed 1\n"));
        metrics.config_taken(2);
        assert!(metrics.text().contains("oilskin_config_reload_failed 0\n"));
        assert!(metrics.text().contains("oilskin_config_generation 2\n"));
    }

    #[test]
    fn labelled_metrics_have_the_promised_names() {
        let metrics = Metrics::new();
        metrics.gate_refused(Peer::Upstream, "chunk_size");
        let keyset = metrics.keyset("default");
        let (encrypt, decrypt) = (std::time::Duration::from_secs(3_600), std::time::Duration::from_secs(14_400));
        keyset.epoch(7);
        keyset.left(encrypt, decrypt);
        let text = metrics.text();
        for line in [
            "oilskin_gate_refusals_total{side=\"upstream\",reason=\"chunk_size\"} 1",
            "oilskin_keyset_epoch{keyset=\"default\"} 7",
            "oilskin_keyset_left_seconds{keyset=\"default\",op=\"encrypt\"} 3600",
            "oilskin_request_seconds_count 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.contains("oilskin_build_info{version="));
    }
}

//! Certificates and handshakes.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Peer;

/// Metrics of TLS.
#[derive(Debug, Default)]
pub(super) struct Tls {
    expires: Family<SourceLabel, Gauge>,
    refreshes: Family<RefreshLabels, Counter>,
    handshakes: Family<HandshakeLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    source: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    side: &'static str,
    version: &'static str,
    group: String,
    outcome: &'static str,
}

impl Tls {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "cert_expiration_timestamp",
            "End of life of the certificate held",
            Unit::Seconds,
            self.expires.clone(),
        );
        registry.register("cert_refreshes", "Readings of a certificate source, by result", self.refreshes.clone());
        registry.register("tls_handshakes", "TLS handshakes ended", self.handshakes.clone());
    }

    pub(super) fn certificate(&self, source: &str) -> CertificateGauge {
        CertificateGauge { source: source.to_owned(), expires: self.expires.clone(), refreshes: self.refreshes.clone() }
    }

    pub(super) fn handshake(&self, side: Peer, done: &Handshake) {
        let labels = HandshakeLabels {
            side: side.as_str(),
            version: done.version,
            group: done.group.clone(),
            outcome: done.outcome,
        };
        self.handshakes.get_or_create(&labels).inc();
    }
}

/// How a handshake ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handshake {
    /// `1.3`, `1.2`, or empty where it was not settled.
    pub(crate) version: &'static str,
    /// The key exchange's name, or empty.
    pub(crate) group: String,
    /// `full`, `resumed`, or the reason of a failure.
    pub(crate) outcome: &'static str,
}

/// The metrics of one certificate source.
#[derive(Debug)]
pub(crate) struct CertificateGauge {
    source: String,
    expires: Family<SourceLabel, Gauge>,
    refreshes: Family<RefreshLabels, Counter>,
}

impl CertificateGauge {
    /// A certificate that ends then is held.
    pub(crate) fn expires(&self, at: Option<SystemTime>) {
        let Some(at) = at else { return };
        let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let gauge = self.expires.get_or_create_owned(&SourceLabel { source: self.source.clone() });
        gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// The source was read: `ok`, or why that came to nothing.
    pub(crate) fn refreshed(&self, result: &'static str) {
        self.refreshes.get_or_create(&RefreshLabels { source: self.source.clone(), result }).inc();
    }
}

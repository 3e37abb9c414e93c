//! What is seen from outside: metrics, logs and request ids. No label or line ever holds a value of a message.

mod histogram;
mod id;
mod keyset;
mod logs;
mod metrics;
mod provider;
mod route;
mod tls;

pub(crate) use histogram::Histogram;
pub(crate) use id::{RequestId, RequestIds, X_REQUEST_ID};
pub(crate) use keyset::KeysetMetrics;
pub(crate) use logs::{RequestLine, install, install_for_a_command};
pub(crate) use metrics::{ConnectionGuard, Metrics, Peer};
pub(crate) use provider::ProviderCalls;
pub(crate) use route::{End, FieldResult, RouteMetrics, RuleMetrics};
pub(crate) use tls::{CertificateGauge, Handshake};

//! What is seen from outside: metrics, logs and request ids. No label or line ever holds a value of a message.

mod histogram;
mod id;
mod logs;
mod metrics;
mod outcome;
mod route;

pub use histogram::Histogram;
pub use id::{RequestId, RequestIds};
pub use logs::{LogError, RequestLine, install, subscriber};
pub use metrics::{ConnectionGuard, Metrics, Peer};
pub use outcome::{End, Outcome};
pub use route::{FieldResult, RouteMetrics, RuleMetrics};

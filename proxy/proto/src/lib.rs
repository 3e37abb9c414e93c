//! Messages and stubs of the gRPC services that Oilskin speaks. Made from `protos/` by `cargo run -p oilskin-proto --example protos`.

#[allow(
    missing_docs,
    unreachable_pub,
    unnameable_types,
    clippy::all,
    clippy::mod_module_files,
    reason = "generated from protos/, where the words are"
)]
mod generated {
    include!("generated/mod.rs");
}

/// SPIFFE's Workload API, for tests' servers.
#[cfg(feature = "server")]
#[allow(
    missing_docs,
    unreachable_pub,
    unnameable_types,
    clippy::all,
    reason = "generated from protos/, where the words are"
)]
pub mod spiffe {
    include!("generated/spiffe.rs");
}

use std::fmt;

pub use generated::{envoy, google};

use envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy::service::discovery::v3::DiscoveryResponse;

// What may hold a private key shows nothing of it.

impl fmt::Debug for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSource").finish_non_exhaustive()
    }
}

impl fmt::Debug for Specifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filename(_) => "Filename",
            Self::InlineBytes(_) => "InlineBytes",
            Self::InlineString(_) => "InlineString",
            Self::EnvironmentVariable(_) => "EnvironmentVariable",
        })
    }
}

impl fmt::Debug for DiscoveryResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveryResponse").field("version_info", &self.version_info).finish_non_exhaustive()
    }
}

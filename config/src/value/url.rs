//! Upstream URLs.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::{Read, unix_path};
use crate::{Scheme, Target};

/// The parts of an upstream's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    pub(crate) target: Target,
    pub(crate) authority: String,
    pub(crate) prefix: String,
}

/// Reads `http://`, `h2c://`, `https://` with a path as prefix, or `unix:/path` (HTTP/1.1 over that socket).
pub(crate) fn parse(text: &str) -> Read<Url> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(unix);
    }
    let (scheme, rest) = text.split_once("://").ok_or("not a URL (https://name:port/prefix, unix:/path)")?;
    let (scheme, default) = match scheme {
        "http" => (Scheme::Http, 80),
        "h2c" => (Scheme::H2c, 80),
        "https" => (Scheme::Https, 443),
        _ => return Err("the scheme must be http, h2c or https".to_owned()),
    };
    if rest.contains(['?', '#']) {
        return Err("a URL here has no query and no fragment".to_owned());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("a URL here has no user and no password".to_owned());
    }
    let (host, shown, port) = host_port(authority, default)?;
    let authority = if port == default { shown } else { format!("{shown}:{port}") };
    Ok(Url { scheme, target: Target::Tcp { host, port }, authority, prefix: prefix(path)? })
}

fn unix(path: PathBuf) -> Url {
    Url { scheme: Scheme::Http, target: Target::Unix(path), authority: "localhost".to_owned(), prefix: String::new() }
}

/// The host bare, the host as an authority shows it, the port.
fn host_port(authority: &str, default: u16) -> Read<(String, String, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("an IPv6 address ends with ]")?;
        let address: Ipv6Addr = host.parse().map_err(|_| "not an IPv6 address".to_owned())?;
        return Ok((address.to_string(), format!("[{address}]"), self::port(port, default)?));
    }
    let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(fits) {
        return Err("not a host name (an IPv6 address stands in brackets)".to_owned());
    }
    let host = host.to_ascii_lowercase();
    Ok((host.clone(), host, self::port(port, default)?))
}

fn port(text: &str, default: u16) -> Read<u16> {
    if text.is_empty() {
        return Ok(default);
    }
    let digits = text.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port > 0);
    port.ok_or_else(|| "the port must be 1 to 65535".to_owned())
}

fn prefix(path: &str) -> Read<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte);
    let dots = path.split('/').any(|segment| segment == "." || segment == "..");
    if dots || !path.bytes().all(fits) {
        return Err("the path may not hold white space, non-ASCII or dot segments".to_owned());
    }
    Ok(path.trim_end_matches('/').to_owned())
}

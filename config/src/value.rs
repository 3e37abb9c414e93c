//! Scalars: text to values. Messages never repeat the text, which may be a secret in the wrong place.

pub(crate) mod path;
pub(crate) mod url;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::problem::did_you_mean;
use crate::{Bind, Hold};

/// A host that a request can name: a name or address, perhaps with a port; in lower case.
pub(crate) fn host(text: &str) -> Read<String> {
    let fits = !text.is_empty()
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    match fits {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("not a host (api.example, api.example:8443); wildcards are not read".to_owned()),
    }
}

/// What a value is, or the rule it breaks.
pub(crate) type Read<T> = Result<T, String>;

/// `300ms`, `2s`, `5m`, `4h`, `90d`.
pub(crate) fn duration(text: &str) -> Read<Duration> {
    let wrong = || "not a duration (300ms, 2s, 5m, 4h, 90d)".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(wrong)
}

/// `512B`, `64KiB`, `1MiB`, `2GiB`; in bytes.
pub(crate) fn size(text: &str) -> Read<u64> {
    let wrong = || "not a size (512B, 64KiB, 1MiB, 2GiB)".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// A plain whole number.
pub(crate) fn count(text: &str) -> Read<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| "not a whole number".to_owned())
}

/// The same in a range.
pub(crate) fn count_between(text: &str, from: u64, to: u64) -> Read<u64> {
    let count = count(text)?;
    (from..=to).contains(&count).then_some(count).ok_or_else(|| format!("must be {from} to {to}"))
}

/// `true` or `false`, nothing else: `yes` in YAML has misled enough people.
pub(crate) fn boolean(text: &str) -> Read<bool> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

/// `ADDRESS:PORT`, `[ADDRESS]:PORT`, `:PORT` or `unix:/path`.
pub(crate) fn bind(text: &str) -> Read<Bind> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(Bind::Unix);
    }
    if let Some(port) = text.strip_prefix(':') {
        return port.parse().map(Bind::AnyPort).map_err(|_| "not a port (0 to 65535)".to_owned());
    }
    text.parse::<SocketAddr>()
        .map(Bind::Tcp)
        .map_err(|_| "not an address to listen on (127.0.0.1:16001, [::1]:16001, :16001, unix:/path)".to_owned())
}

/// An absolute path of at most 107 bytes, which is what a socket address holds.
pub(crate) fn unix_path(path: &str) -> Read<PathBuf> {
    let fits = path.starts_with('/') && path.len() <= 107 && !path.contains('\0');
    fits.then(|| PathBuf::from(path))
        .ok_or_else(|| "a Unix socket is unix: and an absolute path of at most 107 bytes".to_owned())
}

/// True where only this host can reach the address.
pub(crate) fn is_local(bind: &Bind) -> bool {
    match bind {
        Bind::Tcp(address) => address.ip().is_loopback(),
        Bind::AnyPort(_) => false,
        Bind::Unix(_) => true,
    }
}

/// `any`, `all` or `quorum:K`.
pub(crate) fn hold(text: &str) -> Read<Hold> {
    match (text, text.strip_prefix("quorum:")) {
        ("any", _) => Ok(Hold::Any),
        ("all", _) => Ok(Hold::All),
        (_, Some(k)) => k.parse::<NonZeroUsize>().map(Hold::Quorum).map_err(|_| "quorum:K needs K of 1 or more".into()),
        _ => Err("must be any, all or quorum:K".to_owned()),
    }
}

/// An Ed25519 public key, base64url without padding.
pub(crate) fn signer(text: &str) -> Read<[u8; 32]> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "not an Ed25519 public key (32 bytes in base64url, 43 characters)".to_owned())
}

/// A name for logs and metrics.
pub(crate) fn name(text: &str) -> Read<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let valid = (1..=64).contains(&text.len()) && text.bytes().all(fits);
    valid.then_some(()).ok_or_else(|| "a name is 1 to 64 of A-Z a-z 0-9 . _ -".to_owned())
}

/// `[a-z0-9][a-z0-9._-]{0,127}`, with `{tenant}` standing for more at most once.
pub(crate) fn keyset(text: &str) -> Read<()> {
    let rule = || "a keyset name is [a-z0-9][a-z0-9._-]{0,127}, with {tenant} at most once".to_owned();
    let plain = text.replacen("{tenant}", "0", 1);
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let starts = plain.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (starts && plain.len() <= 128 && plain.bytes().all(fits)).then_some(()).ok_or_else(rule)
}

/// A field context or a tenant: 1 to 255 bytes.
pub(crate) fn short(text: &str) -> Read<()> {
    (1..=255).contains(&text.len()).then_some(()).ok_or_else(|| "must be 1 to 255 bytes".to_owned())
}

/// An HTTP token, as methods and header names are.
pub(crate) fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// A method, in capitals.
pub(crate) fn method(text: &str) -> Read<()> {
    if !is_token(text) {
        return Err("not a method".to_owned());
    }
    let small = text.bytes().any(|byte| byte.is_ascii_lowercase());
    if small { Err("methods are written in capitals (GET, PUT)".to_owned()) } else { Ok(()) }
}

/// `type/subtype` or `type/*`.
pub(crate) fn media_type(text: &str) -> Read<()> {
    let parts = text.split_once('/');
    let valid = parts.is_some_and(|(kind, sub)| kind != "*" && is_token(kind) && is_token(sub));
    valid.then_some(()).ok_or_else(|| "not a media type (image/png, image/*)".to_owned())
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Levels by module, `info,oilskin=debug`: what `tracing` would take for the name of a module and never match is refused.
pub(crate) fn log_filter(text: &str) -> Read<String> {
    let mut directives = Vec::new();
    for (index, text) in text.split(',').map(str::trim).enumerate() {
        directive(text).map_err(|message| format!("directive {}: {message}", index + 1))?;
        directives.push(text);
    }
    Ok(directives.join(","))
}

fn directive(text: &str) -> Read<()> {
    let is_level = |text: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
    let (module, level) = match text.rsplit_once('=') {
        Some((module, level)) => (Some(module), level),
        None => (None, text),
    };
    if !is_level(level) {
        let near = did_you_mean(&level.to_ascii_lowercase(), LEVELS);
        return Err(format!("must be a level ({}) or MODULE=LEVEL{near}", LEVELS.join(", ")));
    }
    let Some(module) = module else { return Ok(()) };
    let fits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !module.split("::").all(fits) {
        return Err("not a module's name (oilskin, oilskin::request, rustls)".to_owned());
    }
    let first = module.split("::").next().unwrap_or_default();
    match did_you_mean(first, ["oilskin"]) {
        near if near.is_empty() || first == "oilskin" => Ok(()),
        near => Err(format!("there is no module of that name{near}")),
    }
}

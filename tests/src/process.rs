//! The program itself, as a process: for memory, signals and what it logs.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::client::json;
use crate::keys::Keys;
use crate::tools::{self, Killed};

/// A running `oilskin`.
#[derive(Debug)]
pub struct Process {
    child: Killed,
    address: SocketAddr,
    /// `/metrics`.
    pub metrics: SocketAddr,
    /// `/live`, `/ready`.
    pub health: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// A port that nothing listens on now, and that none but the caller gets: none is given twice, they are below those that Linux gives to
/// whoever connects or asks for any (32768 and above), and the next one stays free, which OpenBao takes for its cluster.
pub fn free_port() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    loop {
        // Another process of ours begins elsewhere.
        let next = std::process::id().wrapping_mul(998).wrapping_add(GIVEN.fetch_add(2, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + next % (PORTS.end - PORTS.start)).unwrap();
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// The command with keys, service ports and no listener yet.
pub fn command(keys: &Keys) -> Command {
    let mut command = tools::oilskin();
    command
        .env("OILSKIN_ROOT_KEY", keys.root_uri())
        .env("OILSKIN_KEY_STORE", keys.store_uri())
        .env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true")
        .env("OILSKIN_ADMIN_LISTEN", "off")
        .env("OILSKIN_LOG_FORMAT", "json");
    command
}

impl Process {
    /// Starts with these variables; `OILSKIN_LISTEN` is a free port unless a document is given.
    pub fn start(keys: &Keys, vars: &[(&str, &str)]) -> Self {
        Self::start_as(command(keys), vars)
    }

    /// The same by a command that has its keys and whatever else.
    pub fn start_as(mut command: Command, vars: &[(&str, &str)]) -> Self {
        let (metrics, health) = (free_port(), free_port());
        command.env("OILSKIN_METRICS_LISTEN", metrics.to_string()).env("OILSKIN_HEALTH_LISTEN", health.to_string());
        if !vars.iter().any(|(name, _)| *name == "OILSKIN_CONFIG_YAML") {
            command.env("OILSKIN_LISTEN", "127.0.0.1:0");
        }
        let mut child = Killed(command.envs(vars.iter().copied()).stderr(Stdio::piped()).spawn().unwrap());
        let mut reader = BufReader::new(child.0.stderr.take().unwrap());
        let mut lines = Vec::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0, "it ended: {lines:?}");
            let address = address_in(&line);
            lines.push(line);
            if let Some(address) = address {
                break address;
            }
        };
        let log = Arc::new(Mutex::new(lines));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self { child, address, metrics, health, log }
    }

    /// Its first listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged so far, a line each.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a logged line is wanted.
    pub fn logged(&self, wanted: impl Fn(&str) -> bool) -> String {
        tools::until("a line in the log", || self.log().into_iter().find(|line| wanted(line)))
    }

    /// The metrics page.
    pub fn metrics_page(&self) -> String {
        json(self.metrics, "GET", "/metrics", "").text()
    }

    /// How many handshakes ended so, by `side`, `group` and `outcome`.
    pub fn handshakes(&self, side: &str, group: &str, outcome: &str) -> u64 {
        let wanted = [format!("side=\"{side}\""), format!("group=\"{group}\""), format!("outcome=\"{outcome}\"")];
        let page = self.metrics_page();
        let lines = page.lines().filter(|line| line.starts_with("oilskin_tls_handshakes_total{"));
        let lines = lines.filter(|line| wanted.iter().all(|label| line.contains(label)));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until that many of its clients' handshakes have failed so: a client may know of it before it is counted.
    pub fn refused(&self, outcome: &str, count: u64) {
        tools::until(outcome, || (self.handshakes("app", "", outcome) == count).then_some(()));
    }

    /// What `/ready` says.
    pub fn ready(&self) -> String {
        json(self.health, "GET", "/ready", "").text()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// How many files and sockets it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.0.id())).unwrap().count()
    }

    /// The most memory it ever held, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.in_status("VmHWM:")
    }

    /// The memory it holds, in bytes.
    pub fn memory(&self) -> u64 {
        self.in_status("VmRSS:")
    }

    fn in_status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        tools::run(Command::new("kill").args([format!("-{name}"), self.child.0.id().to_string()]));
    }

    /// Waits for its end and returns the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.0.wait().unwrap().code()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("\"address\":\"")?;
    after.split('"').next()?.parse().ok()
}

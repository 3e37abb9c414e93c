//! A program beside the bench: started on one core, accounted from outside, ended whatever happens.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// `/proc` counts in hundredths of a second on every Linux, whatever the kernel's own tick is.
const TICK: Duration = Duration::from_millis(10);
/// Some start under valgrind.
const START: Duration = Duration::from_secs(120);
const END: Duration = Duration::from_secs(10);

/// Where what is measured runs, and where all else does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Core {
    /// The proxy alone.
    Proxy,
    /// Origin and load.
    Rest,
}

impl Core {
    /// Moves this thread, and what it starts from now on.
    pub(crate) fn take(self) -> Result<()> {
        let [proxy, rest] = cores()?;
        let mut set = CpuSet::new();
        set.set(match self {
            Self::Proxy => proxy,
            Self::Rest => rest,
        });
        Ok(sched_setaffinity(None, &set)?)
    }

    /// Runs `work` on this core, and comes back.
    fn during<T>(self, work: impl FnOnce() -> T) -> Result<T> {
        let before = sched_getaffinity(None)?;
        self.take()?;
        let done = work();
        sched_setaffinity(None, &before)?;
        Ok(done)
    }
}

/// The first two cores this process may use, as it was started.
fn cores() -> Result<[usize; 2]> {
    static CORES: OnceLock<Option<[usize; 2]>> = OnceLock::new();
    let found = CORES.get_or_init(|| {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        Some([cores.next()?, cores.next()?])
    });
    found.context("the bench needs two cores, one for the proxy and one for origin and load")
}

/// A running program; ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Starts it on a core with its output in `log`. It ends with the bench even if that is killed.
    pub(crate) fn start(name: &str, command: &Command, core: Core, log: &Path) -> Result<Self> {
        let mut bound = Command::new("/usr/bin/setpriv");
        bound.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
        bound.env_clear();
        for (variable, value) in command.get_envs() {
            bound.envs(value.map(|value| (variable, value)));
        }
        Self::spawn(name, &mut bound, core, log)
    }

    /// Starts it without anything between: what a start costs is measured.
    pub(crate) fn spawn(name: &str, command: &mut Command, core: Core, log: &Path) -> Result<Self> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = core.during(|| command.spawn())?.with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned() })
    }

    /// Waits until it takes connections.
    pub(crate) fn until_listening(&mut self, address: SocketAddr) -> Result<()> {
        self.until(|_| TcpStream::connect(address).ok()).map(drop)
    }

    /// Waits until `look` finds what it looks for; says what the program said when it ends first.
    pub(crate) fn until<T>(&mut self, mut look: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start ({status}): {}", self.name, self.said());
            }
            ensure!(Instant::now() < deadline, "{} was not ready in {START:?}: {}", self.name, self.said());
            pause(Duration::from_millis(2));
        }
    }

    /// What it wrote so far.
    pub(crate) fn said(&self) -> String {
        fs::read(&self.log).map(|said| String::from_utf8_lossy(&said).trim().to_owned()).unwrap_or_default()
    }

    /// Processor time of all its threads and children until now.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let ticks: Option<u64> = self.tree()?.iter().map(|process| process.ticks).try_fold(0_u64, u64::checked_add);
        let ticks = u32::try_from(ticks.context("too many ticks")?)?;
        Ok(TICK * ticks)
    }

    /// Most memory resident at any time, in bytes, children included.
    pub(crate) fn peak_rss(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// Memory resident now, in bytes, children included.
    pub(crate) fn rss(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The part of it that is no file's pages: what the program itself wrote.
    pub(crate) fn anonymous_rss(&self) -> Result<u64> {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let mut bytes = 0;
        for process in self.tree()? {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid))?;
            let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no memory in status")?;
            let kilobytes: u64 = line.split_whitespace().next().context("no number in status")?.parse()?;
            bytes += kilobytes * 1024;
        }
        Ok(bytes)
    }

    /// The process and all below it.
    fn tree(&self) -> Result<Vec<Process>> {
        let all: Vec<Process> = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid: u32| Process::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
            .collect();
        let mut pids = vec![self.child.id()];
        let mut at = 0;
        while let Some(parent) = pids.get(at).copied() {
            pids.extend(all.iter().filter(|process| process.parent == parent).map(|process| process.pid));
            at += 1;
        }
        let tree: Vec<_> = all.into_iter().filter(|process| pids.contains(&process.pid)).collect();
        ensure!(!tree.is_empty(), "{} is gone: {}", self.name, self.said());
        Ok(tree)
    }

    /// Ends it in order and waits; what it said is the error when it does not end.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        if let Some(pid) = Pid::from_raw(self.child.id().try_into()?) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + END;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "{} does not end: {}", self.name, self.said());
            pause(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.end().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One line of `/proc/PID/stat`.
#[derive(Debug, PartialEq)]
struct Process {
    pid: u32,
    parent: u32,
    /// utime + stime.
    ticks: u64,
}

impl Process {
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything, spaces and parentheses too.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let user: u64 = fields.nth(9)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(Self { pid, parent, ticks: user + system })
    }
}

/// Lets time pass where the bench waits for another process, which has no event to give.
#[expect(clippy::disallowed_methods, reason = "another process has no event to wait on")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_name() {
        let stat = "12 (a) b (c) S 7 12 12 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 1 0 5 6 7";
        assert_eq!(Process::parse(12, stat), Some(Process { pid: 12, parent: 7, ticks: 175 }));
        assert_eq!(Process::parse(1, "no stat"), None);
    }

    #[test]
    fn a_program_that_ends_at_its_start_is_an_error_that_quotes_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo no such luck >&2; exit 3"]);
        let mut running = Running::start("shell", &command, Core::Rest, &folder.path().join("log")).unwrap();
        let error = running.until(|_| None::<()>).unwrap_err().to_string();
        assert!(error.contains("no such luck"), "{error}");
    }

    #[test]
    fn children_are_accounted_with_their_parent_and_end_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap 'kill $!; exit 0' TERM; (while :; do :; done) & wait"]);
        let mut running = Running::start("shell", &command, Core::Rest, &folder.path().join("log")).unwrap();
        running.until(|running| running.cpu().ok().filter(|cpu| *cpu >= 3 * TICK)).unwrap();
        assert_eq!(running.tree().unwrap().len(), 2);
        assert!(running.peak_rss().unwrap() >= running.rss().unwrap());
        assert!(running.end().unwrap().success());
    }
}

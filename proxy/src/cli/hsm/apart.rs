//! A process of its own for the library: one that crashes or hangs there is a line in the report.
//!
//! The program starts itself. Its standard input is a socket, by which the other process tells what it begins and what it has found so
//! far, a line of JSON each: standard output is the library's to write to.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::found::Found;
use super::{Probe, probe};
use crate::cli::{Exit, Printer};

/// A line.
#[derive(Serialize, Deserialize)]
struct Told {
    now: Now,
    found: Found,
}

#[derive(Serialize, Deserialize)]
enum Now {
    Doing(String),
    Refused(String),
    Done,
}

/// What is found, on its way to the process that asked.
pub(super) struct Report {
    to: Option<UnixStream>,
    pub(super) found: Found,
}

impl Report {
    /// What the library is about to do, as "the library crashed while …" goes on.
    pub(super) fn begin(&mut self, doing: &str) {
        self.tell(Now::Doing(doing.to_owned()));
    }

    fn tell(&mut self, now: Now) {
        let told = Told { now, found: std::mem::take(&mut self.found) };
        // Nobody who hears it: then nobody needs it, and this process ends with the one that asked.
        if let (Some(to), Ok(line)) = (&mut self.to, serde_json::to_string(&told)) {
            let _ = to.write_all(format!("{line}\n").as_bytes());
        }
        self.found = told.found;
    }
}

/// The process in which the library runs.
pub(super) fn work(words: &Probe) -> Exit {
    // A library that hangs would otherwise stay for ever where the one that asked was killed.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let to = std::io::stdin().as_fd().try_clone_to_owned().ok().map(UnixStream::from);
    let mut report = Report { to, found: Found::default() };
    let now = probe::probe(words, &mut report).map_or_else(|refused| Now::Refused(refused.why), |()| Now::Done);
    report.begin("ending");
    report.tell(now);
    Exit::Done
}

/// Lets it run, and hears what it finds.
///
/// # Errors
/// A sentence: why nothing can be tried.
pub(super) fn watch(words: &Probe, printer: &Printer) -> Result<Found, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    ours.set_read_timeout(Some(words.deadline())).map_err(|error| error.to_string())?;
    let child = start(words, theirs).map_err(|error| format!("cannot start itself for the library: {error}"))?;
    let mut watched = Watched { lines: BufReader::new(ours), child, printer, deadline: words.deadline() };
    let mut told = Told { now: Now::Doing("being loaded".to_owned()), found: Found::default() };
    let ended = watched.hear(&mut told);
    match (ended, told.now) {
        (None, Now::Refused(why)) => Err(why),
        (ended, _) => Ok(Found { module: probe::path(words), ended, ..told.found }),
    }
}

fn start(words: &Probe, theirs: UnixStream) -> std::io::Result<Child> {
    // Not its path: a package may have put another program there meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("oilskin").args(["hsm", "probe", "--apart", "--module"]).arg(&words.module);
    command.args(words.token.iter().flat_map(|label| ["--token", label.as_str()]));
    if let Some(file) = &words.pin_file {
        command.arg("--pin-file").arg(file);
    }
    command.args(["--object", &words.object, "--count", &words.count.to_string()]);
    command.args(["--deadline", &words.deadline.to_string()]);
    let errors = std::io::stderr().as_fd().try_clone_to_owned()?;
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).stdout(errors).spawn()
}

struct Watched<'a> {
    lines: BufReader<UnixStream>,
    child: Child,
    printer: &'a Printer,
    deadline: Duration,
}

impl Watched<'_> {
    /// Hears it to its end. None where that is a good one.
    fn hear(&mut self, told: &mut Told) -> Option<String> {
        let mut doing = "being loaded".to_owned();
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    // Not waited for: one that hangs in a driver does not end by being killed.
                    let _ = self.child.kill();
                    return Some(format!(
                        "the library did not come back within {} s while {doing}",
                        self.deadline.as_secs()
                    ));
                }
                Err(_) => break,
            }
            // A line that was cut off is the last.
            let Ok(next) = serde_json::from_str::<Told>(&line) else { break };
            if let Now::Doing(next) = &next.now {
                next.clone_into(&mut doing);
                self.printer.progress(format_args!("{doing} …"));
            }
            *told = next;
        }
        // It ends, or has thrown away by what it is heard.
        let _ = self.child.kill();
        let status = self.child.wait().ok()?;
        let good = status.success() && !matches!(told.now, Now::Doing(_));
        (!good).then(|| format!("the library {} while {doing}", how(status)))
    }
}

fn how(status: ExitStatus) -> String {
    let named = [(4, "SIGILL"), (6, "SIGABRT"), (7, "SIGBUS"), (8, "SIGFPE"), (9, "SIGKILL"), (11, "SIGSEGV")];
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = named.iter().find(|(number, _)| *number == signal).map(|(_, name)| (*name).to_owned());
            format!("crashed ({})", name.unwrap_or_else(|| format!("signal {signal}")))
        }
        (None, code) => format!("ended its process (exit code {})", code.unwrap_or_default()),
    }
}

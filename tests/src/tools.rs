//! Programs that tests run beside Oilskin. What is missing is an error that says how to get it, never a skip.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The repository's top.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program on the path.
pub fn program(name: &str) -> Command {
    let found = ["/usr/sbin", "/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists());
    Command::new(found.unwrap_or_else(|| panic!("{name} is not installed: run `make deps`")))
}

/// What is preloaded into a program so that it sees the clock that a file tells it: `+40d`, `-1h`.
pub fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
    let found = folders.map(|one| one.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("faketime is not installed: run `make deps`")).display().to_string()
}

/// The tests' own Python, with what `tests/requirements.txt` names.
pub fn python() -> Command {
    let python = top().join(".venv/bin/python");
    assert!(python.exists(), "there is no .venv: run `make deps`");
    Command::new(python)
}

/// A program that a package of the virtual environment brings; `path` is below its packages' folder.
pub fn packaged(path: &str) -> Command {
    let python = std::fs::read_dir(top().join(".venv/lib")).ok().and_then(|mut folders| folders.next()?.ok());
    let program = python.map(|folder| folder.path().join("site-packages").join(path)).filter(|path| path.exists());
    Command::new(program.unwrap_or_else(|| panic!("{path} is not installed: run `make deps`")))
}

/// Node, from the same place, for what `tests/node` holds.
pub fn node() -> Command {
    let node = top().join(".venv/bin/node");
    assert!(node.exists() && top().join("tests/node/node_modules").exists(), "there is no Node: run `make deps`");
    Command::new(node)
}

/// Gives a program these lines to read and returns those it printed.
pub fn feed(command: &mut Command, lines: &[String]) -> Vec<String> {
    use std::io::{Seek, Write};
    // A file, not a pipe: a program that prints before it has read all would wait for us, and we for it.
    let mut input = tempfile::tempfile().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    input.rewind().unwrap();
    let output = command.env("PYTHONUTF8", "1").stdin(input).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Runs to the end and returns what it printed; its failure is the test's.
pub fn run(command: &mut Command) -> String {
    let output: Output = command.stdin(Stdio::null()).output().unwrap();
    let shown = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{shown}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Looks until there is something to see. For what outside processes do and tell no one.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        pause(Duration::from_millis(10));
    }
}

/// Lets time go by, where there is no event to wait on.
#[expect(clippy::disallowed_methods, reason = "the one place where tests sleep")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A child that is killed with its test.
#[derive(Debug)]
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program itself, which cargo builds with the tests. Not the test's own executable: signals, exit codes and `kill -9` need
/// a process.
pub fn oilskin() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(BUILT.get_or_init(|| folder().join("oilskin-program")));
    command.env_clear();
    command
}

/// What to put first into a PATH so that `oilskin` is the program itself, for scripts.
pub fn path() -> String {
    let names = folder().join("named");
    std::fs::create_dir_all(&names).unwrap();
    // There already where another test was first.
    let _ = std::os::unix::fs::symlink(folder().join("oilskin-program"), names.join("oilskin"));
    format!("{}:/usr/bin:/bin", names.display())
}

/// The PKCS#11 module that fails as it is told, `p11-fault`.
pub fn p11_fault() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("p11-fault").join("libp11_fault.so")).clone()
}

/// The folder of what is being tested: target/debug/deps/suite-… stands two below.
fn folder() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// Builds a package of the workspace into the folder of what is being tested, and returns that.
fn built(package: &str) -> PathBuf {
    let folder = folder();
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells the test of its own package: ring's build looks at it, and would be made anew each time.
    for name in ["MANIFEST_DIR", "PKG_NAME", "MANIFEST_LINKS"] {
        cargo.env_remove(format!("CARGO_{name}"));
    }
    for part in ["MAJOR", "MINOR", "PATCH", "PRE"] {
        cargo.env_remove(format!("CARGO_PKG_VERSION_{part}"));
    }
    let parent = folder.parent().unwrap();
    cargo.args(["build", "--quiet", "-p", package, "--target-dir"]).arg(parent);
    run(cargo.current_dir(top()));
    folder
}

//! Programs that tests run beside Oilskin. What is missing is an error that says how to get it, never a skip.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

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

/// The tests' own Python, with what `tests/requirements.txt` names.
pub fn python() -> Command {
    let python = top().join(".venv/bin/python");
    assert!(python.exists(), "there is no .venv: run `make deps`");
    Command::new(python)
}

/// Runs to the end and returns what it printed; its failure is the test's.
pub fn run(command: &mut Command) -> String {
    let output: Output = command.stdin(Stdio::null()).output().unwrap();
    let shown = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{shown}", output.status);
    String::from_utf8(output.stdout).unwrap()
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

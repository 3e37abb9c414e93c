//! SoftHSM with a token of a test's own, behind a module that fails as it is told.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::keys::Keys;
use crate::process;
use crate::tools;

/// Where the package puts it.
pub const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The user's PIN of every token here.
pub const PIN: &str = "ahoy-482915";

/// A folder with tokens, a PIN's file and a key store.
#[derive(Debug)]
pub struct Hsm {
    keys: Keys,
}

impl Hsm {
    /// A token labelled `oil` with the keys `root` (id 01) and `decoy` (id 02).
    pub fn new() -> Self {
        let hsm = Self::empty();
        hsm.add_token("oil");
        hsm.add_key("oil", "root", "01");
        hsm.add_key("oil", "decoy", "02");
        hsm
    }

    /// No token at all.
    pub fn empty() -> Self {
        let hsm = Self { keys: Keys::empty() };
        std::fs::create_dir(hsm.path("tokens")).unwrap();
        let settings = format!("directories.tokendir = {}\nobjectstore.backend = file\n", hsm.shown("tokens"));
        std::fs::write(hsm.path("softhsm2.conf"), settings).unwrap();
        hsm.write_pin(PIN);
        hsm
    }

    /// Makes a token.
    pub fn add_token(&self, label: &str) {
        let mut command = tools::program("softhsm2-util");
        command.args(["--init-token", "--free", "--label", label, "--so-pin", "5678", "--pin", PIN]);
        tools::run(command.env("SOFTHSM2_CONF", self.path("softhsm2.conf")));
    }

    /// Makes a key as the documentation says.
    pub fn add_key(&self, token: &str, label: &str, id: &str) {
        self.pkcs11_tool(token, &key_words(label, id, "AES:32", &["--sensitive", "--usage-decrypt"]));
    }

    /// Makes a key with other words.
    pub fn add_other_key(&self, label: &str, kind: &str, more: &[&str]) {
        self.pkcs11_tool("oil", &key_words(label, "07", kind, more));
    }

    /// Runs `pkcs11-tool`, logged in.
    pub fn pkcs11_tool(&self, token: &str, words: &[&str]) -> String {
        let mut command = tools::program("pkcs11-tool");
        command.args(["--module", SOFTHSM, "--token-label", token, "--login", "--pin", PIN]).args(words);
        tools::run(command.env("SOFTHSM2_CONF", self.path("softhsm2.conf")))
    }

    /// The root `root` of the token `oil`.
    pub fn uri(&self) -> String {
        self.uri_of("token=oil;object=root", &tools::p11_fault(), "&profile=softhsm")
    }

    /// Any other.
    pub fn uri_of(&self, path: &str, module: &Path, more: &str) -> String {
        format!("pkcs11:{path}?module-path={}&pin-source=file:{}{more}", module.display(), self.shown("pin"))
    }

    /// Puts a PIN into its file.
    pub fn write_pin(&self, pin: &str) {
        std::fs::write(self.path("pin"), format!("{pin}\n")).unwrap();
    }

    /// What calls do from now on; as `p11-fault` says.
    pub fn tell(&self, lines: &str) {
        // Never half a file: calls read it at any time.
        std::fs::write(self.path("control.new"), lines).unwrap();
        std::fs::rename(self.path("control.new"), self.path("control")).unwrap();
    }

    /// How often a function answered so; any answer where it is empty.
    pub fn calls(&self, function: &str, answer: &str) -> usize {
        let log = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with(&format!("{function} {answer}"))).count()
    }

    /// `oilskin` with this root.
    pub fn command(&self) -> Command {
        let mut command = process::command(&self.keys);
        self.around(&mut command);
        command.env("OILSKIN_ROOT_KEY", self.uri()).env("OILSKIN_KEY_REFRESH", "1s");
        command
    }

    /// The modules' own variables.
    pub fn around(&self, command: &mut Command) {
        command
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .env("P11_FAULT_MODULE", SOFTHSM)
            .env("P11_FAULT_CONTROL", self.path("control"))
            .env("P11_FAULT_LOG", self.path("calls"));
    }

    /// What its folder holds of keys and documents.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.keys.folder().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

fn key_words<'a>(label: &'a str, id: &'a str, kind: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--keygen", "--key-type", kind, "--label", label, "--id", id], more].concat()
}

impl Default for Hsm {
    fn default() -> Self {
        Self::new()
    }
}

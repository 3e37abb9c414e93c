//! `oilskin rewrap`: data at rest gets the active key version.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use oilskin_crypto::{Bound, FieldSpec, Message, Value};
use oilskin_tests::keys::Keys;
use oilskin_tests::tools::Killed;
use oilskin_tests::{process, tools};

struct Bench {
    keys: Keys,
}

impl Bench {
    fn new() -> Self {
        let keys = Keys::empty();
        let this = Self { keys };
        this.run(&["keys", "init"]);
        this
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = process::command(&self.keys);
        command.args(words).env("OILSKIN_KEY_REFRESH", "1s").env("OILSKIN_UPSTREAM", "http://127.0.0.1:1");
        command.env("OILSKIN_FIELDS", "$..ssn context=ssn").stdin(Stdio::null());
        command
    }

    fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn run(&self, words: &[&str]) -> String {
        tools::run(&mut self.command(words))
    }

    fn token(&self, text: &str) -> String {
        let mut token = Vec::new();
        let spec = FieldSpec::new(vec!["ssn".to_owned()]);
        let mut message = Message::new(&self.keys.handle("default"), None, 0);
        message.encrypt(&spec, Value::Text(text), Bound::default(), &mut token).unwrap();
        String::from_utf8(token).unwrap()
    }

    fn opened(&self, token: &str) -> (String, bool) {
        let mut out = Vec::new();
        let spec = FieldSpec::new(vec!["ssn".to_owned()]);
        let mut message = Message::new(&self.keys.handle("default"), None, 0);
        let opened = message.decrypt(&spec, token.as_bytes(), Bound::default(), &mut out).unwrap();
        (serde_json::from_slice(&out).unwrap(), opened.stale)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keys.folder().join(name)
    }

    /// `lines` records with one token each, some lines without, and odd white space.
    fn records(&self, lines: usize) -> PathBuf {
        let path = self.path("records.ndjson");
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        for line in 0..lines {
            let end = if line % 7 == 0 { " \r\n" } else { "\n" };
            match line % 10 {
                9 => write!(file, "{{ \"n\" : {line}.0 , \"é\":\"ü\\u00e9\"}}{end}").unwrap(),
                _ => write!(file, "{{\"n\":{line},\"deep\":[{{\"ssn\":\"{}\"}}]}}{end}", self.token(&line.to_string()))
                    .unwrap(),
            }
        }
        writeln!(file).unwrap();
        file.into_inner().unwrap();
        path
    }

    /// Every token of these lines, opened.
    fn tokens(&self, path: &Path) -> Vec<(String, bool)> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| line.contains("ssn"));
        lines.map(|line| self.opened(line.split("\"ssn\":\"").nth(1).unwrap().split('"').next().unwrap())).collect()
    }
}

#[test]
fn every_old_token_becomes_a_new_one_and_nothing_else_changes() {
    let bench = Bench::new();
    let records = bench.records(1_000);
    bench.run(&["keys", "rotate"]);
    let (file, out) = (records.to_str().unwrap(), bench.path("new.ndjson"));
    let said = bench.run(&["rewrap", file, "--dry-run"]);
    assert!(said.contains("1000 documents: 900 tokens in 900 of them would become new ones, 0 failed"), "{said}");
    assert!(!out.exists());
    let said = bench.run(&["rewrap", file, "--out", out.to_str().unwrap()]);
    assert!(said.contains("900 tokens in 900 of them became new ones"), "{said}");
    let tokens = bench.tokens(&out);
    assert_eq!(tokens.len(), 900);
    let expected = (0..1_000).filter(|line| line % 10 != 9).map(|line| (line.to_string(), false));
    assert!(tokens.into_iter().eq(expected), "what they hold is the same, and none is of an old version");
    let (before, after) = [&records, &out].map(|path| std::fs::read_to_string(path).unwrap()).into();
    let rest = |text: &str| {
        let parts = text.split('"').filter(|part| !part.starts_with("oil1."));
        parts.collect::<Vec<_>>().join("\"")
    };
    assert_eq!(rest(&before), rest(&after), "not a byte beside the tokens");
    let again = bench.path("again.ndjson");
    let said = bench.run(&["rewrap", out.to_str().unwrap(), "--out", again.to_str().unwrap()]);
    assert!(said.contains("0 tokens in 0 of them"), "{said}");
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&again).unwrap());
    let existing = bench.output(&["rewrap", file, "--out", out.to_str().unwrap()]);
    assert!(!existing.status.success(), "a file that is there is not overwritten");
}

#[test]
fn one_document_of_any_size_is_read_as_a_stream_and_stdin_by_lines() {
    let bench = Bench::new();
    let token = bench.token("1");
    let path = bench.path("whole.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    write!(file, "[").unwrap();
    for _ in 0..2_000 {
        writeln!(file, "{{\"x\":\"{}\",\"ssn\":\"{token}\"}},", "y".repeat(5_000)).unwrap();
    }
    write!(file, "null]").unwrap();
    file.into_inner().unwrap();
    bench.run(&["keys", "rotate"]);
    let out = bench.path("out.json");
    let said = bench.run(&["rewrap", path.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(said.contains("1 documents: 2000 tokens in 1 of them"), "{said}");
    assert!(bench.tokens(&out).iter().all(|token| *token == ("1".to_owned(), false)));
    let mut child = bench.command(&["rewrap", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{{\"ssn\":\"{token}\"}}").unwrap();
    let output = child.wait_with_output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(bench.opened(line.split('"').nth(3).unwrap()), ("1".to_owned(), false));
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    let bench = Bench::new();
    let records = bench.records(6_000);
    bench.run(&["keys", "rotate"]);
    let (out, mark) = (bench.path("new.ndjson"), bench.path("mark"));
    let words =
        ["rewrap", records.to_str().unwrap(), "--out", out.to_str().unwrap(), "--checkpoint", mark.to_str().unwrap()];
    for _ in 0..2 {
        let mut child = Killed(bench.command(&[&words[..], &["--rate", "1500"]].concat()).spawn().unwrap());
        let before = std::fs::read_to_string(&mark).unwrap_or_default();
        tools::until("a checkpoint", || std::fs::read_to_string(&mark).ok().filter(|text| *text != before));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        // Half a line behind what was written down is not believed.
        std::fs::File::options().append(true).open(&out).unwrap().write_all(b"{\"ssn\":\"oil1.").unwrap();
    }
    let said = bench.run(&words);
    assert!(!said.contains("6000 documents"), "not from the beginning: {said}");
    assert!(!mark.exists());
    let expected = (0..6_000).filter(|line| line % 10 != 9).map(|line| (line.to_string(), false));
    assert!(bench.tokens(&out).into_iter().eq(expected));
}

#[test]
fn a_token_that_does_not_open_ends_it_or_is_left() {
    let bench = Bench::new();
    let path = bench.path("odd.ndjson");
    let good = bench.token("1");
    let lines =
        [format!("{{\"ssn\":\"{good}\"}}"), "{\"ssn\":\"oil1.AAAA\"}".into(), "{\"ssn\":\"plain\"}".into(), "{".into()];
    std::fs::write(&path, lines.join("\n")).unwrap();
    bench.run(&["keys", "rotate"]);
    let file = path.to_str().unwrap();
    let output = bench.output(&["rewrap", file]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("line 2: decrypt_failed (token_malformed)"), "{said}");
    let out = bench.path("out");
    assert!(!bench.output(&["rewrap", file, "--out", out.to_str().unwrap()]).status.success());
    assert!(!out.exists(), "half a result is none");
    let output = bench.output(&["rewrap", file, "--keep-going", "--out", out.to_str().unwrap()]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(
        output.status.code() == Some(1) && said.contains("1 tokens in 1 of them became new ones, 3 failed"),
        "{said}"
    );
    let after = std::fs::read_to_string(&out).unwrap();
    assert!(after.lines().skip(1).eq(lines.iter().skip(1).map(String::as_str)));
    let output = bench.command(&["rewrap", file]).env("OILSKIN_FIELDS", "").output().unwrap();
    assert!(!output.status.success());
}

/// The drill of `docs/keys.md`, as it stands there.
#[test]
fn a_backup_is_restored_by_the_drill_and_one_that_lacks_something_is_told() {
    let bench = Bench::new();
    let sample = bench.records(50);
    bench.run(&["keys", "rotate"]);
    let backup = bench.path("backup");
    std::fs::create_dir(&backup).unwrap();
    bench.run(&["keys", "export", "--out", backup.join("default.json").to_str().unwrap()]);
    let drilled = |root: &str, fields: &str| {
        let mut command = Command::new(tools::top().join("docs/restore-drill.sh"));
        command.arg(&backup).arg(&sample).arg(fields);
        command.env("OILSKIN_ROOT_KEY", root).env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true");
        let output = command.env("PATH", tools::path()).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let drill = |root: &str| drilled(root, "$..ssn context=ssn");
    let (good, said) = drilled(&bench.keys.root_uri(), "$.other");
    assert!(!good && said.contains("nothing was tried"), "{said}");
    let (good, said) = drill(&bench.keys.root_uri());
    assert!(good && said.contains("1 keysets restored") && said.contains("every token of the sample opens"), "{said}");
    let (good, said) = drill(&Keys::new().root_uri());
    assert!(!good && said.contains("none of the configured root keys"), "{said}");
    // Another keyset under the same root: it is restored, and the tokens are not its.
    bench.run(&["keys", "init", "--name", "other"]);
    let other = std::fs::read_to_string(bench.path("keys/other.json")).unwrap();
    std::fs::write(backup.join("default.json"), other).unwrap();
    let (good, said) = drill(&bench.keys.root_uri());
    assert!(!good && said.contains("another keyset's"), "{said}");
    std::fs::remove_file(backup.join("default.json")).unwrap();
    let (good, said) = drill(&bench.keys.root_uri());
    assert!(!good && said.contains("no documents"), "{said}");
}

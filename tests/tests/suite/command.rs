//! The program as a process: its words, exit codes, signals, and what `kill -9` leaves.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use oilskin_tests::Upstream;
use oilskin_tests::keys::Keys;
use oilskin_tests::tools::{self, Killed};

const NO_SERVICE: [(&str, &str); 3] =
    [("OILSKIN_ADMIN_LISTEN", "off"), ("OILSKIN_METRICS_LISTEN", "off"), ("OILSKIN_HEALTH_LISTEN", "off")];

fn output(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// `oilskin` with a keyset in a folder.
fn with_keys(folder: &Path) -> Command {
    let mut command = tools::oilskin();
    command
        .env("OILSKIN_ROOT_KEY", format!("file:{}", folder.join("root.key").display()))
        .env("OILSKIN_KEY_STORE", format!("file:{}", folder.join("keys").display()))
        .env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true");
    command
}

/// A running proxy before `upstream`, and where it listens, which its log says.
fn running(upstream: &Upstream, keys: &Keys) -> (Killed, SocketAddr) {
    let mut command = with_keys(keys.folder());
    let mut child = command
        .envs(NO_SERVICE)
        .env("OILSKIN_LISTEN", "127.0.0.1:0")
        .env("OILSKIN_UPSTREAM", upstream.url())
        .env("OILSKIN_FIELDS", "$.ssn")
        .env("OILSKIN_LOG_FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    let address = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended: {seen}");
        seen.push_str(&line);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if let Some(address) = line.pointer("/fields/address").or_else(|| line.get("address")) {
            break address.as_str().unwrap().parse().unwrap();
        }
    };
    std::thread::spawn(move || log.read_to_string(&mut seen));
    (Killed(child), address)
}

fn signal(child: &Child, name: &str) {
    tools::run(Command::new("kill").args([format!("-{name}"), child.id().to_string()]));
}

fn lines_until(stdout: &mut BufReader<ChildStdout>, end: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains(end)) {
        let mut line = String::new();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended: {lines:?}");
        lines.push(line.trim().to_owned());
    }
    lines
}

#[test]
fn dev_prints_three_lines_to_copy_that_show_plaintext_here_and_ciphertext_there() {
    let folder = tempfile::tempdir().unwrap();
    let child = tools::oilskin()
        .args(["dev", "--demo", "127.0.0.1:0", "--dir"])
        .arg(folder.path().join(".oilskin"))
        .envs(NO_SERVICE)
        .env("OILSKIN_LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
    let shown = lines_until(&mut stdout, "Ctrl-C");
    let lines: Vec<_> = shown.iter().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(lines.len(), 3, "{shown:?}");
    let answers: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| tools::run(Command::new("sh").args(["-c", line])))
        .map(|answer| serde_json::from_str(&answer).unwrap())
        .collect();
    for plain in &answers[..2] {
        assert_eq!(plain["ssn"], "123-45-6789");
        assert_eq!(plain["card"]["number"], "4111111111111111");
    }
    for field in ["/ssn", "/email", "/card/number"] {
        assert!(answers[2].pointer(field).unwrap().as_str().unwrap().starts_with("oil1."), "{field}");
    }
    assert_eq!(answers[2]["name"], "Ada");
    let address = lines[1].split("http://").nth(1).unwrap().split('/').next().unwrap();
    let list = oilskin_tests::client::json(address.parse().unwrap(), "GET", "/customers", "").text();
    assert!(list.contains("4111111111111111") && !list.contains("oil1."), "a list is decrypted, too: {list}");
    let stored = lines_until(&mut stdout, "store");
    assert!(stored.last().unwrap().contains("oil1.") && !stored.concat().contains("123-45-6789"), "{stored:?}");
    signal(&child.0, "INT");
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    let ignore = std::fs::read_to_string(folder.path().join(".oilskin/.gitignore")).unwrap();
    assert_eq!(ignore, "*\n", "development keys keep out of git");
}

#[test]
fn dev_says_what_is_true_under_rules_of_ones_own() {
    for (fields, said, stored) in [
        (
            "$.name, $..number",
            "# what the store holds: ciphertext in card.number, name",
            Some(["oil1.", "123-45-6789"]),
        ),
        (
            "$.nothing",
            "# what the store holds: plaintext, as no rule selects any of this",
            Some(["Ada", "123-45-6789"]),
        ),
        ("$ context=all", "Your rules make the whole body one token", None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut dev = tools::oilskin();
        dev.args(["dev", "--demo", "127.0.0.1:0", "--dir"]).arg(folder.path()).envs(NO_SERVICE);
        dev.env("OILSKIN_LISTEN", "127.0.0.1:0").env("OILSKIN_FIELDS", fields).stdout(Stdio::piped());
        let mut child = Killed(dev.spawn().unwrap());
        let shown = lines_until(&mut BufReader::new(child.0.stdout.take().unwrap()), "Ctrl-C");
        assert!(shown.iter().any(|line| line.contains(said)), "{fields}: {shown:#?}");
        let lines: Vec<_> = shown.iter().filter(|line| line.starts_with("curl ")).collect();
        assert_eq!(lines.is_empty(), stored.is_none(), "{shown:#?}");
        let answers: Vec<_> = lines.iter().map(|line| tools::run(Command::new("sh").args(["-c", line]))).collect();
        for part in stored.into_iter().flatten() {
            assert!(answers[2].contains(part), "{part}: {answers:?}");
        }
    }
}

#[test]
fn a_check_refuses_two_listeners_at_one_address_as_a_run_does() {
    for word in [Some("check"), None] {
        let mut command = tools::oilskin();
        command.args(word).env("OILSKIN_UPSTREAM", "http://127.0.0.1:1").env("OILSKIN_LISTEN", "127.0.0.1:16000");
        let (code, _, stderr) = output(&mut command);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains("OILSKIN_LISTEN and service.admin (OILSKIN_ADMIN_LISTEN)"), "{stderr}");
    }
}

#[test]
fn dev_listens_on_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in
        [("OILSKIN_LISTEN", "0.0.0.0:0"), ("OILSKIN_LISTEN", ":0"), ("OILSKIN_METRICS_LISTEN", "[::]:0")]
    {
        let mut command = tools::oilskin();
        command.args(["dev", "--demo", "127.0.0.1:0", "--dir"]).arg(folder.path()).envs(NO_SERVICE).env(name, value);
        let (code, _, stderr) = output(&mut command);
        assert_eq!(code, 1, "{name}={value}");
        assert!(stderr.contains("loopback"), "{stderr}");
    }
    let (code, _, stderr) = output(tools::oilskin().args(["dev", "--demo", "0.0.0.0:0", "--dir"]).arg(folder.path()));
    assert!(code == 1 && stderr.contains("loopback"), "{stderr}");
}

#[test]
fn development_keys_do_not_start_production() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = tools::oilskin();
    dev.args(["dev", "--demo", "127.0.0.1:0", "--json", "--dir"])
        .arg(folder.path())
        .envs(NO_SERVICE)
        .env("OILSKIN_LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped());
    let mut child = Killed(dev.spawn().unwrap());
    lines_until(&mut BufReader::new(child.0.stdout.take().unwrap()), "listening");
    for word in [None, Some("check")] {
        let mut command = with_keys(folder.path());
        command.args(word).envs(NO_SERVICE).env("OILSKIN_LISTEN", "127.0.0.1:0");
        command.env("OILSKIN_UPSTREAM", "http://127.0.0.1:1").env("OILSKIN_FIELDS", "$.ssn");
        let (code, _, stderr) = output(&mut command);
        assert_eq!(code, 78, "{word:?}");
        assert!(stderr.contains("development"), "{stderr}");
    }
}

#[test]
fn all_mistakes_of_a_configuration_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("oilskin.yaml");
    std::fs::write(
        &file,
        "listeners:\n- {name: out, bind: \"127.0.0.1:99999\", direction: sideways}\nupstreams:\n  crm: {url: \"ftp://crm\", prtocol: h1}\n\
         routes:\n- name: customers\n  match: {listener: outt, path: \"/customers/{id}\"}\n  upstream: crmm\n  fields:\n  \
         - {select: \"$.a[-1]\"}\n  - {select: \"$.ssn\", mode: deterministik, pad: 0}\ntimeouts: {connect: 2parsecs}\n",
    )
    .unwrap();
    let (code, _, stderr) =
        output(tools::oilskin().arg("check").env("OILSKIN_CONFIG", &file).env("OILSKIN_WORKER", "2"));
    assert_eq!(code, 78, "{stderr}");
    for named in [
        "listeners[0].bind",
        "listeners[0].direction",
        "upstreams.crm.url",
        "prtocol is unknown; did you mean protocol?",
        "there is no listener outt",
        "there is no upstream crmm",
        "routes[0].fields[0].select",
        "routes[0].fields[1].mode",
        "routes[0].fields[1].pad",
        "timeouts.connect",
        "did you mean OILSKIN_WORKERS?",
    ] {
        assert!(stderr.contains(named), "{named} is not named:\n{stderr}");
    }
    assert!(stderr.contains("oilskin.yaml:2:"), "places are given:\n{stderr}");
    let (code, stdout, _) = output(tools::oilskin().args(["check", "--json"]).env("OILSKIN_CONFIG", &file));
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 78);
    assert!(document["problems"].as_array().unwrap().len() >= 10, "{document}");
}

#[test]
fn words_that_are_not_understood_are_exit_code_2_and_help_is_0() {
    assert_eq!(output(tools::oilskin().arg("frobnicate")).0, 2);
    assert_eq!(output(tools::oilskin().args(["keys", "init", "--alg", "rot13"])).0, 2);
    let (code, stdout, _) = output(tools::oilskin().arg("--help"));
    assert_eq!(code, 0);
    for command in ["dev", "check", "keys", "config"] {
        assert!(stdout.contains(command), "{stdout}");
    }
    let (code, stdout, _) = output(tools::oilskin().args(["config", "schema"]));
    assert_eq!(code, 0);
    assert_eq!(stdout.trim(), std::fs::read_to_string(tools::top().join("docs/config.schema.json")).unwrap().trim());
}

#[test]
fn keys_are_made_once_with_tight_permissions_and_listed_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = output(with_keys(folder.path()).args(["keys", "init"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("root.key") && stdout.contains("copy"), "{stdout}");
    for (file, mode) in [("root.key", 0o600), ("keys/default.json", 0o600), ("keys", 0o700)] {
        let found = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    let before = std::fs::read(folder.path().join("keys/default.json")).unwrap();
    let (code, _, stderr) = output(with_keys(folder.path()).args(["keys", "init"]));
    assert!(code == 1 && stderr.contains("default"), "{stderr}");
    assert_eq!(output(with_keys(folder.path()).args(["keys", "init", "--if-missing"])).0, 0);
    assert_eq!(std::fs::read(folder.path().join("keys/default.json")).unwrap(), before);
    assert_eq!(output(with_keys(folder.path()).args(["keys", "init", "--name", "cards", "--alg", "aegis-256"])).0, 0);
    let (_, stdout, _) = output(with_keys(folder.path()).args(["keys", "list"]));
    assert!(stdout.contains("cards") && stdout.contains("default") && stdout.contains("aegis-256"), "{stdout}");
    let (_, stdout, _) = output(with_keys(folder.path()).args(["keys", "list", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(listed[0]["name"], "cards");
    assert!(!stdout.contains("wrapped") && !stdout.contains("sealed"), "{stdout}");
    // A root that went missing is not silently replaced by a new one.
    std::fs::remove_file(folder.path().join("root.key")).unwrap();
    let (code, _, stderr) = output(with_keys(folder.path()).args(["keys", "init", "--name", "more"]));
    assert!(code == 1 && stderr.contains("put that one back"), "{stderr}");
}

#[test]
fn a_root_key_that_others_may_read_is_refused() {
    let keys = Keys::new();
    let root = keys.folder().join("root.key");
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = with_keys(keys.folder());
    command.arg("check").env("OILSKIN_UPSTREAM", "http://127.0.0.1:1").env("OILSKIN_FIELDS", "$.ssn");
    let (code, _, stderr) = output(&mut command);
    assert_eq!(code, 78);
    assert!(stderr.contains("root.key") && stderr.contains("600"), "{stderr}");
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let upstream = Upstream::echo();
    let keys = Keys::new();
    let (_first, address) = running(&upstream, &keys);
    let mut second = with_keys(keys.folder());
    second.envs(NO_SERVICE).env("OILSKIN_LISTEN", address.to_string()).env("OILSKIN_UPSTREAM", upstream.url());
    let (code, _, stderr) = output(&mut second);
    assert_eq!(code, 1);
    assert!(stderr.contains(&address.to_string()), "{stderr}");
}

#[test]
fn killed_at_any_moment_the_store_keeps_what_was_acknowledged_and_holds_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let keyset = |name: &str| {
        let mut command = with_keys(folder.path());
        command.args(["keys", "init", "--name", name]);
        command
    };
    let started = std::time::Instant::now();
    assert_eq!(output(&mut keyset("first")).0, 0);
    let whole = started.elapsed();
    let mut acknowledged = vec!["first".to_owned()];
    let mut killed = 0;
    for round in 0..60_u32 {
        let name = format!("k{round}");
        let mut child = keyset(&name).stdout(Stdio::piped()).spawn().unwrap();
        // Every sixtieth of one run's length, so that kills fall before, into and after the write.
        tools::pause(whole * round / 50);
        child.kill().unwrap();
        let said = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
        let status = child.wait().unwrap();
        if said.contains("made keyset") {
            acknowledged.push(name);
        }
        killed += u32::from(!status.success());
    }
    assert!(killed >= 10, "only {killed} of 60 were killed in time");
    let (code, stdout, stderr) = output(with_keys(folder.path()).args(["keys", "list", "--json"]));
    assert_eq!(code, 0, "{stderr}");
    let listed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|keyset| keyset["name"].as_str().unwrap()).collect();
    for name in &acknowledged {
        assert!(names.contains(&name.as_str()), "{name} was acknowledged");
    }
    // Each document that is there opens whole: `check` with a rule for each reads them all.
    let rules: String = names.iter().map(|name| format!("  - {{select: \"$.{name}\", keyset: {name}}}\n")).collect();
    let yaml = format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"http://127.0.0.1:1\"}}}}\nroutes:\n\
         - name: all\n  match: {{listener: out, path: \"/{{*rest}}\"}}\n  upstream: up\n  fields:\n{rules}"
    );
    let (code, _, stderr) = output(with_keys(folder.path()).arg("check").env("OILSKIN_CONFIG_YAML", yaml));
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn killed_while_it_makes_a_root_key_it_leaves_a_whole_one_or_none() {
    let mut whole = Duration::from_millis(40);
    for round in 0..40_u32 {
        let folder = tempfile::tempdir().unwrap();
        let started = std::time::Instant::now();
        let mut child = with_keys(folder.path()).args(["keys", "init"]).stdout(Stdio::null()).spawn().unwrap();
        if round == 0 {
            child.wait().unwrap();
            whole = started.elapsed();
            continue;
        }
        tools::pause(whole * round / 36);
        let _ = child.kill();
        child.wait().unwrap();
        if let Ok(root) = std::fs::read(folder.path().join("root.key")) {
            assert_eq!(root.len(), 32);
        }
        // Whatever it left, the same command again ends well.
        let (code, _, stderr) = output(with_keys(folder.path()).args(["keys", "init", "--if-missing"]));
        assert_eq!(code, 0, "{stderr}");
    }
}

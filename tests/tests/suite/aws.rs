//! Root keys in KMS, keysets in Secrets Manager.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oilskin_crypto::document;
use oilskin_tests::aws::{Aws, Front};
use oilskin_tests::client;
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::replicas;
use oilskin_tests::{Upstream, tools};
use serde_json::{Value, json};

pub(super) const STORE: &str = "awssm:prod/oilskin-{keyset}";
pub(super) const SECRET: &str = "prod/oilskin-default";

pub(super) struct Bench {
    pub(super) keys: Keys,
    pub(super) aws: Aws,
    pub(super) root: String,
}

impl Bench {
    /// The key is named by its alias.
    pub(super) fn new() -> Self {
        let aws = Aws::start();
        aws.key("root");
        Self { keys: Keys::new(), aws, root: "awskms:///alias/root".to_owned() }
    }

    pub(super) fn made() -> Self {
        let bench = Self::new();
        bench.well(&["init"]);
        bench
    }

    pub(super) fn command(&self) -> Command {
        let mut command = process::command(&self.keys);
        command.env("OILSKIN_ROOT_KEY", &self.root).env("OILSKIN_KEY_STORE", STORE).envs(self.aws.vars());
        // No profile of whoever runs the tests.
        command.env("HOME", self.keys.folder());
        command.env("OILSKIN_KEY_REFRESH", "1s").env("OILSKIN_KEY_ROOT_CHECK", "1s");
        command
    }

    pub(super) fn keys(&self, words: &[&str]) -> (Option<i32>, String) {
        ended(self.command().arg("keys").args(words))
    }

    pub(super) fn well(&self, words: &[&str]) -> String {
        let (code, said) = self.keys(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    }

    pub(super) fn start(&self) -> Process {
        let upstream = Upstream::echo();
        Process::start_as(self.command(), &[("OILSKIN_UPSTREAM", &upstream.url()), ("OILSKIN_FIELDS", "$.ssn")])
    }

    pub(super) fn document(&self) -> document::Document {
        document::read(self.aws.secret(SECRET).as_bytes(), "default").unwrap()
    }
}

pub(super) fn ended(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

pub(super) fn ask(process: &Process) -> u16 {
    client::json(process.address(), "POST", "/", r#"{"ssn":"123"}"#).status()
}

pub(super) fn serving(process: &Process) {
    tools::until("keys", || (ask(process) == 200).then_some(()));
}

#[test]
fn a_keyset_lives_under_a_key_of_kms_in_a_secret() {
    let bench = Bench::made();
    assert_eq!(bench.keys(&["init"]).0, Some(1), "it is there already");
    for name in ["a", "b", "c.d"] {
        bench.well(&["init", "--name", name]);
    }
    bench.aws.secrets("CreateSecret", &json!({"Name": "prod/other", "SecretString": "not ours"}));
    let said = bench.well(&["list"]);
    for name in ["default  epoch 1", "a  epoch 1", "b  epoch 1", "c.d  epoch 1"] {
        assert!(said.contains(name) && !said.contains("other"), "{name}: {said}");
    }
    let process = bench.start();
    serving(&process);
    let said = bench.well(&["rotate"]);
    assert!(said.contains("epoch 3"), "{said}");
    tools::until("the new epoch", || {
        process.metrics_page().contains("oilskin_keyset_epoch{keyset=\"default\"} 3").then_some(())
    });
    assert_eq!(ask(&process), 200);
    assert_eq!(bench.aws.stages(SECRET), ["AWSCURRENT", "AWSPREVIOUS"], "no stage of a writer stays");
    let page = process.metrics_page();
    for calls in ["provider=\"awskms\",op=\"unwrap\",result=\"ok\"", "provider=\"awssm\",op=\"read\",result=\"ok\""] {
        assert!(page.contains(calls), "{page}");
    }
    // A check a second; refreshes come a tenth early.
    process.logged(|line| line.contains("about 86400 calls a day") && line.contains("awskms"));
    process.logged(|line| line.contains("about 96000 calls a day") && line.contains("awssm"));
    let retired = bench.document().versions.iter().find(|version| version.state == document::State::Retired).cloned();
    let retired: String = retired.unwrap().key_id[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let said = bench.well(&["destroy", &retired, "--yes", "--force"]);
    assert!(said.contains("Not shredded") && said.contains("until AWS deletes them"), "{said}");
    assert_eq!(bench.aws.stages(SECRET), ["AWSCURRENT"], "earlier documents lose their stages");
    serving(&process);
}

/// Row E7: the document does not choose the key, and what a key wrapped elsewhere it opens nowhere else.
#[test]
fn kms_is_told_which_key_and_which_place_with_every_call() {
    let bench = Bench::made();
    bench.well(&["init", "--name", "other"]);
    let arn = bench.document().roots[0].id.clone();
    let arn = String::from_utf8(arn).unwrap();
    assert!(arn.starts_with("arn:aws:kms:") && arn.contains(":key/"), "{arn}");
    bench.well(&["export"]);
    let calls = [bench.aws.seen("Encrypt"), bench.aws.seen("Decrypt")].concat();
    assert!(calls.len() >= 2, "{}", calls.len());
    for call in &calls {
        let call: Value = serde_json::from_slice(&call.body).unwrap();
        let key = call["KeyId"].as_str().unwrap();
        assert!(key == arn || key == "alias/root", "{key}");
        assert_eq!(
            (&call["EncryptionContext"]["oilskin:share"], &call["EncryptionContext"]["oilskin:k"]),
            (&json!("1"), &json!("1"))
        );
        assert!(["default", "other"].contains(&call["EncryptionContext"]["oilskin:keyset"].as_str().unwrap()));
    }
    // The share of another keyset in the place of this one's.
    let process = bench.start();
    serving(&process);
    let (ours, other) = (bench.aws.secret(SECRET), bench.aws.secret("prod/oilskin-other"));
    let wrapped = |text: &str| -> Value {
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        line["roots"][0]["wrapped"].clone()
    };
    let swapped = ours.replace(wrapped(&ours).as_str().unwrap(), wrapped(&other).as_str().unwrap());
    assert_ne!(swapped, ours);
    bench.aws.secrets("PutSecretValue", &json!({"SecretId": SECRET, "SecretString": swapped}));
    process.logged(|line| line.contains("the key does not open it"));
    assert_eq!(ask(&process), 200, "the last good one serves");
    let (code, said) = bench.keys(&["rotate"]);
    assert!(code == Some(1) && said.contains("wrapped by another key, or for another keyset"), "{said}");
    bench.aws.secrets("PutSecretValue", &json!({"SecretId": SECRET, "SecretString": ours}));
    process.logged(|line| line.contains("keys are refreshed again"));
}

#[test]
fn however_a_key_is_named_it_is_one_key_and_two_are_two() {
    let mut bench = Bench::made();
    let arn = String::from_utf8(bench.document().roots[0].id.clone()).unwrap();
    let id = arn.rsplit('/').next().unwrap().to_owned();
    let alias_arn = format!("{}alias/root", arn.split("key/").next().unwrap());
    for name in [arn, id, alias_arn] {
        bench.root = format!("awskms:///{name}");
        bench.well(&["rewrap"]);
        let process = bench.start();
        serving(&process);
    }
    // A key that wraps nothing here.
    bench.aws.key("stranger");
    bench.root = "awskms:///alias/stranger".to_owned();
    let (code, said) = bench.keys(&["rotate"]);
    assert!(code == Some(1) && said.contains("alias/stranger"), "{said}");
    // Both by an alias: each finds its own share.
    bench.root = "awskms:///alias/root".to_owned();
    let both = "awskms:///alias/root awskms:///alias/stranger";
    bench.well(&["rewrap", "--roots", both, "--hold", "all"]);
    bench.root = both.to_owned();
    let mut command = bench.command();
    command.env("OILSKIN_ROOT_HOLD", "all").args(["keys", "rewrap"]);
    let (code, said) = ended(&mut command);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(bench.document().roots.len(), 2);
    assert_ne!(bench.document().roots[0].id, bench.document().roots[1].id);
}

#[test]
fn a_key_that_is_disabled_or_to_be_deleted_takes_the_data_keys_until_it_is_back() {
    let bench = Bench::made();
    let process = bench.start();
    serving(&process);
    let key = json!({"KeyId": String::from_utf8(bench.document().roots[0].id.clone()).unwrap()});
    let cases = [
        ("DisableKey", vec!["EnableKey"], "the key is disabled"),
        ("ScheduleKeyDeletion", vec!["CancelKeyDeletion", "EnableKey"], "the key is to be deleted"),
    ];
    for (denied, (call, back, said)) in (1..).zip(cases) {
        let answer = bench.aws.kms(call, &key);
        assert!(answer["refused"].is_null(), "{answer}");
        process.logged(|line| line.contains(said));
        tools::until("the second no", || {
            (process.log().iter().filter(|line| line.contains("denied twice")).count() == denied).then_some(())
        });
        assert_eq!(ask(&process), 503);
        assert_eq!(client::json(process.health, "GET", "/live", "").status(), 200);
        for call in back {
            bench.aws.kms(call, &key);
        }
        serving(&process);
    }
}

/// Nothing of this says anything of the key: it is not dropped.
#[test]
fn throttling_expired_credentials_and_silence_are_waited_for() {
    let bench = Bench::made();
    bench.aws.front(Front::Gone);
    let process = bench.start();
    process.logged(|line| line.contains("it cannot be reached"));
    assert_eq!(ask(&process), 503);
    assert_eq!(client::json(process.health, "GET", "/live", "").status(), 200);
    bench.aws.front(Front::Open);
    serving(&process);
    for (code, said) in [
        ("ThrottlingException", "AWS throttles"),
        ("ExpiredTokenException", "the credentials have expired"),
        ("UnrecognizedClientException", "AWS does not know these credentials"),
        ("InternalFailure", "AWS answers InternalFailure"),
    ] {
        bench.aws.front(Front::Refuse(code, usize::MAX));
        process.logged(|line| line.contains(said));
        assert_eq!(ask(&process), 200, "{code}");
        bench.aws.front(Front::Open);
    }
    bench.aws.front(Front::Gone);
    tools::pause(Duration::from_secs(3));
    assert_eq!(ask(&process), 200);
    assert!(!process.log().iter().any(|line| line.contains("denied twice") || line.contains("secret-of-a-test")));
    bench.aws.front(Front::Open);
    // One that is over before the attempts are is not noticed at all.
    bench.aws.front(Front::Refuse("ThrottlingException", 2));
    bench.well(&["export"]);
    assert_eq!(bench.aws.does(), Front::Open);
}

#[test]
fn of_two_writers_at_once_both_get_their_turn_and_nothing_is_lost() {
    let bench = Bench::made();
    for round in 1..=20 {
        let children: Vec<_> = (0..2).map(|_| bench.command().args(["keys", "rewrap"]).spawn().unwrap()).collect();
        for child in children {
            assert!(child.wait_with_output().unwrap().status.success(), "round {round}");
        }
        assert_eq!(bench.document().epoch, 1 + 2 * round, "each wrote upon the other's document");
    }
    assert!(!bench.aws.stages(SECRET).iter().any(|stage| stage.starts_with("oilskin-")));
}

#[test]
fn who_may_only_read_keeps_its_keys_and_is_told_how_to_go_on() {
    let bench = Bench::made();
    let process = bench.start();
    serving(&process);
    bench.aws.front(Front::Deny("PutSecretValue"));
    let (code, said) = bench.keys(&["rotate"]);
    assert!(code == Some(1) && said.contains("AWS denies it") && said.contains("--out FILE"), "{said}");
    assert_eq!(bench.document().epoch, 1);
    let out = bench.keys.folder().join("next.json");
    bench.well(&["rotate", "--out", out.to_str().unwrap()]);
    assert_eq!(ask(&process), 200);
    // Who may not read is denied.
    bench.aws.front(Front::Deny("GetSecretValue"));
    process.logged(|line| line.contains("denied twice"));
    assert_eq!(ask(&process), 503);
    bench.aws.front(Front::Open);
    serving(&process);
}

#[test]
fn what_is_missing_is_named() {
    let bench = Bench::made();
    for name in ["AWS_ACCESS_KEY_ID", "AWS_REGION"] {
        let mut command = bench.command();
        let (code, said) = ended(command.env_remove(name).args(["keys", "rotate"]));
        let wanted = if name == "AWS_REGION" { "set AWS_REGION" } else { "no AWS credentials were found" };
        assert!(code == Some(1) && said.contains(wanted), "{name}: {said}");
    }
    // Credentials may come later: a process that has none waits.
    let mut command = bench.command();
    command.env_remove("AWS_ACCESS_KEY_ID");
    let process =
        Process::start_as(command, &[("OILSKIN_UPSTREAM", "http://127.0.0.1:1"), ("OILSKIN_FIELDS", "$.ssn")]);
    process.logged(|line| line.contains("no AWS credentials were found"));
    assert_eq!(client::json(process.health, "GET", "/live", "").status(), 200);
    bench.aws.secrets("DeleteSecret", &json!({"SecretId": SECRET}));
    let (code, said) = bench.keys(&["rotate"]);
    assert!(code == Some(1) && said.contains("does not exist in the store"), "{said}");
}

/// Another implementation of the same services; of it no more than that everything is understood.
#[test]
fn moto_understands_every_call() {
    let mut bench = Bench { keys: Keys::new(), aws: Aws::moto(), root: String::new() };
    bench.root = format!("awskms:///{}", bench.aws.key("root"));
    bench.well(&["init"]);
    bench.well(&["rotate"]);
    bench.well(&["rewrap"]);
    assert!(bench.well(&["list"]).contains("default  epoch 4"));
}

#[test]
fn twenty_replicas_on_secrets_manager_read_one_anothers_tokens_while_keys_rotate() {
    twenty_replicas(Duration::from_secs(20));
}

#[test]
#[ignore = "ten minutes: `make soak`"]
fn twenty_replicas_on_secrets_manager_for_ten_minutes() {
    twenty_replicas(Duration::from_secs(600));
}

fn twenty_replicas(length: Duration) {
    let bench = Bench::new();
    let mut vars = bench.aws.vars();
    vars.push(("OILSKIN_ROOT_KEY".to_owned(), bench.keys.root_uri()));
    vars.push(("OILSKIN_KEY_STORE".to_owned(), STORE.to_owned()));
    let (code, said) = ended(bench.command().envs(vars.iter().cloned()).args(["keys", "init"]));
    assert_eq!(code, Some(0), "{said}");
    let run = replicas::run(Path::new(env!("CARGO_BIN_EXE_replica")), &vars, 17, 3, length);
    println!("{run:?}");
    let document = bench.document();
    let fields: Vec<_> = document.versions.iter().filter(|version| version.line == document::Line::Field).collect();
    let promoted = fields.iter().filter(|version| version.state != document::State::Pending).count() as u64;
    assert_eq!(document.epoch, 1 + 2 * (promoted - 1) + (fields.len() as u64 - promoted), "one winner each time");
    assert!(promoted >= 3 && run.read > 1_000, "{promoted} {run:?}");
}

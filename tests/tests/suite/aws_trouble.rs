//! What KMS, Secrets Manager and whoever stands between them and us may do wrong.

use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use oilskin_tests::aws::{self, Door, Front};
use oilskin_tests::aws_hostile::{CANARY, Harm};
use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::process::Process;
use oilskin_tests::{Nginx, Upstream, client, tools};
use serde_json::{Value, json};

use super::aws::{Bench, SECRET, ask, ended, serving};

/// A process behind a door of its own that gives its keys up after three seconds without an answer, and logs all it can.
fn behind(bench: &Bench, door: &Door) -> Process {
    let mut command = bench.command();
    command.envs(door.vars()).env("OILSKIN_KEY_STALE_ENCRYPT", "3s").env("OILSKIN_KEY_STALE_DECRYPT", "3s");
    command.env("OILSKIN_LOG", "trace,aws_smithy_runtime::client=trace");
    started(command)
}

fn started(command: Command) -> Process {
    let upstream = Upstream::echo();
    Process::start_as(command, &[("OILSKIN_UPSTREAM", &upstream.url()), ("OILSKIN_FIELDS", "$.ssn")])
}

/// What each harm is told as, and whether it says no about the key.
const HARMS: [(Harm, &str, &str); 13] = [
    (Harm::Error("403 Forbidden", "AccessDeniedException"), "AWS denies it", "denied"),
    (Harm::Error("400 Bad Request", "ThrottlingException"), "AWS throttles", "unreachable"),
    (Harm::Error("429 Too Many Requests", "TooManyRequestsException"), "AWS throttles", "unreachable"),
    (Harm::Error("500 Internal Server Error", "InternalFailure"), "AWS answers InternalFailure", "unreachable"),
    (Harm::Page("403 Forbidden"), "what answers is not AWS (HTTP 403)", "unreachable"),
    (Harm::Page("503 Service Unavailable"), "what answers is not AWS (HTTP 503)", "unreachable"),
    (Harm::Hang, "it does not answer in time", "unreachable"),
    (Harm::Drip, "it does not answer in time", "unreachable"),
    (Harm::Noise, "it cannot be reached", "unreachable"),
    (Harm::NoJson, "what answers is not AWS (HTTP 200)", "unreachable"),
    (Harm::Nothing, "its answer", "unreachable"),
    (Harm::Half, "its answer makes no sense", "unreachable"),
    (Harm::Endless, "its answer makes no sense", "unreachable"),
];

static STARTING: Mutex<()> = Mutex::new(());

/// Row E13: keys serve until their budget is over, then nothing passes; when the harm is over they come back by themselves.
fn survives(bench: &Bench, calls: &'static str, (harm, said, reason): (Harm, &str, &str)) {
    let door = bench.aws.another_door();
    // One after the other, so that none takes a port that another was to have.
    let starting = STARTING.lock();
    let process = behind(bench, &door);
    serving(&process);
    drop(starting);
    let before = process.peak_memory();
    door.front(Front::Harm(calls, harm));
    let reason = format!("\"reason\":\"{reason}\"");
    let troubles = || process.log().into_iter().filter(|line| line.contains("cannot refresh keys")).collect::<Vec<_>>();
    let is = |line: &String| line.contains(said) && line.contains(&reason);
    let told = (0..200).any(|_| {
        tools::pause(Duration::from_millis(100));
        troubles().iter().any(is)
    });
    assert!(told, "{calls} {harm:?}: {:?}", troubles());
    tools::until(&format!("{calls} {harm:?} to be refused"), || (ask(&process) == 503).then_some(()));
    assert_eq!(client::json(process.health, "GET", "/live", "").status(), 200);
    let grown = process.peak_memory() - before;
    assert!(grown < 48 << 20, "{calls} {harm:?}: {grown} bytes");
    door.front(Front::Open);
    serving(&process);
    let log = process.log();
    assert!(!log.iter().any(|line| line.contains(CANARY) || line.contains("secret-of-a-test")), "{calls} {harm:?}");
}

fn all_harms(calls: &'static str) {
    let bench = Bench::made();
    std::thread::scope(|scope| {
        for harm in HARMS {
            let bench = &bench;
            scope.spawn(move || survives(bench, calls, harm));
        }
    });
}

#[test]
fn whatever_kms_does_keys_are_given_up_in_time_and_come_back() {
    all_harms("TrentService");
}

#[test]
fn whatever_secrets_manager_does_keys_are_given_up_in_time_and_come_back() {
    all_harms("secretsmanager");
}

/// Deadlines lie within one another: of the last one nobody ever hears.
#[test]
fn a_write_that_hangs_is_told_by_whoever_waited_for_it() {
    let bench = Bench::made();
    for call in ["secretsmanager.PutSecretValue", "secretsmanager.UpdateSecretVersionStage"] {
        bench.aws.front(Front::Harm(call, Harm::Hang));
        let (code, said) = bench.keys(&["rewrap"]);
        assert!(code == Some(1) && said.contains("it does not answer in time"), "{call}: {said}");
        bench.aws.front(Front::Open);
    }
    bench.aws.front(Front::Harm("TrentService.Encrypt", Harm::Hang));
    let (code, said) = bench.keys(&["rewrap"]);
    assert!(code == Some(1) && said.contains("it does not answer in time"), "{said}");
    bench.aws.front(Front::Open);
    bench.well(&["rewrap"]);
}

/// Over TLS, as AWS is: an authority that nobody knows is not AWS, and a name that leads nowhere is an outage.
#[test]
fn a_certificate_of_a_stranger_and_a_name_that_is_gone_are_outages() {
    let bench = Bench::made();
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("server", &Wish::default());
    stranger.issue("server", &Wish::default());
    let (certificate, key) = (authority.path("served.pem"), authority.path("served.key"));
    let serve = |of: &Authority| {
        std::fs::copy(of.path("server.pem"), &certificate).unwrap();
        std::fs::copy(of.path("server.key"), &key).unwrap();
    };
    serve(&stranger);
    let mut nginx = Nginx::tls_before(bench.aws.address(), &certificate, &key);
    let url = format!("https://localhost:{}", nginx.address().port());
    let with = |url: &str| {
        let mut command = bench.command();
        command.envs(aws::endpoints(url)).env("SSL_CERT_FILE", authority.path("ca.pem"));
        started(command)
    };
    let seen = bench.aws.seen("").len();
    let process = with(&url);
    process.logged(|line| line.contains("it cannot be reached"));
    assert_eq!(ask(&process), 503);
    let nowhere = with("https://kms.nowhere.invalid");
    nowhere.logged(|line| line.contains("it cannot be reached"));
    assert_eq!(ask(&nowhere), 503);
    for process in [&process, &nowhere] {
        assert_eq!(client::json(process.health, "GET", "/live", "").status(), 200);
    }
    assert_eq!(bench.aws.seen("").len(), seen, "nothing was sent to a stranger");
    serve(&authority);
    nginx.again();
    serving(&process);
}

/// Row E7: whatever a document calls its root, only keys of the configuration are asked, and nobody else is called.
#[test]
fn a_document_that_names_another_root_makes_no_call() {
    let bench = &Bench::made();
    let arn = String::from_utf8(bench.document().roots[0].id.clone()).unwrap();
    let trap = Upstream::echo();
    let good = &bench.aws.secret(SECRET);
    let ids = [
        bench.aws.key("foreign"),
        arn.replace("us-east-1", "eu-west-1"),
        trap.url(),
        "alias/root".to_owned(),
        "/etc/passwd".to_owned(),
        "../../root".to_owned(),
        String::new(),
    ];
    std::thread::scope(|scope| {
        for (at, id) in ids.iter().enumerate() {
            for root in ["alias/root", &arn] {
                let secret = format!("{root}-{at}").replace([':', '/'], "-");
                scope.spawn(move || asks_its_own_root(bench, root, &secret, good, &with_root(good, id)));
            }
        }
    });
    assert_eq!(trap.connections(), 0);
}

/// The process and the command: each with a good document, then with a bad one, then with the good one.
fn asks_its_own_root(bench: &Bench, root: &str, secret: &str, good: &str, bad: &str) {
    bench.aws.secrets("CreateSecret", &json!({"Name": secret, "SecretString": good}));
    let put = |text: &str| bench.aws.secrets("PutSecretValue", &json!({"SecretId": secret, "SecretString": text}));
    let door = bench.aws.another_door();
    let command = || {
        let mut command = bench.command();
        command.envs(door.vars()).env("OILSKIN_ROOT_KEY", format!("awskms:///{root}"));
        command.env("OILSKIN_KEY_STORE", format!("awssm:{secret}"));
        command
    };
    let starting = STARTING.lock();
    let process = started(command());
    serving(&process);
    drop(starting);
    put(bad);
    process.logged(|line| line.contains("cannot refresh keys"));
    assert_eq!(ask(&process), 200, "{secret}: the last good one serves");
    let (code, said) = ended(command().args(["keys", "rewrap"]));
    assert_eq!(code, Some(1), "{secret}: {said}");
    put(good);
    process.logged(|line| line.contains("keys are refreshed again"));
    assert_eq!(ask(&process), 200);
    let arn = bench.document().roots[0].id.clone();
    for call in door.seen("").iter().filter(|call| call.header("x-amz-target").unwrap().starts_with("Trent")) {
        let call: Value = serde_json::from_slice(&call.body).unwrap();
        let key = call["KeyId"].as_str().unwrap();
        assert!(key.as_bytes() == arn || key == root, "{secret}: {key}");
    }
    // An alias is resolved once in a process, whatever comes: once by each of the two.
    assert!(door.seen("DescribeKey").len() <= 2, "{secret}");
}

fn with_root(document: &str, id: &str) -> String {
    let (line, rest) = document.split_once('\n').unwrap();
    let read: Value = serde_json::from_str(line).unwrap();
    let old = read["roots"][0]["id"].as_str().unwrap().to_owned();
    let new = line.replacen(&old, &BASE64_URL_SAFE_NO_PAD.encode(id), 1);
    assert_ne!(new, line);
    format!("{new}\n{rest}")
}

/// The new document is written: that earlier ones could not be removed is said, and fails nothing.
#[test]
fn earlier_documents_that_stay_are_told_and_the_change_is_made() {
    let bench = Bench::made();
    for (at, (front, why)) in (2..).zip([
        (Front::Deny("DescribeSecret"), "secretsmanager:DescribeSecret"),
        (Front::Harm("secretsmanager.DescribeSecret", Harm::Page("503 Service Unavailable")), "could not be removed"),
    ]) {
        bench.well(&["rotate"]);
        let retired = bench
            .document()
            .versions
            .iter()
            .rfind(|one| one.state == oilskin_crypto::document::State::Retired)
            .cloned();
        let retired: String = retired.unwrap().key_id[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        bench.aws.front(front);
        let said = bench.well(&["destroy", &retired, "--yes", "--force"]);
        assert!(said.contains("is destroyed") && said.contains("Not shredded") && said.contains(why), "{said}");
        bench.aws.front(Front::Open);
        assert_eq!(bench.document().epoch, 1 + 3 * (at - 1));
    }
    let said = bench.well(&["list"]);
    assert!(said.contains("destroyed"), "{said}");
    let stages = bench.aws.stages(SECRET);
    assert_eq!(stages, ["AWSCURRENT", "AWSPREVIOUS"], "what a denial left");
    bench.well(&["rewrap"]);
    assert_eq!(bench.aws.stages(SECRET), ["AWSCURRENT"], "the next one removes it");
}

/// A start's line is what its settings come to, and what the page says they come to by default. A keyset's own interval holds where
/// it is shorter.
#[test]
fn a_start_says_how_many_calls_its_settings_make_in_a_day() {
    let page = std::fs::read_to_string(tools::top().join("docs/keys.md")).unwrap();
    assert!(page.contains("about 1,600 reads of the secret and 288 decryptions"), "the page's numbers");
    let bench = Bench::new();
    let with = |refresh: &str, check: &str| {
        let mut command = bench.command();
        for (name, value) in [("OILSKIN_KEY_REFRESH", refresh), ("OILSKIN_KEY_ROOT_CHECK", check)] {
            match value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        command
    };
    let says = |refresh: &str, check: &str, reads: u64, unwrapped: u64| {
        let process = started(with(refresh, check));
        for (provider, calls) in [("awssm", reads), ("awskms", unwrapped)] {
            let line = process.logged(|line| line.contains("calls a day") && line.contains(provider));
            assert!(line.contains(&format!("about {calls} calls a day")), "{refresh} {check}: {line}");
        }
    };
    let init = |name: &str, refresh: &str| {
        let (code, said) = ended(with(refresh, "").args(["keys", "init", "--name", name]));
        assert_eq!(code, Some(0), "{said}");
    };
    // Nothing is there yet: it is looked for as often as is said here.
    says("5m", "30m", 320, 48);
    init("default", "");
    says("", "", 1_600, 288);
    says("10s", "1m", 9_600, 1_440);
    says("5m", "30m", 1_600, 48);
}

/// The line says what happens.
#[test]
fn a_process_calls_no_more_often_than_it_says() {
    let bench = Bench::made();
    let process = bench.start();
    serving(&process);
    // A refresh a second at most, a tenth early; a check of the root with each.
    let promised = |provider: &str| -> f64 {
        let line = process.logged(|line| line.contains("calls a day") && line.contains(provider));
        let (_, after) = line.split_once("about ").unwrap();
        after.split(' ').next().unwrap().parse::<f64>().unwrap() / 86_400.0
    };
    let promised = [("GetSecretValue", promised("awssm")), ("Decrypt", promised("awskms"))];
    let (before, begun) = (promised.map(|(call, _)| bench.aws.seen(call).len()), Instant::now());
    tools::pause(Duration::from_secs(5));
    let seconds = begun.elapsed().as_secs_f64();
    for ((call, rate), before) in promised.into_iter().zip(before) {
        let made = bench.aws.seen(call).len() - before;
        assert!(made >= 1 && (made as f64) <= rate / 0.8 * seconds + 1.0, "{call}: {made} in {seconds} s");
    }
}

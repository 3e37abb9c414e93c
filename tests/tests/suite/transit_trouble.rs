//! Vault as what holds the keys of fields, when it does not answer as it should. Every reply is right or a clean refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::client::json;
use oilskin_tests::hostile::{Hostile, Mood};
use oilskin_tests::process::Process;
use oilskin_tests::transit::{Bench, PII, is_ready, without_keys};
use oilskin_tests::vault::{Durable, ROOT};
use oilskin_tests::{Client, Nginx, Upstream, tools};

/// Longer than a message ever waits for Vault, and shorter than what hangs here.
const DEADLINE: Duration = Duration::from_secs(8);

/// A sidecar with a protected route, and a plain one at `/plain`.
fn sidecar(address: &str, upstream: &Upstream) -> Process {
    let document = format!(
        "listeners: [{{name: out, bind: \"127.0.0.1:0\"}}]\nupstreams: {{a: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: plain, match: {{listener: out, path: /plain}}, upstream: a}}\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: a, fields: [{{select: \"$.ssn\", backend: \"{PII}\"}}, {{select: \"$.list[*]\", context: list, backend: \"{PII}\"}}]}}\n",
        upstream.url()
    );
    let mut command = without_keys();
    // Each worker finds out by itself that Vault is back.
    command.env("VAULT_ADDR", address).env("VAULT_TOKEN", ROOT).env("OILSKIN_WORKERS", "1");
    Process::start_as(command, &[("OILSKIN_CONFIG_YAML", &document)])
}

fn ask(process: &Process) -> (u16, String) {
    let begun = Instant::now();
    let answer = json(process.address(), "POST", "/x", r#"{"ssn":"s3cr3t"}"#);
    assert!(begun.elapsed() < DEADLINE, "an answer comes within its deadline");
    (answer.status(), answer.code())
}

fn answered(status: &str, fields: &str, body: &str) -> Mood {
    Mood::Says(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len()).into_bytes())
}

#[test]
fn however_badly_vault_behaves_fields_are_refused_in_time_and_it_is_found_again() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let hostile = Hostile::before(bench.vault.address());
    let process = sidecar(&format!("http://{}", hostile.address()), &upstream);
    tools::until("ready", || is_ready(&process).then_some(()));
    let results = "{\"data\":{\"batch_results\":[{\"ciphertext\":\"vault:v1:\\\"}, evil\"}]}}";
    let moods = [
        ("vault_sealed", answered("503 Service Unavailable", "", "{\"errors\":[\"Vault is sealed\"]}")),
        ("vault_standby", answered("473 Standby", "", "{}")),
        ("vault_standby", answered("412 Precondition Failed", "", "{}")),
        ("vault_denied", answered("403 Forbidden", "", "{\"errors\":[\"permission denied\"]}")),
        ("vault_throttled", answered("429 Too Many Requests", "Retry-After: 1\r\n", "{}")),
        ("vault_failed", answered("500 Internal Server Error", "", "{\"errors\":[\"hvs.secret\"]}")),
        ("vault_standby", answered("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", "")),
        ("vault_malformed", answered("200 OK", "", "no JSON")),
        ("vault_malformed", answered("200 OK", "", "{\"data\":{\"batch_results\":[]}}")),
        ("vault_malformed", answered("200 OK", "", results)),
        ("vault_timeout", Mood::Stops(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec())),
        ("vault_timeout", Mood::Stops(Vec::new())),
        ("vault_timeout", Mood::Drips),
        ("vault_unreachable", Mood::Floods),
        ("vault_unreachable", Mood::Throws(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
        ("vault_timeout", Mood::Dead),
    ];
    for (reason, mood) in moods {
        let (seen, lines) = (upstream.seen().len(), process.log().len());
        hostile.turn(mood.clone());
        assert_eq!(ask(&process), (503, "key_unavailable".to_owned()), "{mood:?}");
        tools::until(reason, || process.log().iter().skip(lines).any(|line| line.contains(reason)).then_some(()));
        assert_eq!(upstream.seen().len(), seen, "{mood:?}: nothing passes");
        // What does not need Vault is served.
        assert_eq!(json(process.address(), "POST", "/plain", r#"{"ssn":"123"}"#).status(), 200);
        hostile.turn(Mood::Good);
        tools::until("Vault again", || (ask(&process).0 == 200).then_some(()));
    }
    assert!(!process.log().iter().any(|line| line.contains("hvs.secret") || line.contains("s3cr3t")));
    let peak = process.peak_memory();
    assert!(peak < 200 << 20, "{} MB", peak >> 20);
}

#[test]
fn a_vault_whose_name_or_certificate_is_wrong_is_never_given_anything() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    for (address, why) in
        [("http://vault.invalid:8200", "cannot be reached"), (&bench.vault.tls_url(), "cannot be reached")]
    {
        let process = sidecar(address, &upstream);
        tools::until("what is wrong", || process.ready().contains(why).then_some(()));
        assert_eq!(ask(&process), (503, "key_unavailable".to_owned()));
        assert_eq!(json(process.health, "GET", "/live", "").status(), 200);
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn the_next_address_is_asked_where_the_first_does_not_answer() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let first = Hostile::before(bench.vault.address());
    let process = sidecar(&format!("http://{},{}", first.address(), bench.vault.url()), &upstream);
    tools::until("ready", || is_ready(&process).then_some(()));
    for mood in [Mood::Throws(Vec::new()), answered("503 Service Unavailable", "", "{}")] {
        first.turn(mood);
        for _ in 0..5 {
            assert_eq!(ask(&process).0, 200);
        }
    }
}

#[test]
fn hundreds_who_wait_for_a_vault_that_hangs_are_all_refused_and_leave_nothing_behind() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let hostile = Hostile::before(bench.vault.address());
    let process = sidecar(&format!("http://{}", hostile.address()), &upstream);
    tools::until("ready", || is_ready(&process).then_some(()));
    ask(&process);
    let before = process.open_files();
    hostile.turn(Mood::Stops(Vec::new()));
    let address = process.address();
    let clients: Vec<_> = (0..200)
        .map(|at| {
            thread::spawn(move || {
                let mut client = Client::connect(address);
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"ssn\":\"123\"}");
                // Some leave before there is an answer.
                (at % 4 > 0).then(|| client.response("POST").status())
            })
        })
        .collect();
    let statuses: Vec<_> = clients.into_iter().filter_map(|client| client.join().unwrap()).collect();
    assert_eq!((statuses.len(), statuses.iter().all(|status| *status == 503)), (150, true), "{statuses:?}");
    hostile.turn(Mood::Good);
    tools::until("Vault again", || (ask(&process).0 == 200).then_some(()));
    tools::until("connections to be closed", || (process.open_files() <= before + 8).then_some(()));
}

/// What waits is bounded: who comes when it is full is told to come back, and the rest is as it was.
#[test]
fn who_comes_while_too_much_waits_for_vault_is_turned_away() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let hostile = Hostile::before(bench.vault.address());
    let process = sidecar(&format!("http://{}", hostile.address()), &upstream);
    tools::until("ready", || is_ready(&process).then_some(()));
    hostile.turn(Mood::Stops(Vec::new()));
    let body = format!("{{\"list\":[{}]}}", vec!["\"s3cr3t\""; 240].join(","));
    let address = process.address();
    let clients: Vec<_> = (0..120)
        .map(|_| {
            let body = body.clone();
            thread::spawn(move || {
                let answer = json(address, "POST", "/x", &body);
                (answer.status(), answer.code())
            })
        })
        .collect();
    let answers: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
    let turned_away = answers.iter().filter(|(_, code)| code == "overloaded").count();
    assert!((1..120).contains(&turned_away), "{turned_away} of 120");
    assert_eq!(answers.iter().filter(|(_, code)| code == "key_unavailable").count(), 120 - turned_away);
    assert!(upstream.seen().is_empty(), "nothing passes");
    assert_eq!(json(address, "POST", "/plain", &body).status(), 200);
    hostile.turn(Mood::Good);
    tools::until("Vault again", || (json(address, "POST", "/x", &body).status() == 200).then_some(()));
}

/// A cluster of OpenBao's: its standby decrypts, for which it needs to know what was written before, and its active one writes.
#[test]
fn a_standby_decrypts_from_after_what_was_written_and_is_not_missed() {
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    let active = Durable::start(&authority);
    active.transit_with("pii", "derived=true");
    let mut standby = active.standby(&authority);
    let (first, second) = (Nginx::before(active.address()), Nginx::before(standby.address()));
    let upstream = Upstream::echo();
    let mut command = without_keys();
    command.env("VAULT_ADDR", format!("http://{},http://{}", first.address(), second.address()));
    command.env("VAULT_TOKEN", ROOT).env("OILSKIN_VAULT_STANDBY_READS", "true").env("OILSKIN_WORKERS", "1");
    let vars = [("OILSKIN_UPSTREAM", upstream.url()), ("OILSKIN_FIELDS", "$.ssn".to_owned())];
    let vars = vars.each_ref().map(|(name, value)| (*name, value.as_str()));
    let process = Process::start_as(command, &[&vars[..], &[("OILSKIN_BACKEND", PII)]].concat());
    tools::until("ready", || is_ready(&process).then_some(()));
    for _ in 0..20 {
        // Written to the one, read from the other at once.
        assert_eq!(ask(&process).0, 200);
    }
    let count = |log: String, call: &str| log.lines().filter(|line| line.contains(call)).count();
    let (encrypt, decrypt) = ("POST /v1/transit/encrypt/pii", "POST /v1/transit/decrypt/pii");
    assert_eq!((count(first.requests(), encrypt), count(first.requests(), decrypt)), (20, 0));
    assert_eq!((count(second.requests(), encrypt), count(second.requests(), decrypt)), (0, 20));
    assert_eq!(count(second.indexed(), decrypt), 20, "each names the state that it needs");
    standby.kill();
    for _ in 0..20 {
        assert_eq!(ask(&process).0, 200);
    }
    assert_eq!(count(first.requests(), decrypt), 20);
}

/// `seconds` of load on a Vault that is killed every five, from which each reply is right or a clean refusal.
fn killed_again_and_again(seconds: u64) {
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    let mut vault = Durable::start(&authority);
    vault.transit_with("pii", "derived=true");
    let upstream = Upstream::echo();
    let process = sidecar(&vault.url(), &upstream);
    tools::until("ready", || is_ready(&process).then_some(()));
    let (address, over) = (process.address(), Arc::new(AtomicBool::new(false)));
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let clients: Vec<_> = (0..8)
        .map(|at| {
            let (over, counts) = (Arc::clone(&over), Arc::clone(&counts));
            thread::spawn(move || {
                let mut client = Client::connect(address);
                for turn in 0.. {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let body = format!("{{\"ssn\":\"{at}.{turn}\"}}");
                    let begun = Instant::now();
                    let answer = client.request("POST", "/", &[("Content-Type", "application/json")], body.as_bytes());
                    assert!(begun.elapsed() < DEADLINE);
                    match answer.status() {
                        200 => assert_eq!(answer.text(), body),
                        503 => assert_eq!(answer.code(), "key_unavailable"),
                        _ => panic!("{}", answer.head),
                    }
                    counts[usize::from(answer.status() == 503)].fetch_add(1, Ordering::SeqCst);
                    tools::pause(Duration::from_millis(5));
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let mut memory = Vec::new();
    while begun.elapsed() < Duration::from_secs(seconds) {
        tools::pause(Duration::from_secs(4));
        vault.kill();
        tools::pause(Duration::from_secs(1));
        vault.up();
        tools::until("fields again", || (ask(&process).0 == 200).then_some(()));
        memory.push(process.memory());
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().unwrap();
    }
    let [right, refused] = [0, 1].map(|at: usize| counts[at].load(Ordering::SeqCst));
    assert!(right > 100 && refused > 0, "{right} right, {refused} refused");
    let (first, last) = (memory[0], *memory.last().unwrap());
    assert!(last < first + (16 << 20), "memory stays: {memory:?}");
    println!("{right} right, {refused} refused, {} MB", last >> 20);
}

#[test]
fn a_vault_that_is_killed_every_five_seconds_costs_refusals_and_nothing_else() {
    killed_again_and_again(30);
}

#[test]
#[ignore = "two minutes: `make soak`"]
fn two_minutes_of_a_vault_that_is_killed_every_five_seconds() {
    killed_again_and_again(120);
}

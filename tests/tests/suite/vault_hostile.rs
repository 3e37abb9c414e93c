//! An address of Vault's that answers in every wrong way there is, and then as it should (row E13 of the attack catalogue): keys serve
//! on, nothing of what was said is kept, and what is good again is found again without a restart.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::hostile::{Hostile, Mood};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::vault::ROOT;
use oilskin_tests::{Nginx, Upstream, tools};

use super::vault_keys::{Bench, REPLICA, ask, start, until_serving};

/// In bodies and fields of answers, and nowhere else.
const CANARY: &str = "canary-of-a-body";

/// More than anything here may hold: an answer is read up to 16 MiB.
const MEMORY: u64 = 150 << 20;

/// Refreshes that may still fail once Vault is good again: the one that is under way, and those of a connection that nobody ended.
const MORE: u64 = 3;

/// Cases that run at once.
const AT_ONCE: usize = 4;

struct Case {
    name: &'static str,
    mood: Mood,
    /// What the log says of it.
    said: &'static str,
}

fn answer(status: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{fields}X-Said: {CANARY}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// As Vault says it, and with more in it than we are told by it.
fn vault(status: &'static str, said: &'static str, fields: &str) -> Mood {
    let body = format!("{{\"errors\":[\"{said}\"],\"data\":{{\"x\":\"{CANARY}\"}},\"warnings\":[\"{CANARY}\"]}}");
    Mood::Says(answer(status, &format!("Content-Type: application/json\r\n{fields}"), &body))
}

/// As a proxy, a firewall or a load balancer says it.
fn page(status: &'static str, fields: &str) -> Mood {
    let body = format!("<html><h1>{status}</h1>{CANARY}</html>");
    Mood::Says(answer(status, &format!("Content-Type: text/html\r\n{fields}"), &body))
}

fn cases(other: SocketAddr) -> Vec<Case> {
    let away = format!("Location: http://{other}/v1/stolen\r\n");
    let good = format!("{{\"data\":{{\"data\":{{\"keyset.json\":\"{CANARY}\"}},\"x\":\"{CANARY}\"}}}}");
    let case = |name, mood, said| Case { name, mood, said };
    vec![
        case("sealed", vault("503 Service Unavailable", "Vault is sealed", ""), "Vault is sealed"),
        case("in maintenance", page("503 Service Unavailable", ""), "in maintenance"),
        case("a standby", vault("473 Performance Standby", "", ""), "standby"),
        case("a standby that sends on", page("307 Temporary Redirect", &away), "standby"),
        case("elsewhere", page("301 Moved Permanently", &away), "no Vault"),
        case("spared", vault("429 Too Many Requests", "slow down", "Retry-After: 86400\r\n"), "asks to be spared"),
        // To every call, logins, too: the token has ended, it seems, and no other is to be had.
        case("denied", vault("403 Forbidden", "permission denied", ""), "has ended before its time"),
        case("a firewall", page("403 Forbidden", ""), "something between here and Vault answers 403"),
        case("who are you", page("401 Unauthorized", "WWW-Authenticate: Basic\r\n"), "answers 401"),
        case("a proxy", page("407 Proxy Authentication Required", "Proxy-Authenticate: Basic\r\n"), "answers 407"),
        case("late", page("408 Request Timeout", ""), "answers 408"),
        case("failed", vault("500 Internal Server Error", "1 error occurred", ""), "Vault has failed (500)"),
        case("no way there", page("502 Bad Gateway", ""), "Vault has failed (502)"),
        case("nothing known", page("404 Not Found", ""), "answers 404"),
        case("a good answer of nothing", Mood::Says(answer("204 No Content", "", "")), "no Vault"),
        case("a good answer of another", Mood::Says(answer("200 OK", "", &good)), "no Vault"),
        case("a page", page("200 OK", ""), "no Vault"),
        case("silent", Mood::Stops(Vec::new()), "no answer within 2 s"),
        case("half a head", Mood::Stops(b"HTTP/1.1 200 OK\r\nContent-".to_vec()), "no answer within 2 s"),
        case("half a body", Mood::Stops(answer("200 OK", "Content-Length: 900\r\n", "")), "cannot be reached"),
        case("slow", Mood::Drips, "no answer within 2 s"),
        case("without end", Mood::Floods, "longer than"),
        case(
            "garbage",
            Mood::Throws(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 SSH-2.0\r\n\r\n".repeat(99)),
            "cannot be reached",
        ),
        case("closed", Mood::Throws(Vec::new()), "cannot be reached"),
        case("nobody listens", Mood::Elsewhere(process::free_port()), "cannot be reached"),
        case("dead", Mood::Dead, "no answer within 2 s"),
    ]
}

/// A document in Vault under a root in a file, and one in a folder under a root in Vault; both reach Vault by that address.
struct Both {
    in_vault: Keys,
    in_folder: Keys,
    vars: Vec<(String, String)>,
}

impl Both {
    fn new(bench: &Bench) -> Self {
        let this = Self { in_vault: Keys::new(), in_folder: Keys::empty(), vars: bench.role(REPLICA, ("1h", "2h")) };
        for mut command in [this.store(&bench.vault.url()), this.root(&bench.vault.url())] {
            // Who makes keys may more.
            for (name, _) in &this.vars {
                command.env_remove(name);
            }
            tools::run(command.args(["keys", "init"]).env("VAULT_TOKEN", ROOT));
        }
        this
    }

    fn common(&self, keys: &Keys, url: &str) -> Command {
        let mut command = process::command(keys);
        command.env("OILSKIN_KEY_REFRESH", "1s").env("OILSKIN_KEY_ROOT_CHECK", "1s").env("VAULT_ADDR", url);
        command.env("OILSKIN_LOG", "debug").envs(self.vars.iter().cloned());
        command
    }

    fn store(&self, url: &str) -> Command {
        let mut command = self.common(&self.in_vault, url);
        command.env("OILSKIN_KEY_STORE", "vault:secret/oilskin/{keyset}");
        command
    }

    fn root(&self, url: &str) -> Command {
        let mut command = self.common(&self.in_folder, url);
        command.env("OILSKIN_ROOT_KEY", "vault:transit/keys/root");
        command
    }
}

/// Refreshes that came to nothing.
fn failed(process: &Process) -> u64 {
    let page = process.metrics_page();
    let lines = page.lines().filter(|line| line.starts_with("oilskin_keyset_refreshes_total{"));
    let failed = lines.filter(|line| !line.contains("\"ok\""));
    failed.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn goes_wrong_and_comes_back(case: &Case, hostile: &Hostile, processes: &[Process]) {
    let name = case.name;
    let marks: Vec<usize> = processes.iter().map(|process| process.log().len()).collect();
    hostile.turn(case.mood.clone());
    for (process, mark) in processes.iter().zip(&marks) {
        tools::until(&format!("{name} in {:?}", &process.log()[*mark..]), || {
            assert_eq!(ask(process), 200, "{name}");
            let log = process.log();
            log[*mark..]
                .iter()
                .any(|line| line.contains("cannot refresh keys") && line.contains(case.said))
                .then_some(())
        });
    }
    // Longer than it takes to be denied twice.
    for _ in 0..24 {
        processes.iter().for_each(|process| assert_eq!(ask(process), 200, "{name}"));
        tools::pause(Duration::from_millis(500));
    }
    let before: Vec<u64> = processes.iter().map(failed).collect();
    let marks: Vec<usize> = processes.iter().map(|process| process.log().len()).collect();
    hostile.turn(Mood::Good);
    for ((process, before), mark) in processes.iter().zip(before).zip(marks) {
        tools::until(&format!("{name} to be over"), || {
            assert_eq!(ask(process), 200, "{name}");
            process.log()[mark..].iter().any(|line| line.contains("keys are refreshed again")).then_some(())
        });
        assert!(failed(process) <= before + MORE, "{name}: {before} {}", failed(process));
        assert!(process.peak_memory() < MEMORY, "{name}: {}", process.peak_memory());
        let log = process.log().join("\n");
        assert!(!log.contains(CANARY) && !log.contains("denied twice"), "{name}: {log}");
        assert!(process.ready().contains("true"), "{name}: {}", process.ready());
    }
}

#[test]
fn whatever_vault_s_address_answers_keys_serve_on_and_what_is_good_again_is_found_again() {
    let (bench, upstream, other) = (Bench::new(), Upstream::echo(), Upstream::echo());
    let both = Both::new(&bench);
    let cases = cases(other.address());
    for some in cases.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for case in some {
                scope.spawn(|| {
                    let hostile = Hostile::before(bench.vault.address());
                    let url = format!("http://{}", hostile.address());
                    let processes = [both.store(&url), both.root(&url)].map(|command| start(command, &upstream));
                    processes.iter().for_each(until_serving);
                    goes_wrong_and_comes_back(case, &hostile, &processes);
                });
            }
        });
    }
    // No token went where a redirect sent it.
    assert_eq!(other.connections(), 0);
}

/// Someone else's certificate, then none at all: nothing is said to who is not Vault.
#[test]
fn a_vault_whose_certificate_is_another_s_is_none() {
    let (bench, upstream, stranger) = (Bench::new(), Upstream::echo(), Authority::new());
    let own = bench.authority();
    own.issue("us", &Wish { names: "DNS:us", usage: "clientAuth", ..Wish::default() });
    stranger.issue("server", &Wish::default());
    own.issue("other", &Wish { names: "DNS:elsewhere.test", ..Wish::default() });
    let both = Both::new(&bench);
    let hostile = Hostile::before(bench.vault.tls_address());
    let url = format!("https://{}", hostile.address());
    let processes = [both.store(&url), both.root(&url)].map(|mut command| {
        let cert = [("VAULT_CACERT", "ca.pem"), ("VAULT_CLIENT_CERT", "us.pem"), ("VAULT_CLIENT_KEY", "us.key")];
        command.envs(cert.map(|(name, file)| (name, own.path(file)))).env("VAULT_TLS_SERVER_NAME", "localhost");
        start(command, &upstream)
    });
    processes.iter().for_each(until_serving);
    for (authority, name, said) in [(&stranger, "server", "UnknownIssuer"), (own, "other", "NotValidForName")] {
        let (pem, key) = (authority.path(&format!("{name}.pem")), authority.path(&format!("{name}.key")));
        let nginx = Nginx::tls_store("", &pem, &key);
        let case = Case { name, mood: Mood::Elsewhere(nginx.address()), said };
        goes_wrong_and_comes_back(&case, &hostile, &processes);
    }
    let case = Case { name: "clear text", mood: page("400 Bad Request", ""), said: "cannot be reached" };
    let thrown = match case.mood {
        Mood::Says(bytes) => Case { mood: Mood::Throws(bytes), ..case },
        _ => unreachable!(),
    };
    goes_wrong_and_comes_back(&thrown, &hostile, &processes);
}

/// A name that nobody resolves (RFC 6761): it is told, and the process lives, refuses, and ends when it is told to.
#[test]
fn a_vault_whose_name_is_gone_is_waited_for() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let both = Both::new(&bench);
    for command in [both.store("http://vault.invalid:8200"), both.root("http://vault.invalid:8200")] {
        let mut process = start(command, &upstream);
        process.logged(|line| line.contains("cannot refresh keys") && line.contains("no token of Vault's"));
        let refused = oilskin_tests::client::json(process.address(), "POST", "/", r#"{"ssn":"1"}"#);
        assert_eq!((refused.status(), refused.code().as_str()), (503, "key_unavailable"));
        assert_eq!(oilskin_tests::client::json(process.health, "GET", "/live", "").status(), 200);
        process.signal("TERM");
        assert_eq!(process.ended(), Some(0));
    }
    assert_eq!(upstream.connections(), 0);
}

//! Thousands of tenants, few of them hot: each has a keyset, and only those in use are held.

use oilskin_crypto::Cipher;
use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::{Client, Process, Upstream, tools};

fn document(upstream: &Upstream, keys: &str) -> String {
    format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, tenant: {{header: x-tenant}}, \
         fields: [{{select: $..ssn, keyset: \"t-{{tenant}}\"}}]}}\nkeys: {{{keys}}}\n",
        upstream.url()
    )
}

fn ask(client: &mut Client, tenant: &str) -> u16 {
    let fields = [("Content-Type", "application/json"), ("X-Tenant", tenant)];
    client.request("POST", "/", &fields, br#"{"ssn":"123"}"#).status()
}

/// 10,000 keysets, 1 % of them in use.
#[test]
fn of_ten_thousand_keysets_only_those_in_use_cost_something() {
    let (few, many, upstream) = (Keys::new(), Keys::new(), Upstream::echo());
    let started = |keys: &Keys| {
        let begun = std::time::Instant::now();
        let process = Process::start(keys, &[("OILSKIN_CONFIG_YAML", &document(&upstream, ""))]);
        (process, begun.elapsed())
    };
    few.add_many("t-", 100);
    many.add_many("t-", 10_000);
    let used = [&few, &many].map(|keys| {
        let (process, start) = started(keys);
        let mut client = Client::connect(process.address());
        for _ in 0..3 {
            for number in 0..100 {
                assert_eq!(ask(&mut client, &number.to_string()), 200, "{}", process.log().join("\n"));
            }
        }
        let held = process.metrics_page().lines().filter(|line| line.starts_with("oilskin_keyset_epoch{")).count();
        assert_eq!(held, 100);
        (process.memory(), start)
    });
    println!("{used:?}");
    let [(few, _), (many, _)] = used;
    assert!(many < few + (2 << 20), "{many} bytes with 10,000 keysets, {few} with 100");
}

#[test]
fn a_tenant_without_a_keyset_is_refused_and_found_once_it_has_one() {
    let (keys, upstream) = (Keys::new(), Upstream::echo());
    let process =
        Process::start(&keys, &[("OILSKIN_CONFIG_YAML", &document(&upstream, "refresh: 1s, root_check: 1s"))]);
    let mut client = Client::connect(process.address());
    for tenant in ["a", "../default", "A", "ü", &"x".repeat(200)] {
        let fields = [("Content-Type", "application/json"), ("X-Tenant", tenant)];
        let answer = client.request("POST", "/", &fields, br#"{"ssn":"123"}"#);
        assert_eq!((answer.status(), answer.code().as_str()), (503, "key_unavailable"), "{tenant}");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(json(process.health, "GET", "/ready", "").status(), 200, "tenants make nobody unready");
    keys.add("t-a", Cipher::Aegis256, false);
    tools::until("the tenant's keyset", || (ask(&mut client, "a") == 200).then_some(()));
    let log = process.log();
    assert!(!log.iter().any(|line| line.contains("t-a")), "whoever names tenants writes no log: {log:?}");
}

#[test]
fn the_keyset_that_was_not_used_for_longest_makes_room() {
    let (keys, upstream) = (Keys::new(), Upstream::echo());
    keys.add_many("t-", 20);
    let process = Process::start(&keys, &[("OILSKIN_CONFIG_YAML", &document(&upstream, "max_held: 5, idle: 2s"))]);
    let mut client = Client::connect(process.address());
    for _ in 0..3 {
        for number in 0..20 {
            assert_eq!(ask(&mut client, &number.to_string()), 200, "{number}");
        }
    }
    let held = || process.metrics_page().lines().filter(|line| line.starts_with("oilskin_keyset_epoch{")).count();
    assert!(held() <= 6, "{}", held());
    tools::until("all idle ones to be let go", || (held() == 0).then_some(()));
    assert_eq!(ask(&mut client, "3"), 200);
}

/// Locked memory for a few dozen keysets, and more tenants than that in turn.
#[test]
fn a_full_slab_makes_room_by_letting_tenants_go() {
    let (keys, upstream) = (Keys::new(), Upstream::echo());
    keys.add_many("t-", 200);
    let vars = [("OILSKIN_CONFIG_YAML", document(&upstream, "")), ("OILSKIN_LIMITS_KEY_SLAB", "4KiB".to_owned())];
    let process = Process::start(&keys, &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    let mut client = Client::connect(process.address());
    for _ in 0..2 {
        for number in 0..200 {
            assert_eq!(ask(&mut client, &number.to_string()), 200, "{number}: {}", process.log().join("\n"));
        }
    }
}

/// A message that has begun keeps its keys, whoever else needs room.
#[test]
fn a_message_on_its_way_ends_with_the_keys_it_began_with() {
    let (keys, upstream) = (Keys::new(), Upstream::echo());
    keys.add_many("t-", 10);
    let process = Process::start(&keys, &[("OILSKIN_CONFIG_YAML", &document(&upstream, "max_held: 2"))]);
    let mut slow = Client::connect(process.address());
    let half = format!("[{{\"ssn\":\"1\",\"x\":\"{}\"}},", "y".repeat(100_000));
    let rest = "{\"ssn\":\"2\"}]";
    slow.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Tenant: 0\r\nContent-Length: {}\r\n\r\n{half}",
        half.len() + rest.len()
    ));
    let mut client = Client::connect(process.address());
    for _ in 0..3 {
        for number in 1..10 {
            assert_eq!(ask(&mut client, &number.to_string()), 200);
        }
    }
    tools::pause(std::time::Duration::from_millis(300));
    slow.send(rest);
    let answer = slow.response("POST");
    assert_eq!(answer.status(), 200, "{answer:?}");
}

//! A Vault that is killed, sealed, emptied; tokens that end or are taken away: while requests go on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oilskin_tests::process::Process;
use oilskin_tests::{Upstream, tools};

use super::vault_keys::{Bench, REPLICA, ask, start, until_serving};

/// Does something while requests go on; each must be served. Returns what it came to, and how many there were.
fn under_load<T>(process: &Process, work: impl FnOnce() -> T) -> T {
    let (stop, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let done = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let status = ask(process);
                    if status != 200 {
                        failed.lock().unwrap().push(status);
                    }
                    tools::pause(Duration::from_millis(5));
                }
            });
        }
        // Whatever it panics with, the load must end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        done
    });
    let failed = failed.into_inner().unwrap();
    // Whatever it panicked with, what the process said tells more.
    let done = done.unwrap_or_else(|panicked| {
        eprintln!("{}", process.log().concat());
        std::panic::resume_unwind(panicked)
    });
    assert!(failed.is_empty(), "{} failed: {:?} {:?}", failed.len(), failed.first(), process.log());
    done
}

/// How many lines of its log have this in them.
fn lines(process: &Process, with: &str) -> usize {
    process.log().iter().filter(|line| line.contains(with)).count()
}

/// Waits until so many more lines have.
fn more_lines(process: &Process, with: &str, before: usize) {
    tools::until(with, || (lines(process, with) > before).then_some(()));
}

/// Nothing so far has taken keys; what is denied to a token that is fresh does, until it is allowed again.
fn denied_in_earnest(bench: &Bench, process: &Process) {
    assert_eq!(lines(process, "denied twice"), 0);
    bench.vault.policy(NOTHING);
    more_lines(process, "denied twice", 0);
    assert_eq!(ask(process), 503);
    bench.vault.policy(REPLICA);
    until_serving(process);
}

/// What is left to who may nothing more: an empty policy is none.
const NOTHING: &str = r#"path "secret/data/elsewhere" { capabilities = ["read"] }"#;

const FAILS: &str = "cannot refresh keys";
const HELD: &str = "a token of Vault's is held";
const AGAIN: &str = "keys are refreshed again";

/// Until it has failed and come back since `work` began. `work` breaks something, `mend` mends it.
fn missed<T>(process: &Process, work: impl FnOnce() -> T, mend: impl FnOnce(T)) {
    let (fails, again) = (lines(process, FAILS), lines(process, AGAIN));
    let broken = work();
    more_lines(process, FAILS, fails);
    mend(broken);
    more_lines(process, AGAIN, again);
}

fn until_epoch(process: &Process, epoch: u64) {
    let metric = format!("oilskin_keyset_epoch{{keyset=\"default\"}} {epoch}");
    tools::until(&metric, || process.metrics_page().contains(&metric).then_some(()));
}

#[test]
fn a_vault_that_is_killed_and_started_again_has_everything_and_is_not_missed() {
    let (mut bench, upstream) = (Bench::durable(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let process = bench.replica(&upstream, REPLICA);
    until_serving(&process);
    let epoch = under_load(&process, || {
        for round in 0..3_u64 {
            let (code, said) = bench.keys(&["rewrap"]);
            assert_eq!(code, Some(0), "{said}");
            let before = bench.keys(&["export"]).1;
            let (fails, again) = (lines(&process, FAILS), lines(&process, AGAIN));
            match round {
                // The last one as an operator does it.
                2 => bench.vault.stop(),
                _ => bench.vault.kill(),
            }
            more_lines(&process, FAILS, fails);
            bench.vault.up();
            more_lines(&process, AGAIN, again);
            assert_eq!(bench.keys(&["export"]).1, before, "what was acknowledged is there");
            until_epoch(&process, 2 + 3 * round);
            let (code, said) = bench.keys(&["rotate"]);
            assert_eq!(code, Some(0), "{said}");
            until_epoch(&process, 4 + 3 * round);
        }
        10
    });
    until_epoch(&process, epoch);
    assert_eq!(lines(&process, "denied twice"), 0);
}

#[test]
fn a_vault_on_a_disk_says_what_document_is_too_large_for_it() {
    let (bench, keys) = (Bench::durable(), oilskin_tests::keys::Keys::new());
    let command = || {
        let mut command = bench.command();
        command.env("OILSKIN_ROOT_KEY", keys.root_uri());
        command
    };
    tools::run(command().args(["keys", "init", "--name", "b"]));
    oilskin_tests::contract::large(&command, 700_000);
    oilskin_tests::contract::too_large(&command, 1_200_000, "larger than Vault's storage takes");
}

#[test]
fn who_seals_a_vault_and_unseals_it_is_not_noticed() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let process = bench.replica(&upstream, REPLICA);
    until_serving(&process);
    under_load(&process, || {
        for _ in 0..2 {
            missed(&process, || bench.vault.bao(&["operator", "seal"]), |_| bench.vault.unseal());
        }
    });
    assert!(process.ready().contains("true"), "{}", process.ready());
}

/// Tokens that are renewed until they cannot be, and tokens that never can.
#[test]
fn tokens_end_in_traffic_and_nothing_else_does() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let renewable = start(bench.by_role(REPLICA, ("3s", "7s")), &upstream);
    until_serving(&renewable);
    let batch = bench.by_role(REPLICA, ("3s", "3s"));
    bench.vault.bao(&["write", "auth/approle/role/oilskin", "token_type=batch"]);
    let batch = start(batch, &upstream);
    until_serving(&batch);
    for process in [&renewable, &batch] {
        under_load(process, || {
            tools::until("four tokens", || (lines(process, "a token of Vault's is held") >= 4).then_some(()));
        });
        assert_eq!(lines(process, FAILS), 0, "{:?}", process.log());
    }
}

#[test]
fn a_token_that_was_taken_away_takes_no_keys_whether_there_is_another_or_not() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let process = bench.replica(&upstream, REPLICA);
    until_serving(&process);
    let secret = std::fs::read_to_string(bench.vault.path("secret_id")).unwrap();
    let revoke = || bench.vault.bao(&["token", "revoke", "-mode=path", "auth/approle"]);
    under_load(&process, || {
        // Vault itself says that a token has ended, so a login follows at once, and several within the time between two denials take nothing.
        for _ in 0..8 {
            let held = lines(&process, HELD);
            revoke();
            more_lines(&process, HELD, held);
        }
        tools::until("keys to be refreshed", || {
            (lines(&process, FAILS) == lines(&process, AGAIN) && process.ready().contains("true")).then_some(())
        });
        // No login is to be had: denials go on for longer than it takes to believe them, and prove nothing.
        missed(
            &process,
            || {
                std::fs::write(bench.vault.path("secret_id"), "none\n").unwrap();
                revoke()
            },
            |_| {
                tools::pause(Duration::from_secs(25));
                assert!(process.ready().contains("not refreshed"), "{}", process.ready());
                std::fs::write(bench.vault.path("secret_id"), &secret).unwrap();
            },
        );
    });
    denied_in_earnest(&bench, &process);
}

/// A role without the policy `default` cannot ask whether its token lives: then a later login decides.
#[test]
fn a_token_that_may_not_ask_whether_it_lives_takes_no_keys_when_it_has_ended() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let command = bench.by_role(REPLICA, ("1h", "2h"));
    bench.vault.bao(&["write", "auth/approle/role/oilskin", "token_no_default_policy=true", "token_policies=oilskin"]);
    let process = start(command, &upstream);
    until_serving(&process);
    let revoke = || bench.vault.bao(&["token", "revoke", "-mode=path", "auth/approle"]);
    under_load(&process, || missed(&process, revoke, |_| {}));
    denied_in_earnest(&bench, &process);
}

/// A token that is given: its file is read again, and that Vault knows it is the login.
#[test]
fn a_token_of_a_file_that_has_ended_takes_no_keys_and_one_that_may_not_does() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    bench.vault.policy(REPLICA);
    let file = bench.vault.path("token");
    let give = |life: &str| {
        let token = bench.vault.bao(&["token", "create", "-field=token", "-policy=oilskin", "-renewable=false", life]);
        let next = bench.vault.path("next");
        std::fs::write(&next, token).unwrap();
        std::fs::rename(next, &file).unwrap();
    };
    give("-ttl=8s");
    let mut command = bench.command();
    command.env_remove("VAULT_TOKEN").env("VAULT_TOKEN_FILE", &file);
    let process = start(command, &upstream);
    until_serving(&process);
    under_load(&process, || {
        missed(
            &process,
            || {},
            |()| {
                tools::pause(Duration::from_secs(25));
                give("-ttl=1h");
            },
        );
    });
    denied_in_earnest(&bench, &process);
}

/// Whatever becomes of a secret, its keys are nobody's to take: an outage, which the same document ends, and no older one.
#[test]
fn a_secret_that_is_deleted_destroyed_or_without_its_mount_is_an_outage() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name).display().to_string());
    assert_eq!(bench.keys(&["export", "--out", &old]).0, Some(0));
    assert_eq!(bench.keys(&["rewrap"]).0, Some(0));
    assert_eq!(bench.keys(&["export", "--out", &new]).0, Some(0));
    let process = bench.replica(&upstream, REPLICA);
    until_serving(&process);
    until_epoch(&process, 2);
    let import = |file: &str| {
        let (code, said) = bench.keys(&["import", file]);
        assert_eq!(code, Some(0), "{said}");
    };
    let bao = |words: &str| bench.vault.bao(&words.split(' ').collect::<Vec<_>>());
    under_load(&process, || {
        // Deleted, and given back by Vault itself.
        missed(
            &process,
            || bao("kv delete -mount=secret oilskin/default"),
            |_| drop(bao("kv undelete -mount=secret -versions=2 oilskin/default")),
        );
        // Destroyed: a later version brings the document back.
        missed(&process, || bao("kv destroy -mount=secret -versions=2 oilskin/default"), |_| import(&new));
        // With all that was known of it. The older document is in its place first, and is not taken.
        missed(
            &process,
            || bao("kv metadata delete -mount=secret oilskin/default"),
            |_| {
                import(&old);
                process.logged(|line| line.contains("its epoch did not grow"));
                import(&new);
            },
        );
        // With its mount, which comes back empty.
        missed(
            &process,
            || bao("secrets disable secret"),
            |_| {
                bao("secrets enable -path=secret -version=2 kv");
                tools::until("the KV engine", || bench.vault.try_bao(&["kv", "put", "secret/x", "a=b"]).ok());
                import(&new);
            },
        );
    });
    assert_eq!(lines(&process, "denied twice"), 0);
    until_epoch(&process, 2);
    // A rotation goes on from there.
    let (code, said) = bench.keys(&["rotate"]);
    assert!(code == Some(0) && said.contains("epoch 4"), "{said}");
    until_epoch(&process, 4);
}

/// Two Vaults with a mount and a key of the same names: one id, two keys.
#[test]
fn a_key_of_the_same_name_in_another_vault_opens_nothing_and_says_so() {
    let (one, other) = (Bench::new(), Bench::new());
    assert_eq!(one.keys(&["init"]).0, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("document").display().to_string();
    assert_eq!(one.keys(&["export", "--out", &file]).0, Some(0));
    let (code, said) = other.keys(&["import", &file]);
    assert!(code == Some(1) && said.contains("wrapped by another key of that name"), "{said}");
    // The key itself, brought over, is the same root.
    one.vault.bao(&["write", "transit/keys/root/config", "exportable=true", "allow_plaintext_backup=true"]);
    let backup = one.vault.data(&["read", "transit/backup/root"]);
    let backup = format!("backup={}", backup["backup"].as_str().unwrap());
    other.vault.bao(&["write", "transit/restore/root", "force=true", &backup]);
    assert_eq!(other.keys(&["import", &file]).0, Some(0));
    assert_eq!(other.keys(&["rotate"]).0, Some(0));
}

//! Twenty replicas on one store, and keys that rotate under them.

use std::path::Path;
use std::time::Duration;

use oilskin_crypto::document::{self, Line, State};
use oilskin_tests::keys::Keys;
use oilskin_tests::replicas::{self, Light, Replica, Vars};
use oilskin_tests::tools;

const PROGRAM: &str = env!("CARGO_BIN_EXE_replica");

fn vars(keys: &Keys) -> Vars {
    vec![("OILSKIN_ROOT_KEY".to_owned(), keys.root_uri()), ("OILSKIN_KEY_STORE".to_owned(), keys.store_uri())]
}

fn init(vars: &Vars) {
    let mut command = tools::oilskin();
    command.args(["keys", "init"]).envs(vars.iter().cloned()).env("OILSKIN_KEY_REFRESH", "1s");
    tools::run(command.env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true"));
}

#[test]
fn twenty_replicas_on_a_folder_read_one_anothers_tokens_while_keys_rotate() {
    on_a_folder(Duration::from_secs(20));
}

#[test]
#[ignore = "ten minutes: `make soak` runs it"]
fn twenty_replicas_for_ten_minutes() {
    on_a_folder(Duration::from_secs(600));
}

fn on_a_folder(length: Duration) {
    let keys = Keys::empty();
    let vars = vars(&keys);
    init(&vars);
    let run = replicas::run(Path::new(PROGRAM), &vars, 17, 3, length);
    println!("{run:?}");
    let stored = std::fs::read(keys.folder().join("keys/default.json")).unwrap();
    let document = document::read(&stored, "default").unwrap();
    let fields: Vec<_> = document.versions.iter().filter(|version| version.line == Line::Field).collect();
    // Each rotation is two documents, whoever wrote them: one winner each time.
    let promoted = fields.iter().filter(|version| version.state != State::Pending).count() as u64;
    let pending = fields.len() as u64 - promoted;
    assert_eq!(document.epoch, 1 + 2 * (promoted - 1) + pending);
    assert!(promoted >= 4, "{promoted}");
    assert!(run.written > 1_000 && run.read > 3_000, "{run:?}");
}

/// On request the replicas rotate by themselves: once, whoever is first.
#[test]
fn replicas_that_rotate_by_themselves_make_one_version_when_one_is_due() {
    let keys = Keys::aged(1);
    let mut own = vars(&keys);
    own.push(("OILSKIN_KEY_ROTATOR".to_owned(), "sidecars".to_owned()));
    let mut replicas: Vec<Light> = (0..5).map(|_| Light::start(Path::new(PROGRAM), &own)).collect();
    let old = replicas[0].encrypt("old").unwrap();
    for replica in &mut replicas {
        let new = tools::until("a token of the new version", || {
            let token = replica.encrypt("new").unwrap();
            (token[..12] != old[..12]).then_some(token)
        });
        assert_eq!((replica.decrypt(&old).unwrap(), replica.decrypt(&new).unwrap()), ("old".into(), "new".into()));
    }
    tools::pause(Duration::from_secs(3));
    let stored = std::fs::read(keys.folder().join("keys/default.json")).unwrap();
    let document = document::read(&stored, "default").unwrap();
    assert_eq!((document.epoch, document.versions.len()), (3, 3), "one rotation, though five could");
}

#[test]
fn a_replica_that_was_cut_off_for_too_long_refuses_newer_tokens_and_recovers() {
    let keys = Keys::empty();
    let all = vars(&keys);
    init(&all);
    let link = keys.folder().join("link");
    std::os::unix::fs::symlink(keys.folder().join("keys"), &link).unwrap();
    let mut own = all.clone();
    own[1].1 = format!("file:{}", link.display());
    let (mut one, mut cut) = (Light::start(Path::new(PROGRAM), &all), Light::start(Path::new(PROGRAM), &own));
    let old = one.encrypt("old").unwrap();
    assert_eq!(cut.decrypt(&old).unwrap(), "old");
    std::fs::remove_file(&link).unwrap();
    let mut command = tools::oilskin();
    command.args(["keys", "rotate"]).envs(all.iter().cloned()).env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true");
    tools::run(&mut command);
    let new = tools::until("a token of the new version", || {
        let token = one.encrypt("new").unwrap();
        (token[..12] != old[..12]).then_some(token)
    });
    assert!(cut.decrypt(&new).unwrap_err().contains("key_unavailable"));
    assert_eq!(cut.decrypt(&old).unwrap(), "old", "what it knows it reads");
    std::os::unix::fs::symlink(keys.folder().join("keys"), &link).unwrap();
    assert_eq!(tools::until("the new version", || cut.decrypt(&new).ok()), "new");
    let written = cut.encrypt("x").unwrap();
    assert_eq!(one.decrypt(&written).unwrap(), "x");
}

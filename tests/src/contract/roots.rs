//! What every root key must do.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oilskin_crypto::{DEFAULT_BYTES, FileRoot, Slab};
use serde_json::Value;

use super::{Keys, done, refused, root_uri, run};
use crate::client::json;
use crate::process::Process;
use crate::{Upstream, tools};

/// A wrapped share that is longer than any library expects one to be.
const LONG: usize = 100_000;

/// A root key that binds shares to their place; the store is a folder.
///
/// A process runs beside the commands, and meets those of the documents that are there when it looks: whatever it thinks of a root then,
/// it serves on, and the root unwraps what is right when that comes back.
pub fn root(keys: Keys<'_>, store: &Path) {
    done(keys, &["init", "--name", "a"]);
    done(keys, &["init"]);
    for name in ["a", "default"] {
        done(keys, &["rewrap", "--name", name]);
    }
    let path = |name: &str| store.join(format!("{name}.json"));
    let [a, good] = ["a", "default"].map(|name| std::fs::read_to_string(path(name)).unwrap());
    let upstream = Upstream::echo();
    let mut command = keys();
    command.env("OILSKIN_KEY_ROOT_CHECK", "1s").env("OILSKIN_FIELDS", "$.ssn").env("OILSKIN_LOG_FORMAT", "json");
    let process = Process::start_as(command, &[("OILSKIN_UPSTREAM", &upstream.url())]);
    let serves = || assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
    tools::until("keys", || process.ready().contains("true").then_some(()));
    // What imitates KMS unwraps an altered share to a wrong one, as the real one never does: then the document's MAC tells.
    let is_imitated = entry(&good)["kind"] == "awskms";
    let refuses = |keys: Keys<'_>, document: &str| {
        put(&path("default"), document);
        let (code, said) = run(keys, &["rewrap"]);
        let by_root = is_imitated || !said.contains("MAC");
        assert!(code == Some(1) && by_root, "the root itself refuses it: {said}");
        assert!(said.trim_end().lines().count() == 1 && said.len() < 700, "one clear error: {said}");
        serves();
    };
    let wrapped = entry(&good)["wrapped"].as_str().unwrap().to_owned();
    let with = |bytes: &[u8]| good.replace(&wrapped, &URL_SAFE_NO_PAD.encode(bytes));
    let bytes = URL_SAFE_NO_PAD.decode(&wrapped).unwrap();
    // A share is bound to its keyset: put into another document it opens nothing.
    let other = URL_SAFE_NO_PAD.decode(entry(&a)["wrapped"].as_str().unwrap()).unwrap();
    assert_ne!(bytes, other);
    refuses(keys, &with(&other));
    // And to its number.
    refuses(keys, &good.replacen("\"x\":1,", "\"x\":2,", 1));
    // So is every byte of it to the others. The first ones say of which kind it is.
    for at in [bytes.len() / 2, bytes.len() - 1] {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        refuses(keys, &with(&altered));
    }
    let none: &[u8] = b"";
    for wrong in [none, &bytes[..1], &bytes[..bytes.len() / 2], &bytes[..bytes.len() - 1]] {
        refuses(keys, &with(wrong));
    }
    for wrong in [[bytes.as_slice(), &[0]].concat(), bytes.repeat(2), vec![0xaa; LONG], vec![b'A'; LONG]] {
        refuses(keys, &with(&wrong));
    }
    // What roots of other kinds make: of files, of transit.
    for wrong in [&[0x5a; 72], "vault:v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".as_bytes()] {
        refuses(keys, &with(wrong));
    }
    let kind = format!("\"kind\":\"{}\"", entry(&good)["kind"].as_str().unwrap());
    refuses(keys, &good.replacen(&kind, "\"kind\":\"elsewhere\"", 1));
    // What is right is unwrapped as if nothing had been.
    let unwrapped = || {
        let page = process.metrics_page();
        let lines = page.lines().filter(|line| line.contains("op=\"unwrap\"") && line.contains("result=\"ok\""));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    put(&path("default"), &good);
    let before = unwrapped();
    tools::until("the root to be asked again", || (unwrapped() > before).then_some(()));
    done(keys, &["rewrap"]);
    assert!(!process.log().iter().any(|line| line.contains("denied twice")), "{:?}", process.log());
    serves();
    drop(process);
    held_by_two(keys, store);
}

/// A share is bound to how many of them it takes: where one of two is enough, a document that asks for both opens by neither.
fn held_by_two(keys: Keys<'_>, store: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let second = folder.path().join("second.key");
    FileRoot::create(&second, &Slab::new(DEFAULT_BYTES, true).unwrap()).unwrap();
    let roots = format!("{} file:{}", root_uri(&keys()), second.display());
    done(keys, &["rewrap", "--roots", &roots, "--hold", "any"]);
    let both = || {
        let mut command = keys();
        command.env("OILSKIN_ROOT_KEY", &roots).env("OILSKIN_ROOT_HOLD", "all");
        command
    };
    let path = store.join("default.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let altered = good.replacen("\"k\":1,", "\"k\":2,", 1);
    assert_ne!(good, altered);
    put(&path, &altered);
    refused(&both, &["rewrap"], "0 of the 2 roots");
    put(&path, &good);
    done(&both, &["rewrap"]);
}

/// Never half of it: a process reads it at any time.
fn put(path: &Path, document: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, document).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// The first root's entry.
fn entry(text: &str) -> Value {
    let mut document: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    document["roots"][0].take()
}

//! What every key store and every root key must do, whatever it is: driven through the command line.

mod roots;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use oilskin_crypto::document::{self, Line, Opened, Policy, RootEntry};
use oilskin_crypto::{Cipher, DEFAULT_BYTES, FileRoot, Slab};
use serde_json::Value;

pub use roots::root;

/// Writers at once, and how often: with less than this a store that does not compare would get through by luck.
const WRITERS: u64 = 6;
const ROUNDS: u64 = 3;

/// Versions that a keyset can have.
const VERSIONS: usize = 256;

/// `oilskin keys …` over a store and a root; everything that these need is in the command already.
pub type Keys<'a> = &'a dyn Fn() -> Command;

fn run(keys: Keys<'_>, words: &[&str]) -> (Option<i32>, String) {
    let output = keys().arg("keys").args(words).env_remove("OILSKIN_LOG_FORMAT").output().unwrap();
    let [out, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    // What is printed is a result, and so is an error; a warning about what a test configures is neither.
    let said = said.split_inclusive('\n').filter(|line| !line.starts_with("oilskin: warning: ")).collect::<String>();
    (output.status.code(), out + &said)
}

fn done(keys: Keys<'_>, words: &[&str]) -> String {
    let (code, said) = run(keys, words);
    assert_eq!(code, Some(0), "{words:?}: {said}");
    said
}

fn refused(keys: Keys<'_>, words: &[&str], why: &str) {
    let (code, said) = run(keys, words);
    assert!(code == Some(1) && said.contains(why), "{words:?}: {code:?} {said}");
}

fn listed(keys: Keys<'_>) -> Vec<Value> {
    let said = run(keys, &["list", "--json"]).1;
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"))
}

/// A store with a document for each keyset, empty at first.
pub fn store(keys: Keys<'_>) {
    assert_eq!(listed(keys), Vec::<Value>::new());
    refused(keys, &["export"], "keyset default does not exist");
    refused(keys, &["rotate"], "keyset default does not exist");
    done(keys, &["init", "--name", "b"]);
    done(keys, &["init", "--name", "a.1"]);
    refused(keys, &["init", "--name", "b"], "exists already");
    done(keys, &["init", "--name", "b", "--if-missing"]);
    let names: Vec<String> = listed(keys).iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["a.1", "b"], "sorted, and each once");
    for name in ["../b", "B", "", "a/b", "ü", &"x".repeat(129)] {
        let (code, said) = run(keys, &["init", "--name", name]);
        assert!(code != Some(0), "{name}: {said}");
    }
    // What is read is what was written, to the byte.
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("b.json");
    let old = old.to_str().unwrap();
    done(keys, &["export", "--name", "b", "--out", old]);
    let text = std::fs::read_to_string(old).unwrap();
    assert_eq!(text, done(keys, &["export", "--name", "b"]));
    done(keys, &["import", "--name", "b", old]);
    writers(keys);
    refused(keys, &["import", "--name", "b", old], "replicas would refuse it");
    done(keys, &["rewrap", "--name", "b"]);
    assert!(done(keys, &["export", "--name", "a.1"]).contains("\"epoch\":1"), "others are as they were");
}

/// Writers at once, each of whom changes the document: all come through, so whoever was slower read again, and nobody's change is
/// lost. A rotation would not do, since one that finds another's version waits for it and writes little.
fn writers(keys: Keys<'_>) {
    let epoch = || {
        let listed = listed(keys);
        listed.iter().find(|one| one["name"] == "b").unwrap()["epoch"].as_u64().unwrap()
    };
    let before = epoch();
    for round in 1..=ROUNDS {
        let start = |_| {
            let mut command = keys();
            command.args(["keys", "rewrap", "--name", "b"]).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let writers: Vec<Child> = (0..WRITERS).map(start).collect();
        for writer in writers {
            let ended = writer.wait_with_output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        }
        assert_eq!(epoch(), before + round * WRITERS, "a change was lost");
    }
}

/// A document of that many bytes goes in and comes out as it was, and is changed as any other.
pub fn large(keys: Keys<'_>, bytes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.json");
    let document = grown(keys, "b", bytes);
    assert!((bytes - 8..=bytes).contains(&document.len()), "{}", document.len());
    std::fs::write(&file, &document).unwrap();
    done(keys, &["import", "--name", "b", file.to_str().unwrap()]);
    assert_eq!(done(keys, &["export", "--name", "b"]).as_bytes(), document);
    // The entry that nobody here knows goes with it.
    done(keys, &["rewrap", "--name", "b"]);
}

/// One that is larger than the store takes is refused in these words, and what was there is there.
pub fn too_large(keys: Keys<'_>, bytes: usize, why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.json");
    std::fs::write(&file, grown(keys, "b", bytes)).unwrap();
    let before = done(keys, &["export", "--name", "b"]);
    refused(keys, &["import", "--name", "b", file.to_str().unwrap()], why);
    assert_eq!(done(keys, &["export", "--name", "b"]), before);
}

/// What the store holds, later and larger: as many versions as a keyset can have, and a share of a root that nobody here has.
fn grown(keys: Keys<'_>, name: &str, bytes: usize) -> Vec<u8> {
    let slab = Slab::new(DEFAULT_BYTES, true).unwrap();
    let roots = [FileRoot::read(&root_file(keys), &slab).unwrap()];
    let stored = done(keys, &["export", "--name", name]);
    let mut opened = document::files::opened(stored.as_bytes(), name, &roots, &slab, Policy::default()).unwrap();
    while opened.document().versions.len() < VERSIONS && opened.write(None).unwrap().len() < bytes * 3 / 4 {
        let id = opened.add_pending(Line::Field, Cipher::XChaCha20Poly1305, 1).unwrap();
        opened.promote(&id, 2).unwrap();
    }
    // One epoch later in any case.
    let mut opened = opened.renewed(&[], 3).unwrap();
    document::files::wrap(&mut opened, 1, &roots).unwrap();
    let own = opened.document().roots.clone();
    let with = |opened: &mut Opened, wrapped: Vec<u8>| {
        let other = RootEntry { id: vec![7; 8], kind: "elsewhere".to_owned(), x: 9, wrapped };
        opened.set_roots(1, [own.as_slice(), &[other]].concat()).unwrap();
        opened.write(None).unwrap()
    };
    let least = with(&mut opened, Vec::new()).len();
    // Three bytes are four characters.
    with(&mut opened, vec![7; (bytes - least) / 4 * 3])
}

/// The file that the command's root key is in.
fn root_file(keys: Keys<'_>) -> PathBuf {
    let uri = root_uri(&keys());
    uri.strip_prefix("file:").unwrap().into()
}

fn root_uri(command: &Command) -> String {
    let mut vars = command.get_envs();
    let (_, uri) = vars.find(|(name, _)| *name == "OILSKIN_ROOT_KEY").unwrap();
    uri.unwrap().to_str().unwrap().to_owned()
}

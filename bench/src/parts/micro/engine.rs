//! The field engine: 15 kB of JSON, 120 fields of three contexts, beside a parser, libsodium's one-shot function and a printer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hint::black_box;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libsodium_rs::crypto_aead::xchacha20poly1305;
use oilskin::{Offline, Phase};
use oilskin_crypto::document::{self, NewKeyset};
use oilskin_crypto::{Cipher, FileRoot, FileStore, Slab};
use serde_json::Value;

use super::{Pair, samples};

const FIELDS: &str = "$..ssn, $..email, $..card.number";

/// Of the header: alg, type, key id.
const HEADER: usize = 10;

/// A body's tokens come from so many bodies: each has its own prefixes.
const WRITERS: usize = 40;

pub(super) fn pairs() -> Result<Vec<Pair>> {
    let body: Rc<[u8]> = samples::customers().into();
    let mut pairs = Vec::new();
    for (cipher, encrypt, decrypt, must) in [
        (
            Cipher::XChaCha20Poly1305,
            "field engine, encrypt, XChaCha20-Poly1305",
            "field engine, decrypt, XChaCha20-Poly1305",
            (3.3, 2.3),
        ),
        (Cipher::Aegis256, "field engine, encrypt, AEGIS-256", "field engine, decrypt, AEGIS-256", (5.0, 5.0)),
    ] {
        let engine = Rc::new(engine(cipher)?);
        let mixed = mixed(&engine, &body)?;
        let one_shot = Rc::new(OneShot::new()?);
        let sealed = one_shot.encrypt(&body);
        let (first, second) = (Rc::clone(&one_shot), one_shot);
        let (body, plain) = (Rc::clone(&body), Rc::clone(&body));
        let encrypting = Rc::clone(&engine);
        let ours = Rc::clone(&plain);
        pairs.push(Pair {
            what: encrypt,
            must: must.0,
            baseline: Box::new(move || {
                black_box(first.encrypt(&body));
            }),
            ours: Box::new(move || {
                let mut out = Vec::with_capacity(2 * ours.len());
                assert_eq!(encrypting.rewrite(Phase::Request, [&*ours], &mut out), Ok(()));
                black_box(out);
            }),
        });
        pairs.push(Pair {
            what: decrypt,
            must: must.1,
            baseline: Box::new(move || {
                black_box(second.decrypt(&sealed));
            }),
            ours: Box::new(move || {
                let mut out = Vec::with_capacity(mixed.len());
                assert_eq!(engine.rewrite(Phase::Response, [&*mixed], &mut out), Ok(()));
                assert_eq!(out.len(), plain.len());
                black_box(out);
            }),
        });
    }
    Ok(pairs)
}

/// A route with three rules and a fresh keyset of this cipher.
fn engine(cipher: Cipher) -> Result<Offline> {
    let folder = tempfile::tempdir()?;
    let (root, store) = (folder.path().join("root.key"), folder.path().join("keys"));
    let slab = Slab::new(1 << 16, true)?;
    let roots = vec![FileRoot::create(&root, &slab)?];
    let new = NewKeyset { name: "default", cipher, development: false, refresh: 60, now: 1_700_000_000 };
    FileStore::new(&store).write("default", None, &document::files::create(new, 1, &roots, &slab)?)?;
    let vars: BTreeMap<OsString, OsString> = [
        ("OILSKIN_UPSTREAM", "http://127.0.0.1:1".to_owned()),
        ("OILSKIN_FIELDS", FIELDS.to_owned()),
        ("OILSKIN_ROOT_KEY", format!("file:{}", root.display())),
        ("OILSKIN_KEY_STORE", format!("file:{}", store.display())),
        ("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true".to_owned()),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    let config =
        oilskin_config::parse(&vars, &|_| Err("no files".to_owned())).map_err(|problems| anyhow!("{problems:?}"))?;
    Ok(Offline::new(&config, 0)?)
}

/// The body as a list of records that were written one by one: record n's tokens stand in body n.
fn mixed(engine: &Offline, body: &[u8]) -> Result<Vec<u8>> {
    let bodies = (0..WRITERS)
        .map(|_| {
            let mut out = Vec::new();
            engine.rewrite(Phase::Request, [body], &mut out)?;
            Ok(out)
        })
        .collect::<Result<Vec<_>>>()?;
    mix(&bodies)
}

/// Record n of body n, spelled as it stands there.
fn mix(bodies: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut mixed = b"{\"customers\": [".to_vec();
    for (n, body) in bodies.iter().enumerate() {
        let text = std::str::from_utf8(body)?;
        let record = text.split("{\"id\": ").nth(n + 1).context("a record for each body")?;
        mixed.extend_from_slice(b"{\"id\": ");
        mixed.extend_from_slice(record.as_bytes());
    }
    if bodies.len() > 1 {
        ensure!(mixed.ends_with(b"]}"), "the last record ends the document");
    }
    Ok(mixed)
}

/// What one writes without Oilskin: parse into a DOM, one libsodium call a field, print.
struct OneShot([Place; 3]);

/// A field's place, its key, and authenticated data of the same length as ours.
struct Place {
    pointer: &'static str,
    key: xchacha20poly1305::Key,
    aad: Vec<u8>,
}

impl OneShot {
    fn new() -> Result<Self> {
        libsodium_rs::ensure_init()?;
        let lp = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        let place = |(pointer, context)| Place {
            pointer,
            key: xchacha20poly1305::Key::generate(),
            aad: [&b"oil1"[..], &[1, 1], &[7; 8], &lp(""), &lp(context), &[0]].concat(),
        };
        Ok(Self([("/ssn", "ssn"), ("/email", "email"), ("/card/number", "card.number")].map(place)))
    }

    /// Parses, changes every field, prints.
    fn rewrite(&self, body: &[u8], change: impl Fn(&Place, &str) -> String) -> Vec<u8> {
        let Ok(mut document) = serde_json::from_slice::<Value>(body) else { panic!("the sample is JSON") };
        let customers = document.get_mut("customers").and_then(Value::as_array_mut);
        for customer in customers.into_iter().flatten() {
            for place in &self.0 {
                if let Some(Value::String(text)) = customer.pointer_mut(place.pointer) {
                    *text = change(place, text);
                }
            }
        }
        document.to_string().into_bytes()
    }

    fn encrypt(&self, body: &[u8]) -> Vec<u8> {
        self.rewrite(body, |place, text| {
            let nonce = xchacha20poly1305::Nonce::generate();
            let sealed = xchacha20poly1305::encrypt(text.as_bytes(), Some(&place.aad), &nonce, &place.key);
            let Ok(sealed) = sealed else { panic!("it encrypts") };
            let token = [&[1, 1][..], &[7; 8], nonce.as_ref(), &sealed].concat();
            format!("oil1.{}", URL_SAFE_NO_PAD.encode(token))
        })
    }

    fn decrypt(&self, body: &[u8]) -> Vec<u8> {
        self.rewrite(body, |place, text| {
            let opened = open(place, text);
            opened.and_then(|opened| String::from_utf8(opened).ok()).unwrap_or_else(|| panic!("it opens"))
        })
    }
}

fn open(place: &Place, text: &str) -> Option<Vec<u8>> {
    let token = URL_SAFE_NO_PAD.decode(text.strip_prefix("oil1.")?).ok()?;
    let (nonce, sealed) = token.get(HEADER..)?.split_at_checked(24)?;
    let nonce = xchacha20poly1305::Nonce::try_from_slice(nonce).ok()?;
    xchacha20poly1305::decrypt(sealed, Some(&place.aad), &nonce, &place.key).ok()
}

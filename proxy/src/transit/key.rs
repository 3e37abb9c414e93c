//! What is known of keys: a field is only given to one that does what its rule promises.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use oilskin_config::VaultKey;
use serde_json::Value;

/// Types of keys that authenticate a ciphertext and what it is bound to, and can be derived from.
const KINDS: [&str; 4] = ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// A key of Vault's that rules name.
pub(crate) struct Key {
    name: VaultKey,
    /// What rules ask of it.
    random: AtomicBool,
    deterministic: AtomicBool,
    /// Versions that rules write with.
    pinned: Mutex<BTreeSet<u32>>,
    /// 0 is unknown.
    latest: AtomicU32,
    known: Mutex<Known>,
    /// The same for the data path.
    fits: [AtomicBool; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// It was not asked for yet, or there was no answer.
    Nothing(String),
    Is(About),
}

/// What Vault says about a key of transit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) soft_deleted: bool,
    /// Equal plaintexts have equal ciphertexts.
    pub(crate) convergent: bool,
    /// It asks for a context.
    pub(crate) derived: bool,
    /// Its type authenticates a ciphertext and what stands beside it.
    pub(crate) authenticates: bool,
    latest: u32,
    /// The oldest version that Vault still writes with.
    oldest: u32,
}

impl About {
    pub(crate) fn read(about: &Value) -> Self {
        let is = |name: &str| about.get(name).and_then(Value::as_bool).unwrap_or(false);
        let version = |name: &str| about.get(name).and_then(Value::as_u64).and_then(|it| u32::try_from(it).ok());
        let version = |name| version(name).unwrap_or_default();
        let kind = about.get("type").and_then(Value::as_str).unwrap_or_default();
        Self {
            soft_deleted: is("soft_deleted"),
            convergent: is("convergent_encryption"),
            derived: is("derived"),
            authenticates: KINDS.contains(&kind),
            latest: version("latest_version"),
            oldest: version("min_encryption_version").max(version("min_available_version")).max(1),
        }
    }

    /// Why it cannot be used for any field.
    fn wrong(&self) -> Option<&'static str> {
        if self.soft_deleted {
            Some("it is soft deleted: restore it")
        } else if !self.authenticates {
            Some("its type does not authenticate: make one of type aes256-gcm96")
        } else if !self.derived {
            Some("it is not derived, so it ignores contexts and tenants: make one with derived=true")
        } else {
            None
        }
    }

    /// Why a version that a rule writes with is none of those that Vault does.
    fn pinned(&self, version: u32) -> Option<String> {
        let Self { oldest, latest, .. } = *self;
        (!(oldest..=latest).contains(&version))
            .then(|| format!("key_version: {version} is none of those that it writes with ({oldest} to {latest})"))
    }

    fn misfit(&self, deterministic: bool) -> Option<&'static str> {
        let wrong = self.wrong();
        match (self.convergent, deterministic) {
            _ if wrong.is_some() => wrong,
            (true, false) => Some(
                "it is convergent, so equal values have equal ciphertexts: for rules without mode: deterministic make one \
                 without convergent_encryption",
            ),
            (false, true) => Some(
                "mode: deterministic needs a convergent key: make one with convergent_encryption=true derived=true",
            ),
            _ => None,
        }
    }
}

impl Key {
    fn new(name: VaultKey) -> Self {
        Self {
            name,
            random: AtomicBool::new(false),
            deterministic: AtomicBool::new(false),
            pinned: Mutex::default(),
            latest: AtomicU32::new(0),
            known: Mutex::new(Known::Nothing("not looked at yet".to_owned())),
            fits: [const { AtomicBool::new(false) }; 2],
        }
    }

    pub(crate) fn name(&self) -> &VaultKey {
        &self.name
    }

    /// Whether it is known to do what such a rule promises.
    pub(crate) fn fits(&self, deterministic: bool) -> bool {
        self.fits.get(usize::from(deterministic)).is_some_and(|fits| fits.load(Ordering::Relaxed))
    }

    /// A rule writes with that version.
    pub(crate) fn pin(&self, version: NonZeroU32) {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).insert(version.get());
    }

    /// Its latest version; none where it is not known.
    pub(crate) fn latest(&self) -> Option<u32> {
        Some(self.latest.load(Ordering::Relaxed)).filter(|latest| *latest > 0)
    }

    /// Why it cannot be used as rules ask; none where it can.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.known.lock().unwrap_or_else(PoisonError::into_inner) {
            Known::Nothing(why) => Some(why.clone()),
            Known::Is(about) => {
                let asked = [(&self.random, false), (&self.deterministic, true)];
                let asked = asked.into_iter().filter(|(asked, _)| asked.load(Ordering::Relaxed));
                let misfit = asked.map(|(_, deterministic)| about.misfit(deterministic)).find_map(|misfit| misfit);
                let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
                misfit.map(str::to_owned).or_else(|| pinned.iter().find_map(|version| about.pinned(*version)))
            }
        }
    }

    pub(super) fn learn(&self, about: About) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known::Is(about);
        self.latest.store(about.latest, Ordering::Relaxed);
        for (fits, deterministic) in self.fits.iter().zip([false, true]) {
            fits.store(about.misfit(deterministic).is_none(), Ordering::Relaxed);
        }
    }

    /// There was no answer. What is known stays so: calls themselves tell more.
    pub(super) fn unknown(&self, why: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Known::Nothing(_) = *known {
            *known = Known::Nothing(why);
        }
    }
}

/// All keys that rules name.
#[derive(Default)]
pub(crate) struct Keys(Mutex<Vec<Arc<Key>>>);

impl Keys {
    /// The key of that name, which some rule asks for.
    pub(crate) fn expected(&self, name: &VaultKey, deterministic: bool) -> Arc<Key> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().find(|key| key.name == *name).cloned().unwrap_or_else(|| {
            let key = Arc::new(Key::new(name.clone()));
            keys.push(Arc::clone(&key));
            key
        });
        let asked = if deterministic { &key.deterministic } else { &key.random };
        asked.store(true, Ordering::Relaxed);
        key
    }

    /// Whether no rule names one.
    pub(crate) fn are_none(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn all(&self) -> Vec<Arc<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keys that cannot be used as rules ask, each with why.
    pub(crate) fn troubled(&self) -> Vec<(String, String)> {
        self.all().iter().filter_map(|key| Some((key.name.to_string(), key.trouble()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use oilskin_config::VaultKey;
    use serde_json::json;

    use super::{About, Keys};

    #[test]
    fn only_a_key_that_does_what_rules_promise_is_used() {
        let keys = Keys::default();
        let name = VaultKey { mount: "transit".to_owned(), key: "pii".to_owned() };
        let key = keys.expected(&name, false);
        assert!(!key.fits(false), "nothing is known of it");
        assert_eq!(keys.troubled(), [("vault:transit/keys/pii".to_owned(), "not looked at yet".to_owned())]);
        let about = |derived: bool, convergent: bool, kind: &str| {
            let about =
                json!({"derived": derived, "convergent_encryption": convergent, "type": kind, "latest_version": 3});
            About::read(&about)
        };
        key.learn(about(false, false, "aes256-gcm96"));
        assert!(!key.fits(false) && keys.troubled()[0].1.contains("derived=true"));
        key.learn(about(true, true, "aes256-gcm96"));
        assert!(!key.fits(false) && key.fits(true) && keys.troubled()[0].1.contains("convergent"));
        key.learn(about(true, false, "aes256-gcm96"));
        assert!(key.fits(false) && !key.fits(true) && keys.troubled().is_empty());
        assert_eq!(key.latest(), Some(3));
        keys.expected(&name, true);
        assert!(keys.troubled()[0].1.contains("needs a convergent key"), "another rule asks more");
        key.learn(about(true, false, "rsa-4096"));
        assert!(!key.fits(false));
    }

    #[test]
    fn a_version_that_rules_write_with_has_to_be_there() {
        let keys = Keys::default();
        let name = VaultKey { mount: "transit".to_owned(), key: "pii".to_owned() };
        let key = keys.expected(&name, false);
        key.pin(NonZeroU32::new(2).unwrap());
        let learn = |latest: u32, oldest: u32| {
            key.learn(About::read(&json!({
                "derived": true, "type": "aes256-gcm96", "latest_version": latest, "min_encryption_version": oldest
            })));
            key.trouble().unwrap_or_default()
        };
        assert!(learn(1, 0).contains("key_version: 2 is none of those that it writes with (1 to 1)"));
        assert!(key.fits(false), "it reads, all the same");
        assert_eq!(learn(2, 0), "");
        assert!(learn(5, 3).contains("(3 to 5)"));
    }

    #[test]
    fn an_outage_changes_nothing_of_what_is_known() {
        let keys = Keys::default();
        let key = keys.expected(&VaultKey { mount: "transit".to_owned(), key: "pii".to_owned() }, false);
        let about = |kind: &str| About::read(&json!({"derived": true, "type": kind, "latest_version": 3}));
        key.learn(about("chacha20-poly1305"));
        key.unknown("timeout".to_owned());
        assert!(key.fits(false) && key.latest() == Some(3));
    }
}

//! PKCS#11 URIs (RFC 7512), as much of them as names one key of one token.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::value::Read;

/// How a vendor's token wraps. Said, never guessed by numbers that mean something else elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pkcs11Profile {
    /// AES-GCM with additional data; who makes the nonce shows in the self-test.
    #[default]
    Generic,
    /// SoftHSM 2: AES-GCM with a nonce of ours.
    SoftHsm,
    /// AWS CloudHSM: AES-GCM with a nonce of the token's.
    CloudHsm,
    /// Tokens without AES-GCM: AES key wrap (RFC 3394), which binds no additional data.
    Kw,
}

impl Pkcs11Profile {
    const ALL: [(&'static str, Self); 4] =
        [("generic", Self::Generic), ("softhsm", Self::SoftHsm), ("cloudhsm", Self::CloudHsm), ("kw", Self::Kw)];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, profile)| *profile == self).map_or("generic", |(name, _)| name)
    }
}

/// A key in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11 {
    /// The token's label.
    pub token: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The slot's number; it changes with most tokens, so a label is better.
    pub slot: Option<u64>,
    /// The key's label.
    pub object: Option<String>,
    /// The key's id; empty for none.
    pub id: Vec<u8>,
    /// The library.
    pub module: PathBuf,
    /// The file with the PIN.
    pub pin: PathBuf,
    /// How its vendor's tokens wrap.
    pub profile: Pkcs11Profile,
}

const FORM: &str = "must be pkcs11:token=LABEL;object=LABEL?module-path=/path/to/library.so&pin-source=file:/path/to/pin, perhaps with id=, serial=, slot-id=, profile=";

/// Attributes that are read.
const READ: &str = "token, serial, slot-id, object, id, type, module-path, pin-source and profile";

impl Pkcs11 {
    pub(super) fn parse(rest: &str) -> Read<Self> {
        let (path, query) = rest.split_once('?').ok_or(FORM)?;
        let mut key = Self {
            token: None,
            serial: None,
            slot: None,
            object: None,
            id: Vec::new(),
            module: PathBuf::new(),
            pin: PathBuf::new(),
            profile: Pkcs11Profile::default(),
        };
        let mut seen = Vec::new();
        for part in path.split(';').chain(query.split('&')) {
            let (name, value) = part.split_once('=').ok_or(FORM)?;
            if seen.contains(&name) {
                return Err(format!("{} is given twice", known(name)?));
            }
            seen.push(name);
            key.set(name, value)?;
        }
        match () {
            () if key.token.is_none() && key.serial.is_none() && key.slot.is_none() => {
                Err("names no token: token=, serial= or slot-id=".to_owned())
            }
            () if key.object.is_none() && key.id.is_empty() => Err("names no key: object= or id=".to_owned()),
            () if key.module.as_os_str().is_empty() => Err("names no library: module-path=".to_owned()),
            () if key.pin.as_os_str().is_empty() => Err("names no PIN: pin-source=file:/path".to_owned()),
            () => Ok(key),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Read<()> {
        let text = || {
            let text = percent_decode_str(value).decode_utf8().map_err(|_| format!("{name} is not UTF-8"))?;
            match text.is_empty() || text.contains('\0') {
                true => Err(format!("{name} is empty")),
                false => Ok(text.into_owned()),
            }
        };
        match name {
            "token" => self.token = Some(text()?),
            "serial" => self.serial = Some(text()?),
            "slot-id" => self.slot = Some(text()?.parse().map_err(|_| "slot-id is not a number")?),
            "object" => self.object = Some(text()?),
            "id" => self.id = percent_decode_str(value).collect(),
            "type" if value == "secret-key" => {}
            "type" => return Err("type must be secret-key".to_owned()),
            "module-path" => self.module = absolute(&text()?).ok_or("module-path is not absolute")?,
            "pin-source" => self.pin = absolute(&text()?).ok_or("pin-source must be file:/path or /path")?,
            "pin-value" => return Err("pin-value would stand in the environment and in lists of processes: put the PIN into a file and name that, pin-source=file:/path".to_owned()),
            "profile" => {
                let found = Pkcs11Profile::ALL.iter().find(|(profile, _)| *profile == value);
                self.profile = found.map(|(_, profile)| *profile).ok_or("profile must be generic, softhsm, cloudhsm or kw")?;
            }
            other => {
                let name = known(other).unwrap_or("one of its attributes");
                return Err(format!("{name} is not read here, but {READ} are"));
            }
        }
        Ok(())
    }
}

/// A name of RFC 7512's, which may be repeated: anything else could be a secret in a wrong place.
fn known(name: &str) -> Read<&str> {
    let names = [
        "token",
        "manufacturer",
        "serial",
        "model",
        "library-manufacturer",
        "library-version",
        "library-description",
        "object",
        "type",
        "id",
        "slot-description",
        "slot-manufacturer",
        "slot-id",
        "pin-source",
        "pin-value",
        "module-name",
        "module-path",
        "profile",
    ];
    names.contains(&name).then_some(name).ok_or_else(|| FORM.to_owned())
}

fn absolute(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("file://").or_else(|| text.strip_prefix("file:")).unwrap_or(text);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// What RFC 7512 lets stand as it is, and labels usually have.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// Its PIN's file is no secret; its PIN is never here.
impl fmt::Display for Pkcs11 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |text: &str| utf8_percent_encode(text, KEPT).to_string();
        let mut parts = Vec::new();
        let mut part = |name: &str, value: Option<String>| parts.extend(value.map(|value| format!("{name}={value}")));
        part("token", self.token.as_deref().map(encoded));
        part("serial", self.serial.as_deref().map(encoded));
        part("slot-id", self.slot.map(|slot| slot.to_string()));
        part("object", self.object.as_deref().map(encoded));
        let id: String = self.id.iter().map(|byte| format!("%{byte:02X}")).collect();
        part("id", (!id.is_empty()).then_some(id));
        let (module, pin) = (encoded(&self.module.to_string_lossy()), encoded(&self.pin.to_string_lossy()));
        write!(f, "pkcs11:{}?module-path={module}&pin-source=file:{pin}", parts.join(";"))?;
        match self.profile {
            Pkcs11Profile::Generic => Ok(()),
            profile => write!(f, "&profile={}", profile.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pkcs11, String> {
        Pkcs11::parse(text.strip_prefix("pkcs11:").unwrap())
    }

    #[test]
    fn a_key_of_a_token_is_read() {
        let text = "pkcs11:token=prod%20one;object=root;id=%01%fF;type=secret-key?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin&profile=softhsm";
        let key = read(text).unwrap();
        assert_eq!((key.token.as_deref(), key.object.as_deref()), (Some("prod one"), Some("root")));
        assert_eq!((key.id.as_slice(), key.profile), (&[1, 255][..], Pkcs11Profile::SoftHsm));
        assert_eq!(key.pin, PathBuf::from("/run/pin"));
        assert_eq!(read(&key.to_string()).unwrap(), key);
        let key = read("pkcs11:token=a;object=b?module-path=/m.so&pin-source=/run/pin&profile=kw").unwrap();
        assert_eq!((key.profile, read(&key.to_string()).unwrap() == key), (Pkcs11Profile::Kw, true));
    }

    #[test]
    fn what_names_no_key_or_holds_a_pin_is_refused() {
        let rest = "?module-path=/m.so&pin-source=/run/pin";
        for (path, said) in [
            ("object=a", "no token"),
            ("token=a", "no key"),
            ("token=a;token=b;object=c", "twice"),
            ("token=%ff;object=c", "UTF-8"),
            ("token=a;object=c;type=private", "secret-key"),
            ("token=a;object=c;slot-id=x", "not a number"),
            ("token=a;object=c;model=x", "model is not read"),
            ("token=a;object=c;hunter2=x", "one of its attributes"),
            ("token", "must be pkcs11:"),
        ] {
            let error = read(&format!("pkcs11:{path}{rest}")).unwrap_err();
            assert!(error.contains(said), "{path}: {error}");
            assert!(!error.contains("hunter2"));
        }
        for (query, said) in [
            ("module-path=/m.so&pin-value=hunter2", "pin-source=file:/path"),
            ("module-path=m.so&pin-source=/run/pin", "not absolute"),
            ("module-path=/m.so&pin-source=https://x", "file:/path"),
            ("pin-source=/run/pin", "no library"),
            ("module-path=/m.so", "no PIN"),
            ("module-path=/m.so&pin-source=/run/pin&profile=thales", "generic, softhsm, cloudhsm or kw"),
        ] {
            let error = read(&format!("pkcs11:token=a;object=b?{query}")).unwrap_err();
            assert!(error.contains(said), "{query}: {error}");
            assert!(!error.contains("hunter2"));
        }
    }
}

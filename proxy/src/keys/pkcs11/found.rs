//! The token and the key that a URI names.

use cryptoki::context::Pkcs11;
use cryptoki::error::Error;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::{Slot, TokenInfo};
use oilskin_config::{self as config, Pkcs11Profile};

use super::refused::Refused;
use crate::keys::Fault;

/// Bytes of a root key.
const KEY_BYTES: u64 = 32;

/// The token. One that was there before and is not now is out of reach, not wrong.
pub(super) fn token(context: &Pkcs11, wanted: &config::Pkcs11, was_there: bool) -> Result<(Slot, TokenInfo), Refused> {
    let slots = context.get_slots_with_token().map_err(|error| Refused::of("listing tokens", &error))?;
    // A token that does not say what it is may be another one than is wanted.
    let tokens = slots.into_iter().filter_map(|slot| context.get_token_info(slot).ok().map(|info| (slot, info)));
    let tokens: Vec<(Slot, TokenInfo)> = tokens.collect();
    let fits = |(slot, info): &&(Slot, TokenInfo)| {
        wanted.token.as_deref().is_none_or(|label| label == info.label())
            && wanted.serial.as_deref().is_none_or(|serial| serial == info.serial_number())
            && wanted.slot.is_none_or(|number| number == slot.id())
    };
    let mut fitting = tokens.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some((slot, info)), None) => Ok((*slot, info.clone())),
        (Some(_), Some(_)) => Err(Refused::wrong("several tokens fit: add serial= to the URI")),
        _ if was_there => Err(Refused::unreachable("the token is gone")),
        _ if tokens.is_empty() => {
            Err(Refused::unreachable("the module shows no token: is the HSM, or what connects to it, up?"))
        }
        _ => {
            let labels: Vec<String> = tokens.iter().filter(|(_, info)| info.token_initialized()).map(shown).collect();
            let there = if labels.is_empty() { "none that is initialised".to_owned() } else { labels.join(", ") };
            Err(Refused::wrong(format!("the module has no such token; it has {there}")))
        }
    }
}

fn shown((slot, info): &(Slot, TokenInfo)) -> String {
    format!("{:?} (serial {}, slot {})", info.label(), info.serial_number(), slot.id())
}

/// The key, if it is fit to be a root. Where it was there before, the token now says no about it.
pub(super) fn key(session: &Session, wanted: &config::Pkcs11, was_there: bool) -> Result<ObjectHandle, Refused> {
    let mut template = vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Token(true)];
    template.extend(wanted.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
    template.extend((!wanted.id.is_empty()).then(|| Attribute::Id(wanted.id.clone())));
    let found = session.find_objects(&template).map_err(|error| Refused::of("looking for the key", &error))?;
    match *found.as_slice() {
        [key] => is_fit(session, key, wanted.profile, was_there).map(|()| key),
        [] => Err(Refused {
            fault: if was_there { Fault::Denied } else { Fault::Wrong },
            why: format!(
                "the token has no such secret key for this PIN. Where it wraps keysets, restore the token from its backup: no new \
                 key opens them. For a first one: `pkcs11-tool --login --keygen --key-type AES:32 --sensitive {} --label …`",
                usage(wanted.profile)
            ),
        }),
        _ => Err(Refused::wrong(format!("{} keys fit: name one by object= and id=", found.len()))),
    }
}

/// How `pkcs11-tool` says what a key is for.
pub(crate) fn usage(profile: Pkcs11Profile) -> &'static str {
    if profile == Pkcs11Profile::Kw { "--usage-wrap" } else { "--usage-decrypt" }
}

fn is_fit(session: &Session, key: ObjectHandle, profile: Pkcs11Profile, was_there: bool) -> Result<(), Refused> {
    use AttributeType as Type;
    let (uses, types) = match profile {
        Pkcs11Profile::Kw => {
            ([(Attribute::Wrap(true), "CKA_WRAP"), (Attribute::Unwrap(true), "CKA_UNWRAP")], [Type::Wrap, Type::Unwrap])
        }
        _ => (
            [(Attribute::Encrypt(true), "CKA_ENCRYPT"), (Attribute::Decrypt(true), "CKA_DECRYPT")],
            [Type::Encrypt, Type::Decrypt],
        ),
    };
    let wanted = [&[Type::KeyType, Type::ValueLen, Type::Sensitive, Type::Extractable][..], &types].concat();
    let has = session.get_attributes(key, &wanted).map_err(|error: Error| Refused::of("looking at the key", &error))?;
    let mut missing = Vec::new();
    if !has.contains(&Attribute::KeyType(KeyType::AES)) || !has.contains(&Attribute::ValueLen(KEY_BYTES.into())) {
        missing.push("AES with 32 bytes");
    }
    let sensitive = (Attribute::Sensitive(true), "CKA_SENSITIVE (else whoever has the PIN reads it)");
    for (attribute, name) in uses.into_iter().chain([sensitive]) {
        if !has.contains(&attribute) {
            missing.push(name);
        }
    }
    if !missing.is_empty() {
        let why = format!("the key lacks {}: make another one, and `oilskin keys rewrap`", missing.join(", "));
        return Err(Refused::wrong(why));
    }
    // Once: a token that comes and goes would fill the log with it.
    if !was_there && !has.contains(&Attribute::Extractable(false)) {
        tracing::warn!(
            "a root key is extractable: whoever has the token's PIN can take it out, wrapped by another key"
        );
    }
    Ok(())
}

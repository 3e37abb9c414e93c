//! The trials, in the order in which they are shown.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::error::Error;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::slot::{Slot, TokenInfo};
use oilskin_config::{self as config, Pkcs11Profile};

use super::Probe;
use super::apart::Report;
use super::found::{Fit, Probed, Timed, TokenFound, Worked, Wrap};
use super::number::{KWP, PKCS7, numbered};
use super::wraps::{KINDS, block, by_wrap_key, said};
use crate::keys::pkcs11::gcm::{self, Iv};
use crate::keys::pkcs11::{Module, Refused, Way};

/// Threads that call at once, and round trips of each.
const THREADS: usize = 4;
const ROUND_TRIPS: usize = 250;

const AAD: &[u8] = b"oilskin hsm probe";

/// The library's, whole: it goes into a URI.
pub(super) fn path(words: &Probe) -> PathBuf {
    absolute(&words.module)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

pub(super) fn probe(words: &Probe, report: &mut Report) -> Result<(), Refused> {
    let path = path(words);
    report.begin("being loaded");
    let module = Module::of(&path);
    let context = module.context()?;
    report.begin("telling what it is");
    let info = context.get_library_info().map_err(|error| Refused::of("asking for the library", &error))?;
    report.found.library = format!(
        "{} {} by {}, PKCS#11 {}",
        info.library_description(),
        info.library_version(),
        info.manufacturer_id(),
        info.cryptoki_version()
    );
    report.begin("listing tokens");
    let tokens = tokens(&context)?;
    let chosen = choose(&tokens, words.token.as_deref(), words.pin_file.is_some())?;
    report.found.tokens =
        tokens.iter().map(|(slot, info)| shown(&context, *slot, info, Some(*slot) == chosen)).collect();
    let chosen = chosen.and_then(|slot| tokens.iter().find(|(one, _)| *one == slot));
    let (Some(pin), Some((slot, info))) = (&words.pin_file, chosen) else { return Ok(()) };
    let pin = absolute(pin);
    let desk = Desk { context: &context, module: &module, path: &path, slot: *slot, info, pin: &pin, words };
    desk.tries(report)
}

fn tokens(context: &Pkcs11) -> Result<Vec<(Slot, TokenInfo)>, Refused> {
    let slots = context.get_slots_with_token().map_err(|error| Refused::of("listing tokens", &error))?;
    let tokens = slots.into_iter().filter_map(|slot| context.get_token_info(slot).ok().map(|info| (slot, info)));
    Ok(tokens.filter(|(_, info)| info.token_initialized()).collect())
}

fn choose(tokens: &[(Slot, TokenInfo)], label: Option<&str>, needed: bool) -> Result<Option<Slot>, Refused> {
    let mut fitting = tokens.iter().filter(|(_, info)| label.is_none_or(|label| label == info.label()));
    match (fitting.next(), fitting.next()) {
        (Some((slot, _)), None) => Ok(Some(*slot)),
        (None, _) if label.is_some() => {
            Err(Refused::wrong("the module has no such token; without --token it lists them"))
        }
        (None, _) if needed => Err(Refused::wrong("the module has no token that is initialised")),
        (Some(_), Some(_)) if needed => Err(Refused::wrong("there are several tokens: say --token LABEL")),
        _ => Ok(None),
    }
}

fn shown(context: &Pkcs11, slot: Slot, info: &TokenInfo, chosen: bool) -> TokenFound {
    let known = [
        (MechanismType::AES_GCM, "AES-GCM"),
        (MechanismType::AES_KEY_WRAP, "AES-KW"),
        (MechanismType::AES_KEY_WRAP_PAD, "0x210A"),
        (numbered(KWP), "0x210B"),
        (numbered(PKCS7), "0x210C"),
        (MechanismType::AES_CBC_PAD, "AES-CBC-PAD"),
    ];
    // Asked for one by one: the list that cryptoki makes leaves out what it has no name for.
    let listed = known.iter().filter(|(kind, _)| context.get_mechanism_info(slot, *kind).is_ok());
    TokenFound {
        slot: slot.id(),
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        model: info.model().to_owned(),
        chosen,
        lists: listed.map(|(_, name)| (*name).to_owned()).collect(),
    }
}

struct Desk<'a> {
    context: &'a Pkcs11,
    module: &'a Module,
    path: &'a Path,
    slot: Slot,
    info: &'a TokenInfo,
    pin: &'a Path,
    words: &'a Probe,
}

impl Desk<'_> {
    fn open(&self) -> Result<Session, Refused> {
        self.context.open_ro_session(self.slot).map_err(|error| Refused::of("opening a session", &error))
    }

    fn session(&self) -> Result<Session, Refused> {
        let session = self.open()?;
        self.module.login(&session, self.info, self.pin)?;
        Ok(session)
    }

    /// How long what is repeated may go on: well within the deadline.
    fn while_it_lasts(&self) -> Duration {
        self.words.deadline() / 3
    }

    fn tries(&self, report: &mut Report) -> Result<(), Refused> {
        report.begin("logging in");
        let session = self.session()?;
        let label = self.info.label().to_owned();
        let (object, count) = (self.words.object.clone(), self.words.count);
        report.found.tried = Some(Probed { label, object, count, ..Probed::default() });
        let way = self.wrapping(&session, report);
        let Some(way) = way else { return Ok(()) };
        let key = session.generate_key(&Mechanism::AesKeyGen, &way.throw_away()).map_err(|error| of_key(&error))?;
        self.latency(&session, key, way, report);
        report.begin("being called from 4 sessions at once");
        tried(report).threads = Some(self.threads(key, way));
        drop(session);
        report.begin("being asked for old handles after a new login");
        tried(report).handles = Some(self.handles(way).unwrap_or_else(|refused| refused.why));
        Ok(())
    }

    /// What wraps, and how a root key would; none where nothing does well enough.
    fn wrapping(&self, session: &Session, report: &mut Report) -> Option<Way> {
        report.begin("wrapping by AES-GCM");
        let gcm = gcm_way(session);
        let worked = gcm.as_ref().map(|_| Worked { detects: true, binds: true }).map_err(|refused| refused.why.clone());
        tried(report).wraps.push(Wrap { name: "AES-GCM by C_Encrypt".to_owned(), worked, note: None });
        report.begin("being given IVs for AES-GCM");
        let key = session.generate_key(&Mechanism::AesKeyGen, &gcm::throw_away());
        let given = gcm::random().unwrap_or([9; 12]);
        let iv = |iv| key.as_ref().map_or_else(said, |key| taken(session, *key, iv));
        (tried(report).own_iv, tried(report).zero_iv) = (Some(iv(given)), Some(iv([0; 12])));
        for (name, kind) in KINDS {
            report.begin(&format!("wrapping by {name}"));
            tried(report).wraps.push(by_wrap_key(session, name, kind));
        }
        let way = match gcm {
            Ok(way) => Ok(way),
            Err(refused) => {
                tried(report).not_gcm = Some(refused.why.clone());
                report.begin("wrapping as profile=kw does");
                Way::test(session, Pkcs11Profile::Kw).map_err(|kw| format!("{}; AES-KW: {}", refused.why, kw.why))
            }
        };
        match way {
            Ok(way) => {
                tried(report).fit = Some(Fit::of(way, self.wanted(way).to_string()));
                Some(way)
            }
            Err(why) => {
                tried(report).not_fit = Some(why);
                None
            }
        }
    }

    fn wanted(&self, way: Way) -> config::Pkcs11 {
        config::Pkcs11 {
            token: Some(self.info.label().to_owned()),
            serial: None,
            slot: None,
            object: Some(self.words.object.clone()),
            id: Vec::new(),
            module: self.path.to_owned(),
            pin: self.pin.to_owned(),
            profile: way.profile(),
        }
    }

    fn latency(&self, session: &Session, key: ObjectHandle, way: Way, report: &mut Report) {
        let wrapped = way.wrap(session, key, &[7; 32], AAD).unwrap_or_default();
        let wrap = || way.wrap(session, key, &[7; 32], AAD).is_ok();
        let unwrap = || way.unwrap(session, key, &wrapped, AAD).is_ok();
        let find = || session.find_objects(&way.throw_away()).is_ok();
        let open = || self.open().is_ok();
        let calls: [(&str, &dyn Fn() -> bool); 4] =
            [("wrap", &wrap), ("unwrap", &unwrap), ("find a key", &find), ("open a session", &open)];
        for (name, call) in calls {
            report.begin(&format!("being timed: {name}"));
            let timed = timed(name, self.words.count, self.while_it_lasts(), call);
            tried(report).latency.extend(timed);
        }
    }

    /// Round trips in several sessions at once, a second; or what went wrong.
    fn threads(&self, key: ObjectHandle, way: Way) -> Result<f64, String> {
        let begun = Instant::now();
        let work = || {
            let session = self.open().map_err(|refused| refused.why)?;
            let mut done = 0;
            for number in 0..ROUND_TRIPS {
                let plain = [number as u8; 32];
                let wrapped = way.wrap(&session, key, &plain, AAD).map_err(|refused| refused.why)?;
                let opened = way.unwrap(&session, key, &wrapped, AAD).map_err(|error| said(&error))?;
                if opened.as_slice() != plain {
                    return Err("one session got what another had encrypted".to_owned());
                }
                done += 1;
                if begun.elapsed() > self.while_it_lasts() {
                    break;
                }
            }
            Ok(done)
        };
        let crashed = || Err("a thread ended".to_owned());
        let done: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| crashed())).sum::<Result<u32, String>>()
        })?;
        Ok(f64::from(done) / begun.elapsed().as_secs_f64())
    }

    /// What a handle is good for once all sessions were closed and another one is logged in.
    fn handles(&self, way: Way) -> Result<String, Refused> {
        let key = |session: &Session| {
            session.generate_key(&Mechanism::AesKeyGen, &way.throw_away()).map_err(|error| of_key(&error))
        };
        // What tells a key from others: the same of it each time.
        let mark = |session: &Session, key: ObjectHandle| match way {
            Way::Gcm(_) => block(session, key).map_err(|error| said(&error)),
            Way::Kw => way.wrap(session, key, &[0; 32], AAD).map_err(|refused| refused.why),
        };
        let first = self.session()?;
        let old = key(&first)?;
        let before = mark(&first, old).map_err(Refused::unreachable)?;
        drop(first);
        let second = self.session()?;
        let new = key(&second)?;
        let text = match mark(&second, old) {
            Err(why) => format!("an old handle is refused ({why})"),
            Ok(now) if now == before => "an old handle still is the old key".to_owned(),
            Ok(_) => "AN OLD HANDLE POINTS TO ANOTHER KEY: Oilskin opens a canary before it uses one".to_owned(),
        };
        let again = if old == new { "; numbers are used again" } else { "; numbers are not used again" };
        Ok(text + again)
    }
}

fn tried(report: &mut Report) -> &mut Probed {
    report.found.tried.get_or_insert_default()
}

fn of_key(error: &Error) -> Refused {
    Refused::of("making a key that is thrown away", error)
}

/// AES-GCM as Oilskin's own self-test passes it. A token that replaces IVs makes them.
fn gcm_way(session: &Session) -> Result<Way, Refused> {
    let key = session.generate_key(&Mechanism::AesKeyGen, &gcm::throw_away()).map_err(|error| of_key(&error))?;
    let ours = gcm::test_with(session, key, Pkcs11Profile::SoftHsm);
    let given = gcm::random()?;
    let kept = gcm::encrypt_with(session, key, given, &[7; 32], AAD).is_ok_and(|(iv, _)| iv == given);
    if ours.is_ok() && kept {
        return Ok(Way::Gcm(Iv::Ours));
    }
    gcm::test_with(session, key, Pkcs11Profile::CloudHsm).or(ours).map(Way::Gcm)
}

/// What becomes of an IV.
fn taken(session: &Session, key: ObjectHandle, given: [u8; 12]) -> String {
    match gcm::encrypt_with(session, key, given, &[7; 32], AAD) {
        Ok((iv, _)) if iv == given && iv == [0; 12] => "taken as they are".to_owned(),
        Ok((iv, _)) if iv == given => "taken as it is".to_owned(),
        Ok(_) => "replaced by the token's own".to_owned(),
        Err(error) => format!("refused ({})", said(&error)),
    }
}

/// None where a call fails.
fn timed(name: &str, count: u32, at_most: Duration, call: &dyn Fn() -> bool) -> Option<Timed> {
    let (mut times, all) = (Vec::new(), Instant::now());
    for _ in 0..count {
        let begun = Instant::now();
        if !call() {
            return None;
        }
        times.push(begun.elapsed());
        if all.elapsed() > at_most {
            break;
        }
    }
    times.sort();
    let (middle, late) = (*times.get(times.len() / 2)?, *times.get(times.len() * 99 / 100)?);
    Some(Timed { call: name.to_owned(), calls: times.len() as u32, middle, late })
}

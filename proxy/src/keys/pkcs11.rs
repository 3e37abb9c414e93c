//! Root keys in tokens of HSMs, by PKCS#11.
//!
//! `module` is the vendor's library and its threads, `found` the token and key that a URI names, `way` how they wrap (`gcm` or `kw`), and
//! `refused` what their answers mean. Sessions stay open. Whatever goes wrong ends all of them: then it is logged in again, the key
//! looked for again, and a canary opened before it is used, because old handles may point to other keys.

mod found;
pub(crate) mod gcm;
mod kw;
mod module;
mod refused;
mod way;

use std::sync::{Arc, Mutex};

use cryptoki::error::Error;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use oilskin_config as config;
use oilskin_crypto::Slab;
use oilskin_crypto::document::{Share, ShareKey};
use ring::digest;

pub(crate) use self::found::usage;
pub(crate) use self::module::Module;
use self::module::locked;
pub(crate) use self::refused::{Refused, is_trouble};
pub(crate) use self::way::Way;
use super::provider::{Answer, RootKey};
use super::{Failed, Fault, KeyError};

/// What a canary is bound to.
const CANARY: &[u8] = b"oil1 canary";

/// A root key in a token.
pub(super) struct KeyInToken {
    id: Vec<u8>,
    shown: String,
    slab: Arc<Slab>,
    token: Arc<Token>,
}

struct Token {
    wanted: config::Pkcs11,
    module: Arc<Module>,
    sessions: Mutex<Sessions>,
}

/// Those that nobody uses now. The last one stays open: closing it would log out.
#[derive(Default)]
struct Sessions {
    /// Grows when all were given up: one that is in use then does not come back.
    generation: u64,
    idle: Vec<Line>,
    known: Option<Arc<Known>>,
}

/// A session, and the key's handle in it.
struct Line {
    generation: u64,
    session: Session,
    key: ObjectHandle,
}

/// What was found at the start.
struct Known {
    way: Way,
    canary: [u8; 32],
    wrapped: Vec<u8>,
}

impl KeyInToken {
    /// Nothing is loaded yet.
    ///
    /// # Errors
    /// A library that is not there.
    pub(super) fn new(wanted: &config::Pkcs11, shown: String, slab: &Arc<Slab>) -> Result<Self, KeyError> {
        if !wanted.module.is_file() {
            let module = wanted.module.display();
            return Err(KeyError::Settings(format!("{shown}: there is no PKCS#11 module {module}")));
        }
        let token = Token { wanted: wanted.clone(), module: Module::of(&wanted.module), sessions: Mutex::default() };
        Ok(Self { id: id(wanted), shown, slab: Arc::clone(slab), token: Arc::new(token) })
    }

    /// Runs `work` on a thread that may call the library.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Token) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Failed> {
        let token = Arc::clone(&self.token);
        let answer = self.token.module.call(move || work(&token)).await;
        let gone = || Err(Refused::unreachable("the call into the module did not come back"));
        answer.unwrap_or_else(gone).map_err(|Refused { fault, why }| Failed { what: self.shown.clone(), fault, why })
    }

    fn room(&self) -> Result<ShareKey, Failed> {
        let failed = |error: oilskin_crypto::Error| Failed {
            what: self.shown.clone(),
            fault: Fault::Unreachable,
            why: error.to_string(),
        };
        ShareKey::blank(&self.slab).map_err(failed)
    }
}

/// What its URI says of token and key, not of this machine. The token's own word would be missing while it is out of reach, and another
/// after it was restored from a backup.
fn id(wanted: &config::Pkcs11) -> Vec<u8> {
    let slot = wanted.slot.map(|slot| slot.to_string());
    let parts = [wanted.token.as_deref(), wanted.serial.as_deref(), slot.as_deref(), wanted.object.as_deref()];
    let parts = parts.map(|part| part.unwrap_or_default().as_bytes());
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"oil1 pkcs11");
    for part in parts.into_iter().chain([wanted.id.as_slice()]) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().iter().take(8).copied().collect()
}

impl RootKey for KeyInToken {
    fn id(&self) -> Vec<u8> {
        self.id.clone()
    }

    /// It is made of what the URI says of the key.
    fn has_other_names(&self) -> bool {
        true
    }

    fn wrap<'a>(&'a self, share: &'a [u8; 32], bound: &'a Share) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let mut copy = self.room()?;
            copy.bytes_mut().copy_from_slice(share);
            let aad = bound.aad();
            self.call(move |token| token.with(|line, known| line.wrap(known, copy.bytes(), &aad))).await
        })
    }

    fn unwrap<'a>(&'a self, wrapped: &'a [u8], bound: &'a Share, into: &'a mut [u8; 32]) -> Answer<'a, ()> {
        Box::pin(async move {
            let (mut share, wrapped, aad) = (self.room()?, wrapped.to_vec(), bound.aad());
            let unwrap = move |token: &Token| {
                token.with(|line, known| line.unwrap(known, &wrapped, &aad, share.bytes_mut())).map(|()| share)
            };
            into.copy_from_slice(self.call(unwrap).await?.bytes());
            Ok(())
        })
    }
}

impl Token {
    /// Does it with a session that is open; if that fails, whatever the reason said, with a new one.
    fn with<T>(&self, mut work: impl FnMut(&Line, &Known) -> Result<T, Refused>) -> Result<T, Refused> {
        let held = {
            let mut sessions = locked(&self.sessions);
            sessions.idle.pop().zip(sessions.known.clone())
        };
        if let Some((line, known)) = held {
            match work(&line, &known) {
                Ok(done) => {
                    self.put_back(line);
                    return Ok(done);
                }
                Err(_) => self.give_up(line),
            }
        }
        let (line, known) = self.connect()?;
        match work(&line, &known) {
            Ok(done) => {
                self.put_back(line);
                Ok(done)
            }
            Err(refused) => {
                self.give_up(line);
                Err(refused)
            }
        }
    }

    fn put_back(&self, line: Line) {
        let mut sessions = locked(&self.sessions);
        if line.generation == sessions.generation {
            sessions.idle.push(line);
        } else {
            drop(sessions);
            drop(line);
        }
    }

    fn give_up(&self, line: Line) {
        let mut sessions = locked(&self.sessions);
        sessions.generation += 1;
        let idle = std::mem::take(&mut sessions.idle);
        // Closing calls the library, which may hang: not while others wait for the lock.
        drop(sessions);
        drop((idle, line));
    }

    /// A new session, logged in, with a key that is the one it was.
    fn connect(&self) -> Result<(Line, Arc<Known>), Refused> {
        let (generation, known) = {
            let sessions = locked(&self.sessions);
            (sessions.generation, sessions.known.clone())
        };
        let context = self.module.context()?;
        let (slot, info) = found::token(&context, &self.wanted, known.is_some())?;
        let session = context.open_ro_session(slot).map_err(|error| Refused::of("opening a session", &error))?;
        self.module.login(&session, &info, &self.wanted.pin)?;
        let key = found::key(&session, &self.wanted, known.is_some())?;
        let line = Line { generation, session, key };
        let known = match known {
            Some(known) => known,
            None => {
                let known = Arc::new(line.begin(self.wanted.profile)?);
                Arc::clone(locked(&self.sessions).known.get_or_insert(known))
            }
        };
        line.opens_canary(&known)?;
        Ok((line, known))
    }
}

impl Line {
    fn begin(&self, profile: config::Pkcs11Profile) -> Result<Known, Refused> {
        let way = Way::test(&self.session, profile)?;
        let canary = gcm::random()?;
        let wrapped = way.wrap(&self.session, self.key, &canary, CANARY)?;
        Ok(Known { way, canary, wrapped })
    }

    fn opens_canary(&self, known: &Known) -> Result<(), Refused> {
        let other = || {
            Refused::wrong(
                "the key that the token now has under this name is not the one it was at the start: nothing is done with it; put \
                 the old one back, or restart if the change was meant",
            )
        };
        match known.way.unwrap(&self.session, self.key, &known.wrapped, CANARY) {
            Ok(opened) if opened.as_slice() == known.canary => Ok(()),
            Err(error) if is_trouble(&error) => Err(Refused::of("opening the canary", &error)),
            _ => Err(other()),
        }
    }

    /// Under a stale handle it would be wrapped by who knows which key: the canary is opened before, and what was wrapped after.
    fn wrap(&self, known: &Known, share: &[u8; 32], aad: &[u8]) -> Result<Vec<u8>, Refused> {
        self.opens_canary(known)?;
        let wrapped = known.way.wrap(&self.session, self.key, share, aad)?;
        let mut back = zeroize::Zeroizing::new([0; 32]);
        self.unwrap(known, &wrapped, aad, &mut back)?;
        match *back == *share {
            true => Ok(wrapped),
            false => Err(Refused::unreachable("what the token wrapped does not unwrap to the same")),
        }
    }

    fn unwrap(&self, known: &Known, wrapped: &[u8], aad: &[u8], into: &mut [u8; 32]) -> Result<(), Refused> {
        if wrapped.len() != known.way.length() {
            return Err(Refused::wrong(
                "its share of this keyset does not unwrap: it was altered, or wrapped under another profile=: set that",
            ));
        }
        let opened = known.way.unwrap(&self.session, self.key, wrapped, aad).map_err(|error| match &error {
            Error::Pkcs11(..) if is_trouble(&error) => Refused::of("unwrapping", &error),
            Error::Pkcs11(rv, _) => of_data(*rv, &error),
            _ => altered(),
        })?;
        let opened: &[u8; 32] = opened.as_slice().try_into().map_err(|_| altered())?;
        into.copy_from_slice(opened);
        Ok(())
    }
}

fn altered() -> Refused {
    Refused::wrong("its share of this keyset does not unwrap: it was altered, or another key wrapped it")
}

fn of_data(rv: cryptoki::error::RvError, error: &Error) -> Refused {
    use cryptoki::error::RvError as Rv;
    match rv {
        // A key that wrapped at the start, and may not now.
        Rv::KeyFunctionNotPermitted | Rv::FunctionRejected | Rv::ActionProhibited => {
            Refused { fault: Fault::Denied, ..Refused::of("unwrapping", error) }
        }
        // What tokens say of a wrong tag; SoftHSM says it failed in general.
        Rv::EncryptedDataInvalid
        | Rv::EncryptedDataLenRange
        | Rv::SignatureInvalid
        | Rv::DataInvalid
        | Rv::WrappedKeyInvalid
        | Rv::WrappedKeyLenRange => altered(),
        Rv::GeneralError | Rv::FunctionFailed | Rv::ArgumentsBad => Refused {
            why: format!("{} (or {})", altered().why, Refused::of("the token failed", error).why),
            ..altered()
        },
        _ => Refused::of("unwrapping", error),
    }
}

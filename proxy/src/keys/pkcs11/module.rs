//! A vendor's library: loaded once a process, called by a few threads of its own, logged into with care.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::TokenInfo;
use cryptoki::types::RawAuthPin;
use ring::digest;
use tokio::sync::{Semaphore, oneshot};

use super::refused::Refused;
use crate::alloc;

/// Calls into one library at once. One that hangs keeps its place, and four hung ones are enough to say that the token is out of reach.
const CALLS: usize = 4;

/// Libraries keep state for a whole process: two contexts of one crash some of them, so two roots share it.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// A library.
pub(crate) struct Module {
    path: PathBuf,
    /// Made by the first call. It is never finalised: at the end of the process that would wait for calls that hang.
    context: Mutex<Option<Pkcs11>>,
    calls: Arc<Semaphore>,
    /// By token's serial number: a digest of the PIN that it refused.
    refused: Mutex<HashMap<String, Vec<u8>>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Module {
    /// The one of this path.
    pub(crate) fn of(path: &Path) -> Arc<Self> {
        let mut modules = locked(&MODULES);
        let module = modules.entry(path.to_owned()).or_insert_with(|| {
            Arc::new(Self {
                path: path.to_owned(),
                context: Mutex::default(),
                calls: Arc::new(Semaphore::new(CALLS)),
                refused: Mutex::default(),
            })
        });
        Arc::clone(module)
    }

    /// Loads it, if that was not done yet.
    pub(crate) fn context(&self) -> Result<Pkcs11, Refused> {
        let mut held = locked(&self.context);
        if let Some(context) = &*held {
            return Ok(context.clone());
        }
        let context = Pkcs11::new(&self.path).map_err(|error| Refused::of("loading the module", &error))?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(Refused::of("starting the module", &error)),
        }
        Ok(held.insert(context).clone())
    }

    /// Runs what calls the library. None where the thread did not come back.
    ///
    /// # Cancel safety
    /// What is given up goes on in its thread, keeps its place until it returns, and what it returns is dropped.
    pub(crate) async fn call<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let permit = Arc::clone(&self.calls).acquire_owned().await.ok()?;
        let (answer, answered) = oneshot::channel();
        // Not a thread of the runtime's: at its end it would wait for a call that hangs.
        let thread = std::thread::Builder::new().name("pkcs11".to_owned()).spawn(move || {
            alloc::wipe_what_is_freed();
            let _ = answer.send(work());
            drop(permit);
        });
        thread.ok()?;
        answered.await.ok()
    }

    /// Logs into a token, unless this process is. A PIN that was refused is not tried again before it is another: tokens lock themselves.
    pub(crate) fn login(&self, session: &Session, info: &TokenInfo, pin: &Path) -> Result<(), Refused> {
        // Held while it is tried: several at once would be several wrong attempts.
        let mut refused = locked(&self.refused);
        let state = session.get_session_info().map_err(|error| Refused::of("looking at a session", &error))?;
        if matches!(state.session_state(), SessionState::RoUser | SessionState::RwUser) || !info.login_required() {
            return Ok(());
        }
        let file = pin.display();
        if info.user_pin_locked() {
            return Err(Refused::unreachable(
                "the token has locked the user's PIN: its security officer sets a new one; nothing was tried",
            ));
        }
        if info.user_pin_final_try() {
            return Err(Refused::unreachable(format!(
                "one more wrong PIN would lock the token, so it is not tried from here: log in by hand with the right PIN \
                 (pkcs11-tool --login --test), and put that into {file}"
            )));
        }
        let pin = read_pin(pin)?;
        let mark = digest::digest(&digest::SHA256, &pin);
        if refused.get(info.serial_number()).is_some_and(|known| known == mark.as_ref()) {
            return Err(Refused::unreachable(format!(
                "the token has refused the PIN in {file}; it is tried again when that file has another"
            )));
        }
        match session.login_with_raw(UserType::User, &RawAuthPin::new(Box::new(pin))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                refused.remove(info.serial_number());
                Ok(())
            }
            Err(Error::Pkcs11(rv, _)) if is_of_pin(rv) => {
                refused.insert(info.serial_number().to_owned(), mark.as_ref().to_vec());
                Err(Refused::unreachable(format!(
                    "the token refused the PIN in {file} ({rv:?}); it was tried once, and is again when that file has another"
                )))
            }
            Err(error) => Err(Refused::of("logging in", &error)),
        }
    }
}

fn is_of_pin(rv: RvError) -> bool {
    use RvError as Rv;
    matches!(
        rv,
        Rv::PinIncorrect
            | Rv::PinInvalid
            | Rv::PinLenRange
            | Rv::PinExpired
            | Rv::PinLocked
            | Rv::PinTooWeak
            | Rv::UserPinNotInitialized
    )
}

/// White space at its end does not count. The PIN's own buffer is wiped by what takes it.
fn read_pin(path: &Path) -> Result<Vec<u8>, Refused> {
    let read = crate::tls::read(path).map_err(|refused| Refused::unreachable(refused.text))?;
    let mut pin = zeroize::Zeroizing::new(read);
    let length = pin.trim_ascii_end().len();
    pin.truncate(length);
    match pin.is_empty() {
        true => Err(Refused::unreachable(format!("{}: there is no PIN in it", path.display()))),
        false => Ok(std::mem::take(&mut *pin)),
    }
}

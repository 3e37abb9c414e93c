//! A PKCS#11 module before another one. It forwards every call, writes the watched ones into a log, and does to them what a file says.
//!
//! `P11_FAULT_MODULE` is the real module, `P11_FAULT_LOG` the log (`C_Login 0xa0 PID`, a line a call), `P11_FAULT_CONTROL` the file, read
//! anew with each call. Its lines are `FUNCTION ACTION [TIMES [AFTER]]`, AFTER so many calls that are left alone; actions are
//!
//! - `0x30`: it fails with that code,
//! - `hang:MS`: it takes that long,
//! - `crash`: it writes to where nothing is,
//! - `exit:N`: it ends the process with that code,
//! - `lose`: all sessions of its slot are closed before,
//! - `decoy`: it meets the key that is labelled so instead of the one it should (`C_EncryptInit`, `C_DecryptInit`, `C_FindObjects`),
//! - `fill-iv`, `fixed-iv`: the token puts an IV of its own into the buffer, another each time or always the same (`C_EncryptInit` of AES-GCM),
//! - `cloudhsm`: as AWS CloudHSM does it: an IV that is not zeroes is refused, zeroes are replaced by the token's own (`C_EncryptInit` of AES-GCM),
//! - `number:0x210b:0x210a`: the first mechanism is done as the second (`C_WrapKey`, `C_UnwrapKey`, `C_GetMechanismInfo`),
//! - `sensitive`: what it unwraps cannot be read, whatever is asked for (`C_UnwrapKey`),
//! - `none`: there is no token (`C_GetSlotList`),
//! - `final-try`, `locked`: the token says so of its PIN (`C_GetTokenInfo`).

#![allow(non_snake_case, clippy::missing_safety_doc, reason = "names and rules are PKCS#11's")]
#![allow(clippy::disallowed_methods, reason = "no one else could tell it what to do, and hanging is its trade")]

use std::collections::HashMap;
use std::io::Write;
use std::ptr::addr_of_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use cryptoki_sys::*;

struct Loaded {
    _library: Pkcs11,
    real: CK_FUNCTION_LIST,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();
static USED: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);

fn real() -> &'static CK_FUNCTION_LIST {
    &LOADED.get_or_init(load).real
}

fn load() -> Loaded {
    let path = std::env::var_os("P11_FAULT_MODULE").expect("P11_FAULT_MODULE names the module behind this one");
    // SAFETY: it is a PKCS#11 module, so its function list is one and stays where it is while it is loaded.
    unsafe {
        let library = Pkcs11::new(path).expect("the module behind this one is loaded");
        let mut list = std::ptr::null_mut();
        assert_eq!(library.C_GetFunctionList(&mut list), CKR_OK);
        Loaded { real: *list, _library: library }
    }
}

/// What the file says of this call now.
fn told(function: &str) -> Option<String> {
    let told = std::fs::read_to_string(std::env::var_os("P11_FAULT_CONTROL")?).ok()?;
    let line = told.lines().find(|line| line.split(' ').next() == Some(function))?;
    let mut words = line.split(' ').skip(1);
    let action = words.next()?.to_owned();
    let Some(times) = words.next() else { return Some(action) };
    let after = words.next().unwrap_or("0");
    let [times, after]: [u32; 2] = [times, after].map(|word| word.parse().expect("times are numbers"));
    let mut used = USED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let used = used.get_or_insert_default().entry(line.to_owned()).or_default();
    *used += 1;
    (*used > after && *used <= after + times).then_some(action)
}

fn logged(function: &str, answer: CK_RV) -> CK_RV {
    let path = std::env::var_os("P11_FAULT_LOG");
    let file = path.and_then(|path| std::fs::OpenOptions::new().append(true).create(true).open(path).ok());
    if let Some(mut file) = file {
        let _ = file.write_all(format!("{function} {answer:#x} {}\n", std::process::id()).as_bytes());
    }
    answer
}

/// Does what is said of every function; what else was said is given to `call`.
fn acted(function: &str, session: CK_SESSION_HANDLE, call: impl FnOnce(Option<&str>) -> CK_RV) -> CK_RV {
    let action = told(function);
    let action = action.as_deref();
    if let Some(code) = action.and_then(|action| action.strip_prefix("0x")) {
        return logged(function, CK_RV::from_str_radix(code, 16).expect("a code in hexadecimal digits"));
    }
    if let Some(time) = action.and_then(|action| action.strip_prefix("hang:")) {
        std::thread::sleep(Duration::from_millis(time.parse().expect("milliseconds")));
    }
    if let Some(code) = action.and_then(|action| action.strip_prefix("exit:")) {
        std::process::exit(code.parse().expect("an exit code"));
    }
    if action == Some("crash") {
        // SAFETY: none; that is what is asked for. Not address 0, which debug builds look for.
        unsafe { std::ptr::without_provenance_mut::<u8>(16).write_volatile(1) };
    }
    if action == Some("lose") {
        // SAFETY: the module's own functions with a session that it gave out.
        unsafe {
            let mut info: CK_SESSION_INFO = std::mem::zeroed();
            if real().C_GetSessionInfo.expect("there")(session, &mut info) == CKR_OK {
                real().C_CloseAllSessions.expect("there")(info.slotID);
            }
        }
    }
    logged(function, call(action))
}

/// The handle of the key labelled `decoy`.
unsafe fn decoy(session: CK_SESSION_HANDLE) -> CK_OBJECT_HANDLE {
    let mut label = *b"decoy";
    let mut wanted =
        CK_ATTRIBUTE { type_: CKA_LABEL, pValue: label.as_mut_ptr().cast(), ulValueLen: label.len() as CK_ULONG };
    let (mut handle, mut count) = (0, 0);
    // SAFETY: all pointers are to locals that outlive the calls.
    unsafe {
        real().C_FindObjectsInit.expect("there")(session, &mut wanted, 1);
        real().C_FindObjects.expect("there")(session, &mut handle, 1, &mut count);
        real().C_FindObjectsFinal.expect("there")(session);
    }
    assert_eq!(count, 1, "there is a key labelled decoy");
    handle
}

/// A function that is forwarded as it is, unless something is said of it.
macro_rules! forwarded {
    ($($name:ident($session:ident $(, $argument:ident: $kind:ty)*);)*) => {
        $(unsafe extern "C" fn $name($session: CK_SESSION_HANDLE $(, $argument: $kind)*) -> CK_RV {
            // SAFETY: the caller's promises, handed on.
            acted(stringify!($name), $session, |_| unsafe { real().$name.expect("there")($session $(, $argument)*) })
        })*
    };
}

forwarded! {
    C_CreateObject(session, template: *mut CK_ATTRIBUTE, count: CK_ULONG, object: *mut CK_OBJECT_HANDLE);
    C_DestroyObject(session, object: CK_OBJECT_HANDLE);
    C_GetAttributeValue(session, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_Login(session, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, length: CK_ULONG);
    C_Encrypt(session, data: *mut CK_BYTE, length: CK_ULONG, out: *mut CK_BYTE, room: *mut CK_ULONG);
    C_Decrypt(session, data: *mut CK_BYTE, length: CK_ULONG, out: *mut CK_BYTE, room: *mut CK_ULONG);
    C_FindObjectsInit(session, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_GenerateKey(session, mechanism: *mut CK_MECHANISM, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE);
}

/// One that starts an operation with a key.
macro_rules! with_key {
    ($($name:ident;)*) => {
        $(unsafe extern "C" fn $name(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> CK_RV {
            acted(stringify!($name), session, |action| {
                // SAFETY: the caller's promises, handed on.
                unsafe {
                    let key = if action == Some("decoy") { decoy(session) } else { key };
                    if let Some(way @ ("fill-iv" | "fixed-iv" | "cloudhsm")) = action {
                        let answer = fill_iv(mechanism, way);
                        if answer != CKR_OK {
                            return answer;
                        }
                    }
                    real().$name.expect("there")(session, mechanism, key)
                }
            })
        })*
    };
}

/// As tokens do that make IVs.
unsafe fn fill_iv(mechanism: *mut CK_MECHANISM, way: &str) -> CK_RV {
    static LAST: AtomicU32 = AtomicU32::new(0);
    // SAFETY: AES-GCM has such parameters, and its IV is the caller's to be written to.
    unsafe {
        if (*mechanism).mechanism != CKM_AES_GCM {
            return CKR_OK;
        }
        let params = (*mechanism).pParameter.cast::<CK_GCM_PARAMS>();
        let iv = std::slice::from_raw_parts_mut((*params).pIv, (*params).ulIvLen as usize);
        if way == "cloudhsm" && (iv.len() != 12 || iv.iter().any(|byte| *byte != 0)) {
            return CKR_MECHANISM_PARAM_INVALID;
        }
        iv.fill(7);
        let number = if way == "fixed-iv" { 0 } else { LAST.fetch_add(1, Ordering::Relaxed) };
        // Processes begin anew, and a key is theirs together.
        let number = u64::from(std::process::id()) << 32 | u64::from(number);
        if way == "fixed-iv" {
            iv[0] = 0;
        } else {
            iv[4..12].copy_from_slice(&number.to_be_bytes());
        }
    }
    CKR_OK
}

with_key! { C_EncryptInit; C_DecryptInit; }

/// What a mechanism's number is done as.
fn numbered(action: Option<&str>, number: CK_MECHANISM_TYPE) -> CK_MECHANISM_TYPE {
    let pair = action.and_then(|action| action.strip_prefix("number:0x")).and_then(|pair| pair.split_once(":0x"));
    let pair = pair.map(|(from, to)| {
        [from, to].map(|text| CK_MECHANISM_TYPE::from_str_radix(text, 16).expect("a number in hexadecimal digits"))
    });
    match pair {
        Some([from, to]) if from == number => to,
        _ => number,
    }
}

unsafe extern "C" fn C_WrapKey(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    over: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
    out: *mut CK_BYTE,
    room: *mut CK_ULONG,
) -> CK_RV {
    acted("C_WrapKey", session, |action| {
        // SAFETY: the caller's promises, handed on.
        unsafe {
            let mut mechanism = *mechanism;
            mechanism.mechanism = numbered(action, mechanism.mechanism);
            let over = if action == Some("decoy") { decoy(session) } else { over };
            real().C_WrapKey.expect("there")(session, &mut mechanism, over, key, out, room)
        }
    })
}

unsafe extern "C" fn C_UnwrapKey(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    over: CK_OBJECT_HANDLE,
    wrapped: *mut CK_BYTE,
    length: CK_ULONG,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    acted("C_UnwrapKey", session, |action| {
        // SAFETY: the caller's promises, handed on.
        unsafe {
            let mut mechanism = *mechanism;
            mechanism.mechanism = numbered(action, mechanism.mechanism);
            let over = if action == Some("decoy") { decoy(session) } else { over };
            let mut attributes = std::slice::from_raw_parts(template, count as usize).to_vec();
            let mut yes = CK_TRUE;
            let sensitive =
                attributes.iter_mut().filter(|one| action == Some("sensitive") && one.type_ == CKA_SENSITIVE);
            sensitive.for_each(|one| one.pValue = (&raw mut yes).cast());
            let template = attributes.as_mut_ptr();
            real().C_UnwrapKey.expect("there")(session, &mut mechanism, over, wrapped, length, template, count, key)
        }
    })
}

unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    number: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    // SAFETY: the caller's promises, handed on.
    acted("C_GetMechanismInfo", 0, |action| unsafe {
        real().C_GetMechanismInfo.expect("there")(slot, numbered(action, number), info)
    })
}

unsafe extern "C" fn C_Initialize(arguments: *mut std::ffi::c_void) -> CK_RV {
    // SAFETY: the caller's promises, handed on.
    acted("C_Initialize", 0, |_| unsafe { real().C_Initialize.expect("there")(arguments) })
}

unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    found: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    acted("C_FindObjects", session, |action| {
        // SAFETY: the caller's promises, handed on; `found` has room for what `count` says.
        unsafe {
            let answer = real().C_FindObjects.expect("there")(session, found, most, count);
            if action == Some("decoy") && answer == CKR_OK && *count == 1 {
                real().C_FindObjectsFinal.expect("there")(session);
                *found = decoy(session);
                // The caller's search goes on, over nothing.
                real().C_FindObjectsInit.expect("there")(session, &mut nothing(), 1);
            }
            answer
        }
    })
}

fn nothing() -> CK_ATTRIBUTE {
    static NONE: [u8; 1] = [0];
    CK_ATTRIBUTE { type_: CKA_LABEL, pValue: NONE.as_ptr().cast_mut().cast(), ulValueLen: 1 }
}

unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut std::ffi::c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    // SAFETY: the caller's promises, handed on.
    acted("C_OpenSession", 0, |_| unsafe {
        real().C_OpenSession.expect("there")(slot, flags, application, notify, session)
    })
}

unsafe extern "C" fn C_GetSlotList(present: CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    acted("C_GetSlotList", 0, |action| {
        // SAFETY: the caller's promises, handed on.
        unsafe {
            if action == Some("none") {
                *count = 0;
                return CKR_OK;
            }
            real().C_GetSlotList.expect("there")(present, list, count)
        }
    })
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    acted("C_GetTokenInfo", 0, |action| {
        // SAFETY: the caller's promises, handed on; `info` has room for one.
        unsafe {
            let answer = real().C_GetTokenInfo.expect("there")(slot, info);
            match action {
                Some("final-try") => (*info).flags |= CKF_USER_PIN_FINAL_TRY,
                Some("locked") => (*info).flags |= CKF_USER_PIN_LOCKED,
                _ => {}
            }
            answer
        }
    })
}

struct Shown(CK_FUNCTION_LIST);

/// The list that callers get: the real one, with ours in it.
static mut SHOWN: Option<Shown> = None;

/// # Safety
/// As PKCS#11 says; it is called once before all else, by one thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let mut shown = *real();
    shown.C_GetFunctionList = Some(C_GetFunctionList);
    shown.C_Initialize = Some(C_Initialize);
    shown.C_GetMechanismInfo = Some(C_GetMechanismInfo);
    shown.C_CreateObject = Some(C_CreateObject);
    shown.C_DestroyObject = Some(C_DestroyObject);
    shown.C_GetAttributeValue = Some(C_GetAttributeValue);
    shown.C_WrapKey = Some(C_WrapKey);
    shown.C_UnwrapKey = Some(C_UnwrapKey);
    shown.C_Login = Some(C_Login);
    shown.C_Encrypt = Some(C_Encrypt);
    shown.C_Decrypt = Some(C_Decrypt);
    shown.C_EncryptInit = Some(C_EncryptInit);
    shown.C_DecryptInit = Some(C_DecryptInit);
    shown.C_FindObjectsInit = Some(C_FindObjectsInit);
    shown.C_FindObjects = Some(C_FindObjects);
    shown.C_GenerateKey = Some(C_GenerateKey);
    shown.C_OpenSession = Some(C_OpenSession);
    shown.C_GetSlotList = Some(C_GetSlotList);
    shown.C_GetTokenInfo = Some(C_GetTokenInfo);
    // SAFETY: nobody else looks at it before this returns, and nothing changes it afterwards.
    unsafe {
        let place = addr_of_mut!(SHOWN);
        *list = &mut (*place).insert(Shown(shown)).0;
    }
    CKR_OK
}

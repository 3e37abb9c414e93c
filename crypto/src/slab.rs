//! One locked region for all keys: mlock is checked, and the region stays out of core dumps.
//!
//! libsodium's own allocator ignores an mlock that fails and spends four pages a key; 48 KiB here hold 1,536 keys and fit
//! the 64 KiB that an unprivileged process may usually lock.
#![expect(unsafe_code, reason = "mmap, mlock and the slots inside; each use states why it is sound")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroize;

use crate::Error;
use crate::sodium::KEY;

/// Bytes of the slab by default.
pub const DEFAULT_BYTES: usize = 48 * 1024;

/// Locked memory, cut into slots of 32 bytes.
pub struct Slab {
    base: NonNull<u8>,
    bytes: usize,
    free: Mutex<Vec<u32>>,
}

// SAFETY: slots are handed out once at a time under the mutex; a slot is written before its handle is shared and only read
// after that, until its one owner drops it.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// Maps and locks `bytes` (rounded up to whole pages of 4 KiB). With `unlocked_is_fine`, memory that cannot be locked is
    /// used all the same (`OILSKIN_UNSAFE_UNLOCKED_KEYS`).
    ///
    /// # Errors
    /// [`Error::Memlock`] when the system does not lock it, [`Error::Io`] when it does not map it.
    pub fn new(bytes: usize, unlocked_is_fine: bool) -> Result<Arc<Self>, Error> {
        let bytes = bytes.max(KEY).next_multiple_of(4096);
        // SAFETY: a fresh private mapping, no address asked for.
        let base = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }
        .map_err(|error| Error::Io("cannot map memory for keys", error.into()))?;
        // SAFETY: exactly the mapping made above.
        let locked = unsafe { mlock(base, bytes) };
        // SAFETY: as above; advice changes nothing that Rust sees.
        let hidden = unsafe { madvise(base, bytes, Advice::LinuxDontDump) };
        let base = NonNull::new(base.cast()).ok_or(Error::Memlock { bytes })?;
        let slots = u32::try_from(bytes / KEY).unwrap_or(u32::MAX);
        let slab = Self { base, bytes, free: Mutex::new((0..slots).rev().collect()) };
        if (locked.is_err() || hidden.is_err()) && !unlocked_is_fine {
            return Err(Error::Memlock { bytes });
        }
        Ok(Arc::new(slab))
    }

    /// How many keys it still takes, and how many in all.
    pub fn room(&self) -> (usize, usize) {
        (self.free.lock().unwrap_or_else(PoisonError::into_inner).len(), self.bytes / KEY)
    }

    fn slot(&self, index: u32) -> NonNull<[u8; KEY]> {
        // SAFETY: indices come from `free`, so they lie below bytes / KEY.
        unsafe { self.base.add(index as usize * KEY) }.cast()
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; every key holds the slab by an Arc, so none is left.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A 32-byte key in the slab, wiped when dropped. No `Debug`, no `Clone`, no comparison.
pub struct Key {
    slab: Arc<Slab>,
    index: u32,
}

impl Key {
    /// Takes a slot and lets `fill` write it.
    ///
    /// # Errors
    /// [`Error::SlabFull`]; a larger slab is a setting.
    pub(crate) fn new(slab: &Arc<Slab>, fill: impl FnOnce(&mut [u8; KEY])) -> Result<Self, Error> {
        let index = slab.free.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or(Error::SlabFull)?;
        let slab = Arc::clone(slab);
        let mut place = slab.slot(index);
        // SAFETY: the slot was free, so no reference to it exists until this handle gives one.
        fill(unsafe { place.as_mut() });
        Ok(Self { slab, index })
    }

    /// The key's bytes.
    pub(crate) fn bytes(&self) -> &[u8; KEY] {
        // SAFETY: written in `new`, not changed before drop, which the borrow of self excludes.
        unsafe { self.slab.slot(self.index).as_ref() }
    }

    /// The same, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; KEY] {
        let mut place = self.slab.slot(self.index);
        // SAFETY: as in `bytes`, and the borrow of self, which owns the slot, is the only one.
        unsafe { place.as_mut() }
    }

    /// The slab it lies in.
    pub(crate) fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let mut place = self.slab.slot(self.index);
        // SAFETY: this handle owns the slot, and no reference outlives it.
        unsafe { place.as_mut() }.zeroize();
        self.slab.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

/// A number that a child after fork(2) has another of, for the price of one load: what must not be used by two processes
/// keeps it and compares. It stands on a page that the kernel wipes in the child (Linux 4.14); elsewhere it is the process
/// id, which costs a system call.
pub(crate) fn generation() -> u64 {
    static PAGE: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    let Some(mark) = PAGE.get_or_init(page_wiped_by_fork) else { return std::process::id().into() };
    match mark.load(Ordering::Relaxed) {
        0 => {
            // New or wiped. The parent's was set before the fork, so a later time differs from it.
            let now = clock_gettime(ClockId::Boottime);
            let fresh = (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64).max(1);
            match mark.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => fresh,
                Err(set) => set,
            }
        }
        set => set,
    }
}

fn page_wiped_by_fork() -> Option<&'static AtomicU64> {
    const BYTES: usize = 4096;
    // SAFETY: a fresh private mapping, no address asked for; it is never unmapped.
    let base =
        unsafe { mmap_anonymous(std::ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }
            .ok()?;
    // SAFETY: exactly the mapping made above.
    unsafe { madvise(base, BYTES, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: aligned to a page, zeroed, alive as long as the process, and only reached through this atomic.
    Some(unsafe { NonNull::new(base.cast::<AtomicU64>())?.as_ref() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_wiped_and_used_again() {
        let slab = Slab::new(4096, true).unwrap();
        let keys: Vec<_> = (0..128).map(|n| Key::new(&slab, |key| key.fill(n)).unwrap()).collect();
        assert!(keys.iter().zip(0..).all(|(key, n)| key.bytes() == &[n; 32]));
        assert!(matches!(Key::new(&slab, |_| {}), Err(Error::SlabFull)));
        let index = keys[7].index;
        drop(keys);
        // SAFETY: read-only look at a free slot of a live slab.
        assert_eq!(unsafe { slab.slot(index).as_ref() }, &[0; 32]);
        assert!(Key::new(&slab, |_| {}).is_ok());
    }
}

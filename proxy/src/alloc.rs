//! The allocator: mimalloc, but that threads which deal with root keys wipe what they free.
//!
//! Clients of Vault, AWS and PKCS#11 hold what they wrap and unwrap in buffers of their own, and free them as they are.
#![expect(
    unsafe_code,
    reason = "an allocator is; it hands everything on to mimalloc, and writes only to what is being freed"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::hint::black_box;

use mimalloc::MiMalloc;

thread_local! {
    static WIPES: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread wipes what it frees.
pub(crate) fn wipe_what_is_freed() {
    WIPES.set(true);
}

/// This thread wipes what it frees while `work` lasts.
pub(crate) fn wiping<T>(work: impl FnOnce() -> T) -> T {
    let before = WIPES.replace(true);
    let done = work();
    WIPES.set(before);
    done
}

fn wipes() -> bool {
    // While a thread ends its variables may be gone.
    WIPES.try_with(Cell::get).unwrap_or(false)
}

/// mimalloc that wipes what is freed by threads that asked for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

// SAFETY: every call is mimalloc's own with the same arguments; before a block is freed its bytes are written, which its owner, who
// gives it up, does not see any more.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that mimalloc asks for.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if wipes() {
            // SAFETY: the block has `layout.size()` bytes, and is the caller's until it is freed.
            unsafe { block.write_bytes(0, layout.size()) };
            // Or it would be a write that nobody reads.
            black_box(block);
        }
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !wipes() {
            // SAFETY: as above.
            return unsafe { MiMalloc.realloc(block, layout, size) };
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, does not overflow.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both blocks have that many bytes, and the new one is nobody else's.
            unsafe { new.copy_from_nonoverlapping(block, layout.size().min(size)) };
            // SAFETY: the old one is the caller's to give up.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads what was freed: not sound in general, so that it is done with the allocator that keeps its pages, at once.
    fn freed(wipe: bool) -> usize {
        std::thread::spawn(move || {
            if wipe {
                wipe_what_is_freed();
            }
            let layout = Layout::from_size_align(512, 8).unwrap();
            // SAFETY: a block of mimalloc's own, written and freed; its page stays mapped, and nobody else runs on this thread's heap.
            unsafe {
                let block = Allocator.alloc(layout);
                block.write_bytes(0xa5, 512);
                Allocator.dealloc(block, layout);
                let seen = black_box(block);
                // The first words are the allocator's list of free blocks.
                (64..512).filter(|at| seen.add(*at).read_volatile() == 0xa5).count()
            }
        })
        .join()
        .unwrap()
    }

    #[test]
    fn only_a_thread_that_asked_for_it_wipes_what_it_frees() {
        assert_eq!(freed(false), 448);
        assert_eq!(freed(true), 0);
    }
}

//! Bytes that are wiped when they go.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::sodium;

/// A buffer whose memory is wiped when it is dropped, all of its room. Room that it has grown out of is not: it is to be made as large as
/// it gets.
///
/// It stands for `zeroize::Zeroizing<Vec<u8>>` where much is wiped: that writes byte by byte, which took a tenth of the time that Vault's fields take.
#[derive(Default)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }
}

impl From<Vec<u8>> for Wiped {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Wiped {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Wipes what it holds and the room behind it.
fn wipe(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.capacity(), 0);
    sodium::wipe(bytes);
}

#[cfg(test)]
mod tests {
    use super::{Wiped, wipe};

    #[test]
    fn all_of_its_room_is_wiped() {
        let mut bytes = b"secret".to_vec();
        bytes.reserve_exact(10);
        bytes.truncate(3);
        wipe(&mut bytes);
        assert!(bytes.len() >= 13 && bytes.iter().all(|byte| *byte == 0), "{bytes:?}");
    }

    #[test]
    fn what_it_holds_is_not_shown() {
        let mut held = Wiped::with_capacity(8);
        held.extend_from_slice(b"secret");
        assert_eq!((held.as_slice(), format!("{held:?}")), (&b"secret"[..], "…".to_owned()));
    }
}

//! UTF-8 over pieces: a character may be cut between two of them.

/// The bytes of a character whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    cut: [u8; 4],
    held: usize,
}

impl Utf8 {
    /// Whether all so far is UTF-8, an unfinished character at the end included.
    pub(super) fn accepts(&mut self, mut piece: &[u8]) -> bool {
        while self.held > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            piece = rest;
            let Some(room) = self.cut.get_mut(self.held) else { return false };
            *room = byte;
            self.held += 1;
            match std::str::from_utf8(self.cut.get(..self.held).unwrap_or_default()) {
                Ok(_) => self.held = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        if simdutf8::basic::from_utf8(piece).is_ok() {
            return true;
        }
        let Err(error) = simdutf8::compat::from_utf8(piece) else { return true };
        let rest = piece.get(error.valid_up_to()..).unwrap_or_default();
        if error.error_len().is_some() || rest.len() > 3 {
            return false;
        }
        self.held = rest.len();
        self.cut.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        true
    }

    /// Whether no character is cut.
    pub(super) fn is_whole(&self) -> bool {
        self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Utf8;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(bytes in prop::collection::vec(prop::sample::select(
            vec![b'a', 0x80, 0xbf, 0xc2, 0xe2, 0x82, 0xac, 0xed, 0xa0, 0xf0, 0x9f, 0x98, 0x80, 0xf4, 0xff]), 0..12), cuts in any::<u16>()) {
            let mut utf8 = Utf8::default();
            let mut good = true;
            let mut start = 0;
            for at in 0..bytes.len() {
                if cuts & (1 << at) != 0 {
                    good = good && utf8.accepts(&bytes[start..at]);
                    start = at;
                }
            }
            good = good && utf8.accepts(&bytes[start..]) && utf8.is_whole();
            prop_assert_eq!(good, std::str::from_utf8(&bytes).is_ok());
        }
    }
}

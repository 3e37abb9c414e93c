//! Finds what ends a run of plain bytes, eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Bytes equal to `byte` have their high bit set; bits above the first such byte may be set wrongly.
fn equal(word: u64, byte: u8) -> u64 {
    let differ = word ^ (ONES * u64::from(byte));
    differ.wrapping_sub(ONES) & !differ & HIGHS
}

/// How many bytes pass before `"`, `\` or a control below 0x20 (from "Bit Twiddling Hacks", *Determine if a word has a zero
/// byte*, *… a byte less than n*).
pub(super) fn plain(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = control | equal(word, b'"') | equal(word, b'\\');
        if found != 0 {
            return at * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let stop = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'));
    words.len() * 8 + stop.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn stops_at_the_first_byte_that_is_not_plain() {
        for length in 0..40 {
            let clean: Vec<u8> =
                (0..length).map(|n| [b'a', 0x80, 0xff, b' ', b'!', b'#', b'[', b']', 0x7f, 0x20][n % 10]).collect();
            assert_eq!(plain(&clean), length);
            for at in 0..length {
                for stop in [b'"', b'\\', 0, 0x1f, b'\n'] {
                    let mut bytes = clean.clone();
                    bytes[at] = stop;
                    assert_eq!(plain(&bytes), at, "{stop} at {at} of {length}");
                }
            }
        }
    }
}

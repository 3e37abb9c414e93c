//! Finds where a run of bytes ends, sixteen at a time (`wide` is safe over SSE2 and NEON, which every target of ours has).

use wide::u8x16;

/// How many bytes pass before `"`, `\` or a control below 0x20.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> usize {
    run(bytes, |bytes| {
        let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        control | bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\'))
    })
}

/// How many digits there are.
#[inline]
pub(super) fn digits(bytes: &[u8]) -> usize {
    run(bytes, |bytes| {
        let value = bytes - u8x16::splat(b'0');
        !value.min(u8x16::splat(9)).simd_eq(value)
    })
}

/// How many bytes pass before one that `stops` marks.
#[inline]
fn run(bytes: &[u8], stops: impl Fn(u8x16) -> u8x16) -> usize {
    // Most runs end within the first sixteen.
    let Some(first) = bytes.first_chunk::<16>() else { return last(bytes, stops) };
    match stops(u8x16::new(*first)).to_bitmask() {
        0 => 16 + long(bytes.get(16..).unwrap_or_default(), stops),
        found => found.trailing_zeros() as usize,
    }
}

#[inline(never)]
fn long(bytes: &[u8], stops: impl Fn(u8x16) -> u8x16) -> usize {
    let (chunks, rest) = bytes.as_chunks::<16>();
    for (at, chunk) in chunks.iter().enumerate() {
        let found = stops(u8x16::new(*chunk)).to_bitmask();
        if found != 0 {
            return at * 16 + found.trailing_zeros() as usize;
        }
    }
    chunks.len() * 16 + last(rest, stops)
}

/// Fewer than sixteen: judged beside bytes that nothing asks for.
#[inline(never)]
fn last(bytes: &[u8], stops: impl Fn(u8x16) -> u8x16) -> usize {
    let mut room = [0; 16];
    if let Some(start) = room.get_mut(..bytes.len()) {
        start.copy_from_slice(bytes);
    }
    let found = stops(u8x16::new(room)).to_bitmask();
    (found.trailing_zeros() as usize).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::{digits, plain};

    #[test]
    fn stops_at_the_first_byte_that_is_not_plain() {
        for length in 0..150 {
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

    #[test]
    fn digits_end_at_the_first_byte_that_is_none() {
        for length in 0..70 {
            let clean: Vec<u8> = (0..length).map(|n| b'0' + (n % 10) as u8).collect();
            assert_eq!(digits(&clean), length);
            for at in 0..length {
                for stop in [b'/', b':', b'.', b'e', 0, 0xff, b' '] {
                    let mut bytes = clean.clone();
                    bytes[at] = stop;
                    assert_eq!(digits(&bytes), at, "{stop} at {at} of {length}");
                }
            }
        }
    }
}

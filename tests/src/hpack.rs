//! HPACK (RFC 7541): reads everything, writes literals only.

use std::collections::VecDeque;

/// A list of fields, pseudo-header fields included.
pub type Fields = Vec<(String, String)>;

/// Writes fields without table and Huffman code.
pub fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len(), 7);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn integer(block: &mut Vec<u8>, mut value: usize, bits: u32) {
    let most = (1 << bits) - 1;
    if value < most {
        block.push(value as u8);
        return;
    }
    block.push(most as u8);
    value -= most;
    while value >= 128 {
        block.push((value % 128 + 128) as u8);
        value /= 128;
    }
    block.push(value as u8);
}

/// One connection's reader.
#[derive(Debug, Default)]
pub struct Decoder {
    table: VecDeque<(String, String)>,
}

impl Decoder {
    /// Reads one whole header block.
    pub fn decode(&mut self, block: &[u8]) -> Fields {
        let mut fields = Vec::new();
        let mut at = 0;
        while at < block.len() {
            let first = block[at];
            if first & 0x80 != 0 {
                let index = read_integer(block, &mut at, 7);
                fields.push(self.entry(index));
            } else if first & 0xe0 == 0x20 {
                // A new size. Peers here keep to the default, so nothing is evicted that is asked for again.
                read_integer(block, &mut at, 5);
            } else {
                let kept = first & 0x40 != 0;
                let index = read_integer(block, &mut at, if kept { 6 } else { 4 });
                let name = if index == 0 { read_text(block, &mut at) } else { self.entry(index).0 };
                let value = read_text(block, &mut at);
                if kept {
                    self.table.push_front((name.clone(), value.clone()));
                    self.evict();
                }
                fields.push((name, value));
            }
        }
        fields
    }

    fn evict(&mut self) {
        let size = |entry: &(String, String)| entry.0.len() + entry.1.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > 4096 {
            self.table.pop_back();
        }
    }

    fn entry(&self, index: usize) -> (String, String) {
        match STATIC.get(index - 1) {
            Some((name, value)) => ((*name).to_owned(), (*value).to_owned()),
            None => self.table[index - 1 - STATIC.len()].clone(),
        }
    }
}

fn read_integer(block: &[u8], at: &mut usize, bits: u32) -> usize {
    let most = (1 << bits) - 1;
    let mut value = usize::from(block[*at]) & most;
    *at += 1;
    if value < most {
        return value;
    }
    let mut shift = 0;
    loop {
        let byte = usize::from(block[*at]);
        *at += 1;
        value += (byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            return value;
        }
    }
}

fn read_text(block: &[u8], at: &mut usize) -> String {
    let huffman = block[*at] & 0x80 != 0;
    let length = read_integer(block, at, 7);
    let text = &block[*at..*at + length];
    *at += length;
    let text = if huffman { unsqueeze(text) } else { text.to_vec() };
    String::from_utf8_lossy(&text).into_owned()
}

/// Undoes the Huffman code, bit by bit: codes of one length are consecutive, in the order of their symbols.
fn unsqueeze(squeezed: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let (mut code, mut length) = (0_u64, 0);
    for bit in squeezed.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)) {
        code = code << 1 | u64::from(bit);
        length += 1;
        if let Some(symbol) = symbol(code, length) {
            text.push(symbol);
            (code, length) = (0, 0);
        }
    }
    text
}

fn symbol(code: u64, length: u8) -> Option<u8> {
    let of = |length: u8| LENGTHS.iter().filter(move |found| **found == length);
    let first = (1..length).fold(0_u64, |first, shorter| (first + of(shorter).count() as u64) << 1);
    let place = usize::try_from(code.checked_sub(first)?).ok()?;
    let (symbol, _) = LENGTHS.iter().enumerate().filter(|(_, found)| **found == length).nth(place)?;
    u8::try_from(symbol).ok()
}

/// Lengths in bits of the Huffman codes of bytes 0 to 255 and the end mark (RFC 7541, appendix B). The codes follow from them:
/// they are canonical.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
    6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22,
    20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23,
    23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22,
    22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26,
    27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27,
    26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// RFC 7541, appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""),
    ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""),
    ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""),
    ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""),
    ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

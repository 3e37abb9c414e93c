//! Bodies to work on, the same at every run.

use std::fmt::Write as _;

/// A small generator (splitmix64), so that bodies do not depend on a library's version.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 12] = [
            "river",
            "Montréal",
            "invoice",
            "blue",
            "delivery",
            "north",
            "ordinary",
            "x",
            "quarterly",
            "naïve",
            "glass",
            "reconciliation",
        ];
        WORDS.get(self.below(WORDS.len() as u64) as usize).copied().unwrap_or_default()
    }
}

/// About 15 kB: 40 customers with an SSN, an e-mail address and a card number each.
pub(super) fn customers() -> Vec<u8> {
    let mut numbers = Numbers(15);
    let mut text = String::from("{\"customers\": [");
    for id in 0..40 {
        let separator = if id == 0 { "" } else { ", " };
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "{separator}{{\"id\": {id}, \"name\": \"{} {}\", \"ssn\": \"{}\", \"email\": \"{}.{}@example.com\", \
             \"card\": {{\"number\": \"{}\", \"expires\": \"2029-{:02}\", \"holder\": \"{} {}\"}}, \"balance\": {}.{:02}, \"active\": {}, \
             \"tags\": [\"{}\", \"{}\"], \"note\": \"{} {} {} {} {}\", \"address\": {{\"city\": \"{}\", \"zip\": \"{}\"}}}}",
            numbers.word(),
            numbers.word(),
            numbers.digits(11),
            numbers.word(),
            numbers.digits(4),
            numbers.digits(16),
            numbers.below(12) + 1,
            numbers.word(),
            numbers.word(),
            numbers.below(100_000),
            numbers.below(100),
            numbers.below(2) == 0,
            numbers.word(),
            numbers.word(),
            numbers.word(),
            numbers.word(),
            numbers.word(),
            numbers.word(),
            numbers.word(),
            numbers.word(),
            numbers.digits(5),
        );
    }
    text.push_str("]}");
    text.into_bytes()
}

/// About 1 MB of records: names, numbers, short and long strings, some escapes, nesting.
pub(super) fn records() -> Vec<u8> {
    let mut numbers = Numbers(1);
    let mut text = String::from("[");
    while text.len() < 1_000_000 {
        let separator = if text.len() == 1 { "" } else { "," };
        let _ = write!(
            text,
            "{separator}{{\"id\":{},\"kind\":\"{}\",\"created_at\":\"2026-{:02}-{:02}T12:00:00Z\",\"amount\":{}.{:02},\"currency\":\"EUR\",\
             \"customer\":{{\"name\":\"{} {}\",\"phone\":\"+49 {}\",\"address\":{{\"street\":\"{} {}\",\"zip\":\"{}\",\"geo\":[{}.{},{}.{}]}}}},\
             \"lines\":[",
            numbers.below(1 << 40),
            numbers.word(),
            numbers.below(12) + 1,
            numbers.below(28) + 1,
            numbers.below(10_000),
            numbers.below(100),
            numbers.word(),
            numbers.word(),
            numbers.digits(9),
            numbers.word(),
            numbers.below(200),
            numbers.digits(5),
            numbers.below(90),
            numbers.digits(6),
            numbers.below(180),
            numbers.digits(6),
        );
        for line in 0..numbers.below(4) {
            let separator = if line == 0 { "" } else { "," };
            let _ = write!(
                text,
                "{separator}{{\"sku\":\"{}\",\"quantity\":{},\"price\":{}.{:02},\"gift\":{}}}",
                numbers.digits(8),
                numbers.below(9) + 1,
                numbers.below(500),
                numbers.below(100),
                numbers.below(2) == 0,
            );
        }
        let words: Vec<&str> = (0..numbers.below(30)).map(|_| numbers.word()).collect();
        let _ = write!(text, "],\"comment\":\"{}\\n{}\",\"parent\":null}}", words.join(" "), numbers.word());
    }
    text.push(']');
    text.into_bytes()
}

//! Inputs without end from a seed: the corpus, mutated. The same seed gives the same inputs on every machine.

/// Longest input made.
const MAX: usize = 4096;

/// Bytes that parsers treat in their own way.
const TELLING: &[u8] = b"{}[]:,\"\\'/*$.@?!&|<>=-+0123456789eEu \t\r\n\0\x1f\x7f\x80\xbf\xc0\xed\xf4\xffoil1_%#~";

/// Mutates a corpus.
#[derive(Debug)]
pub struct Generator {
    state: u64,
    corpus: Vec<Vec<u8>>,
}

impl Generator {
    /// A generator over these inputs, at least one.
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        assert!(!corpus.is_empty(), "a generator needs something to begin with");
        Self { state: seed, corpus }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.random() % end as u64) as usize
    }

    /// One of the corpus, as it is.
    fn pick(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        self.corpus[at].clone()
    }

    /// The next input.
    pub fn make(&mut self) -> Vec<u8> {
        let mut data = self.pick();
        for _ in 0..=self.below(6) {
            self.mutate(&mut data);
        }
        data.truncate(MAX);
        data
    }

    fn mutate(&mut self, data: &mut Vec<u8>) {
        let at = self.below(data.len() + 1);
        let length = self.below(16).min(data.len() - at);
        match self.below(8) {
            0 | 1 if at < data.len() => data[at] ^= 1 << self.below(8),
            2 if at < data.len() => data[at] = TELLING[self.below(TELLING.len())],
            3 => data.insert(at, TELLING[self.below(TELLING.len())]),
            4 => {
                data.drain(at..at + length);
            }
            5 => {
                let copy = data[at..at + length].to_vec();
                let to = self.below(data.len() + 1);
                data.splice(to..to, copy);
            }
            6 => {
                let other = self.pick();
                let from = self.below(other.len() + 1);
                let upto = (from + self.below(40)).min(other.len());
                data.splice(at..at, other[from..upto].iter().copied());
            }
            7 => {
                let byte = self.random() as u8;
                data.insert(at, byte);
            }
            _ => {}
        }
    }
}

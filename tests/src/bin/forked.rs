//! Writes tokens, forks in the middle of a message, and lets parent and child go on with what both hold: E1.
//!
//! Its own program because fork(2) in a test binary of many threads copies locks that nobody will release.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a tool of tests")]

use std::path::Path;

use oilskin_crypto::{Bound, FieldSpec, Message, Value};
use oilskin_tests::keys;

/// Tokens of each stretch.
const COUNT: usize = 50;

#[expect(unsafe_code, reason = "std has no fork, and a fork is what is tried here")]
mod sys {
    // SAFETY: fork(2) takes nothing; this process has one thread.
    unsafe extern "C" {
        pub(crate) safe fn fork() -> i32;
    }
}

fn write(message: &mut Message, specs: &[FieldSpec], who: &str) {
    let mut lines = String::new();
    for _ in 0..COUNT {
        for spec in specs {
            let mut token = Vec::new();
            message.encrypt(spec, Value::Null, Bound::default(), &mut token).unwrap();
            lines.push_str(&format!("{who} {}\n", String::from_utf8(token).unwrap()));
        }
    }
    print!("{lines}");
}

fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let handle = keys::open(Path::new(&folder), "default");
    let specs: Vec<_> = ["a", "b"].map(|context| FieldSpec::new(vec![context.to_owned()])).into();
    let mut message = Message::new(&handle, None, 0);
    // The second context's place is made after the fork only.
    write(&mut message, &specs[..1], "before");
    let who = match sys::fork() {
        -1 => panic!("cannot fork"),
        0 => "child",
        _ => "parent",
    };
    write(&mut message, &specs, who);
    write(&mut Message::new(&handle, None, 0), &specs, who);
}

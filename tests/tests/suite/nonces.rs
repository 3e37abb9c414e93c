//! E1 of the attack catalogue across processes: restarts, replicas with the same keys, and a fork in the middle of a message.

use std::collections::HashSet;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oilskin_crypto::{Bound, FieldSpec, Message};
use oilskin_tests::keys::Keys;
use oilskin_tests::tools;

#[test]
fn nonces_never_repeat_over_restarts_and_forks_with_the_same_keys() {
    let keys = Keys::new();
    let handle = keys.handle("default");
    let specs = ["a", "b"].map(|context| FieldSpec::new(vec![context.to_owned()]));
    let mut seen = HashSet::new();
    let mut writers = HashSet::new();
    for _ in 0..20 {
        let lines = tools::feed(Command::new(env!("CARGO_BIN_EXE_forked")).arg(keys.folder()), &[]);
        assert_eq!(lines.len(), 50 + 2 * (2 * 50 + 2 * 50));
        for line in lines {
            let (who, token) = line.split_once(' ').unwrap();
            let bytes = URL_SAFE_NO_PAD.decode(&token[5..]).unwrap();
            assert!(seen.insert(bytes[10..34].to_vec()), "{who} repeats a nonce");
            writers.insert(who.to_owned());
            let opens = specs.iter().any(|spec| {
                Message::new(&handle, None, 0)
                    .decrypt(spec, token.as_bytes(), Bound::default(), &mut Vec::new())
                    .is_ok()
            });
            assert!(opens, "{who}'s token does not open");
        }
    }
    assert_eq!(writers.len(), 3, "before the fork, the parent and the child wrote");
}

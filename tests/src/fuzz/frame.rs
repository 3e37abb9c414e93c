//! What a backend decrypted, before it becomes JSON.

use oilskin_crypto::{FieldSpec, Frame, Value};

/// The first byte picks a frame and a rule, and whether the rest was decrypted or is a value that is yet to be encrypted.
pub(super) fn frame(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let frame = if choice & 1 == 0 { Frame::Typed } else { Frame::Bare };
    let spec = FieldSpec::new(vec!["ssn".to_owned()]).depth(16).pad((choice & 2 != 0 && choice & 1 == 0).then_some(16));
    if choice & 4 == 0 {
        opens_to_json_or_nothing(frame, &spec, rest);
    } else if let Ok(text) = std::str::from_utf8(rest) {
        gives_back(frame, &spec, text);
    }
}

fn opens_to_json_or_nothing(frame: Frame, spec: &FieldSpec, plain: &[u8]) {
    let mut out = b"before".to_vec();
    match frame.unwrap(spec, plain, &mut out) {
        Ok(()) => {
            let json = out.strip_prefix(b"before").unwrap();
            assert!(serde_json::from_slice::<serde_json::Value>(json).is_ok() || is_out_of_serde_s_range(json));
        }
        Err(_) => assert_eq!(out, b"before"),
    }
}

/// JSON has numbers that the library does not read.
fn is_out_of_serde_s_range(json: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(json).is_err_and(|error| error.to_string().contains("out of range"))
}

fn gives_back(frame: Frame, spec: &FieldSpec, text: &str) {
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    frame.wrap(spec, Value::Text(text), &mut plain).unwrap();
    frame.unwrap(spec, &plain, &mut out).unwrap();
    assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
}

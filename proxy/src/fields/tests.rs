//! The rewriter against a slow oracle that reads whole documents.

mod cases;
mod oracle;

use std::sync::Arc;

use oilskin_config::{BindPlace, BindValue, Selector};
use proptest::prelude::*;

use super::{Answer, Error, Field, HoleId, JsonRule, Limits, PathValues, Program, Replacement, Resolver, Rewriter};

/// How the resolver of a test answers.
#[derive(Debug, Clone, Copy)]
enum When {
    Now,
    /// At once or later, by turns.
    Mixed,
    Later,
}

/// Replaces a value by a string that shows rule, bound values and its bytes, reversibly.
struct Marker {
    when: When,
    turns: usize,
    late: Vec<(HoleId, Vec<u8>, bool)>,
    drops: bool,
}

fn mark(rule: usize, bound: &[(&[u8], &[u8])], raw: &[u8]) -> Vec<u8> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bound: Vec<String> = bound.iter().map(|(name, value)| format!("{}={}", hex(name), hex(value))).collect();
    format!("\"<{rule}|{}|{}>\"", bound.join(","), hex(raw)).into_bytes()
}

/// Whether the test's resolver leaves this value out.
fn dropped(raw: &[u8]) -> bool {
    raw.iter().map(|byte| usize::from(*byte)).sum::<usize>().is_multiple_of(3)
}

impl Resolver for Marker {
    type Error = ();

    fn resolve(&mut self, field: Field<'_>, out: &mut Vec<u8>) -> Result<Answer, ()> {
        let drop = self.drops && dropped(field.raw);
        let value = mark(field.rule, field.bound, field.raw);
        self.turns += 1;
        let later = match self.when {
            When::Now => false,
            When::Later => true,
            When::Mixed => self.turns.is_multiple_of(2),
        };
        if later {
            self.late.push((field.hole, value, drop));
            return Ok(Answer::Later);
        }
        if drop {
            return Ok(Answer::Dropped);
        }
        out.extend_from_slice(&value);
        Ok(Answer::Written)
    }
}

/// Rewrites in pieces of these lengths; late answers come in the order that `seed` gives.
fn rewrite(
    rules: &[JsonRule<'_>],
    path: &PathValues,
    document: &[u8],
    cuts: &[usize],
    when: When,
    seed: usize,
) -> Result<Vec<u8>, Error<()>> {
    let program = Arc::new(Program::compile(rules).unwrap());
    let limits = Limits { holes: 3, ..Limits::default() };
    let mut rewriter = Rewriter::new(program, limits, path.clone());
    let drops = rules.iter().any(|rule| rule.may_drop);
    let mut marker = Marker { when, turns: seed, late: Vec::new(), drops };
    let mut out = Vec::new();
    let mut rest = document;
    let mut cuts = cuts.iter().copied().cycle();
    while !rest.is_empty() {
        let length = cuts.next().unwrap_or(usize::MAX).clamp(1, rest.len());
        let taken = rewriter.push(&rest[..length], &mut marker, &mut out)?;
        rest = &rest[taken..];
        let stuck = taken < length;
        if stuck || (seed + rest.len()).is_multiple_of(5) {
            answer_one(&mut rewriter, &mut marker, &mut out, seed + rest.len());
        }
    }
    rewriter.finish(&mut marker, &mut out)?;
    while !marker.late.is_empty() {
        let turn = seed + marker.late.len();
        answer_one(&mut rewriter, &mut marker, &mut out, turn);
    }
    assert_eq!(rewriter.open_holes(), 0);
    Ok(out)
}

fn answer_one(rewriter: &mut Rewriter, marker: &mut Marker, out: &mut Vec<u8>, turn: usize) {
    if marker.late.is_empty() {
        return;
    }
    let (hole, value, drop) = marker.late.swap_remove(turn % marker.late.len());
    let replacement = if drop { Replacement::Dropped } else { Replacement::Bytes(&value) };
    rewriter.answer::<()>(hole, replacement, out).unwrap();
    assert_eq!(rewriter.answer::<()>(hole, replacement, out), Err(Error::Unasked));
}

fn bind(name: &str, places: &[BindPlace]) -> BindValue {
    BindValue { name: name.to_owned(), places: places.to_vec() }
}

const KEYS: [&str; 6] = ["a", "b", "c", "id", "é\"", ""];

/// A key as it may be spelled.
fn key() -> impl Strategy<Value = String> {
    (prop::sample::select(&KEYS[..]), 0..3).prop_map(|(key, spelling)| match (key, spelling) {
        ("a", 1) => "\"\\u0061\"".to_owned(),
        ("é\"", 1) => "\"\\u00e9\\u0022\"".to_owned(),
        _ => serde_json::to_string(key).unwrap(),
    })
}

fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["", "", "", " ", "\n", " \t\r\n "][..])
}

fn scalar() -> impl Strategy<Value = String> {
    prop::sample::select(
        &[
            "null",
            "true",
            "false",
            "0",
            "-1",
            "1.10",
            "1e400",
            "123456789012345678901234567890",
            "\"\"",
            "\"x\"",
            "\"caf\\u00e9\"",
            "\"😀\\ud83d\\ude00\"",
            "\"a\\\"b\\\\\"",
            "42",
            "\"42\"",
            "-0.0E-0",
        ][..],
    )
    .prop_map(str::to_owned)
}

/// Arbitrary JSON, with arbitrary white space.
fn json() -> impl Strategy<Value = String> {
    let spaced = (space(), scalar(), space()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
    spaced.prop_recursive(5, 40, 5, |inner| {
        let member =
            (space(), key(), space(), inner.clone()).prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        let object =
            (prop::collection::vec(member, 0..5), space(), space(), space()).prop_map(|(members, empty, a, b)| {
                let inside = if members.is_empty() { empty.to_owned() } else { members.join(",") };
                format!("{a}{{{inside}}}{b}")
            });
        let array =
            (prop::collection::vec(inner, 0..5), space(), space(), space()).prop_map(|(elements, empty, a, b)| {
                let inside = if elements.is_empty() { empty.to_owned() } else { elements.join(",") };
                format!("{a}[{inside}]{b}")
            });
        prop_oneof![object, array]
    })
}

fn selector() -> impl Strategy<Value = String> {
    let step = prop::sample::select(&["'a'", "'b'", "'id'", "'é\"'", "*", "0", "1", "1:", ":2", "::2", "1:4:3"][..]);
    let segment = (prop::bool::weighted(0.3), prop::collection::vec(step, 1..3))
        .prop_map(|(deep, steps)| format!("{}[{}]", if deep { ".." } else { "" }, steps.join(",")));
    prop::collection::vec(segment, 0..4).prop_map(|segments| format!("${}", segments.concat()))
}

fn binds() -> impl Strategy<Value = Vec<BindValue>> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let place = prop_oneof![
        Just(BindPlace::Relative { up: 0, names: names(&["id"]) }),
        Just(BindPlace::Relative { up: 1, names: names(&["id"]) }),
        Just(BindPlace::Relative { up: 0, names: names(&["b", "id"]) }),
        Just(BindPlace::Document(names(&["id"]))),
        Just(BindPlace::Path("id".to_owned())),
        Just(BindPlace::Path("other".to_owned())),
    ];
    let values = prop::collection::vec(prop::collection::vec(place, 1..3), 0..3);
    prop_oneof![2 => Just(Vec::new()), 1 => values].prop_map(|values: Vec<Vec<BindPlace>>| {
        values.into_iter().zip(["one", "two"]).map(|(places, name)| bind(name, &places)).collect()
    })
}

fn rules() -> impl Strategy<Value = Vec<(Selector, bool, Vec<BindValue>)>> {
    let rule = (selector(), any::<bool>(), binds())
        .prop_map(|(text, each, bind)| (Selector::parse(&text).unwrap(), each, bind));
    prop::collection::vec(rule, 1..4)
}

/// Twelve times the default, so that PROPTEST_CASES still makes it a long run.
fn often() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: 12 * config.cases, max_shrink_iters: 20_000, ..config }
}

proptest! {
    #![proptest_config(often())]

    #[test]
    fn the_result_is_the_oracle_s_whatever_the_pieces_and_answers(
        document in json(), rules in rules(), cuts in prop::collection::vec(1_usize..30, 1..4),
        when in prop::sample::select(&[When::Now, When::Mixed, When::Later][..]), seed in 0_usize..1000, drops: bool,
    ) {
        // The document itself cannot be left out; a configuration that would is refused.
        let drops = drops && rules.iter().all(|(selector, ..)| !selector.segments().is_empty());
        let rules: Vec<JsonRule<'_>> = rules
            .iter()
            .map(|(selector, each, bind)| JsonRule { selector, each: *each, bind, may_drop: drops, scalars: false })
            .collect();
        let path = PathValues(vec![("id".to_owned(), b"42".to_vec())]);
        let expected = oracle::rewrite(&rules, &path, document.as_bytes());
        let found = rewrite(&rules, &path, document.as_bytes(), &cuts, when, seed);
        match (expected, found) {
            (Ok(expected), Ok(found)) => prop_assert_eq!(String::from_utf8(found).unwrap(), String::from_utf8(expected).unwrap()),
            // Which of several wrong bound values is met first depends on the pieces.
            (Err(()), Err(Error::Bind { .. })) => {}
            (expected, found) => prop_assert!(false, "{:?} {:?}", expected, found),
        }
    }

    #[test]
    fn what_is_not_json_is_refused_like_serde_json_refuses_it(
        document in prop::collection::vec(prop::sample::select(b"{}[]:,\"\\ u0d8e-+.1tfrnalsx\xc3\xa9\n".to_vec()), 0..14),
        cuts in prop::collection::vec(1_usize..5, 1..3),
    ) {
        let selector = Selector::parse("$..*").unwrap();
        let rules = [JsonRule { selector: &selector, each: true, bind: &[], may_drop: true, scalars: false }];
        let found = rewrite(&rules, &PathValues::default(), &document, &cuts, When::Mixed, 1);
        // Into strings, not IgnoredAny, which lets half surrogates pass.
        let expected = serde_json::from_slice::<serde_json::Value>(&document);
        // 1e999 is JSON that serde_json's numbers cannot hold.
        if !expected.as_ref().is_err_and(|error| error.to_string().contains("out of range")) {
            prop_assert_eq!(found.is_ok(), expected.is_ok(), "{:?} {:?} {:?}", String::from_utf8_lossy(&document), found, expected);
        }
    }
}

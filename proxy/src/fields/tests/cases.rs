//! Cases by name.

use super::*;

fn one(selector: &str, document: &str) -> Result<String, Error<()>> {
    let selector = Selector::parse(selector).unwrap();
    let rules = [JsonRule { selector: &selector, each: false, bind: &[], may_drop: false, scalars: false }];
    let whole = rewrite(&rules, &PathValues::default(), document.as_bytes(), &[usize::MAX], When::Now, 0);
    let bytewise = rewrite(&rules, &PathValues::default(), document.as_bytes(), &[1], When::Now, 0);
    assert_eq!(whole, bytewise);
    whole.map(|out| String::from_utf8(out).unwrap())
}

#[test]
fn names_compare_after_unescaping_and_every_duplicate_is_rewritten() {
    let out = one("$.ssn", r#"{"ssn":1,"\u0073sn":2,"SSN":3,"x":{"ssn":4}}"#).unwrap();
    assert_eq!(out, r#"{"ssn":"<0||31>","\u0073sn":"<0||32>","SSN":3,"x":{"ssn":4}}"#);
}

#[test]
fn the_whole_document_can_be_selected() {
    assert_eq!(one("$", " 12 ").unwrap(), " \"<0||3132>\" ");
    assert_eq!(one("$", "12").unwrap(), "\"<0||3132>\"");
    assert_eq!(one("$", "[1]").unwrap(), "\"<0||5b315d>\"");
}

#[test]
fn what_is_no_document_is_refused() {
    for document in [
        "\u{feff}{}",
        "{}{}",
        "{} x",
        "nulx",
        "[1,]",
        "{\"a\":1,}",
        "{,}",
        "[1 2]",
        "{\"a\" 1}",
        "01",
        "1.x",
        "\"\u{0}\"",
        "'a'",
        "+1",
        "NaN",
        "\"\\ud800\"",
        "{\"\\udc00\":1}",
        "\"\\ud800\\n\"",
        "// x\n{}",
        "[}",
        "{]",
        "]",
    ] {
        assert!(matches!(one("$.x", document), Err(Error::Malformed(_))), "{document:?} {:?}", one("$.x", document));
    }
    for document in ["{", "[1", "\"a", "{\"a\":", "tru", "-", "1e", " ", "[1,"] {
        assert_eq!(one("$.x", document), Err(Error::Truncated), "{document:?}");
    }
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert!(one("$.x", &nested(128)).is_ok());
    assert_eq!(one("$.x", &nested(129)), Err(Error::TooDeep));
    assert_eq!(one("$", &nested(100_000)), Err(Error::TooDeep));
}

#[test]
fn a_selected_value_is_bounded_and_an_unselected_one_is_not() {
    let selector = Selector::parse("$.a").unwrap();
    let rules = [JsonRule { selector: &selector, each: false, bind: &[], may_drop: false, scalars: false }];
    let program = Arc::new(Program::compile(&rules).unwrap());
    let limits = Limits { field: 100, ..Limits::default() };
    for (member, length, fits) in [("a", 100, true), ("a", 101, false), ("b", 1_000_000, true)] {
        let document = format!("{{\"{member}\":\"{}\"}}", "x".repeat(length));
        for piece in [7, 1 << 20] {
            let mut rewriter = Rewriter::new(Arc::clone(&program), limits, PathValues::default());
            let mut marker = Marker { when: When::Now, turns: 0, late: Vec::new(), drops: false };
            let mut out = Vec::new();
            let outcome = document
                .as_bytes()
                .chunks(piece)
                .try_for_each(|piece| rewriter.push(piece, &mut marker, &mut out).map(|_| ()));
            let expected = if fits { Ok(()) } else { Err(Error::TooLarge { rule: 0 }) };
            assert_eq!(outcome, expected, "{member} {length} {piece}");
        }
    }
}

#[test]
fn a_bound_member_that_comes_twice_is_an_error_even_after_release() {
    let selector = Selector::parse("$..ssn").unwrap();
    let bind = [bind("record", &[BindPlace::Relative { up: 0, names: vec!["id".to_owned()] }])];
    let rules = [JsonRule { selector: &selector, each: false, bind: &bind, may_drop: false, scalars: false }];
    let run = |document: &str| {
        let outcome = rewrite(&rules, &PathValues::default(), document.as_bytes(), &[3], When::Now, 0);
        outcome.map(|out| String::from_utf8(out).unwrap())
    };
    let twice = Err(Error::Bind { rule: 0, reason: super::super::BindError::Twice });
    assert_eq!(run(r#"{"id":1,"ssn":2,"id":1}"#), twice);
    assert_eq!(run(r#"{"id":1,"id":1,"ssn":2}"#), twice);
    assert_eq!(run(r#"{"ssn":2,"id":1,"id":1}"#), twice);
    assert!(run(r#"{"id":1,"id":1}"#).is_ok(), "no field was bound to it");
    let missing = Err(Error::Bind { rule: 0, reason: super::super::BindError::Missing });
    assert_eq!(run(r#"[{"ssn":2}]"#), missing);
    let both = r#"[{"ssn":1,"id":"42"},{"id":42,"ssn":1}]"#;
    let out = r#"[{"ssn":"<0|7265636f7264=3432|31>","id":"42"},{"id":42,"ssn":"<0|7265636f7264=3432|31>"}]"#;
    assert_eq!(run(both).unwrap(), out);
}

#[test]
fn a_record_holds_back_no_more_than_its_window() {
    let selector = Selector::parse("$.ssn").unwrap();
    let bind = [bind("record", &[BindPlace::Document(vec!["id".to_owned()])])];
    let rules = [JsonRule { selector: &selector, each: false, bind: &bind, may_drop: false, scalars: false }];
    let run = |padding: usize| {
        let document = format!("{{\"ssn\":1,\"pad\":\"{}\",\"id\":1}}", "x".repeat(padding));
        rewrite(&rules, &PathValues::default(), document.as_bytes(), &[1000], When::Now, 0).map(|_| ())
    };
    assert_eq!(run(200 << 10), Ok(()));
    assert_eq!(run(300 << 10), Err(Error::Bind { rule: 0, reason: super::super::BindError::Window }));
}

#[test]
fn the_window_is_the_same_however_the_document_is_cut() {
    let selector = Selector::parse("$.ssn").unwrap();
    let bind = [bind("record", &[BindPlace::Document(vec!["id".to_owned()])])];
    for may_drop in [false, true] {
        let rules = [JsonRule { selector: &selector, each: false, bind: &bind, may_drop, scalars: false }];
        let run = |padding: usize, cut: usize| {
            let document = format!("{{\"ssn\":1,\"pad\":\"{}\",\"id\":1}}", "x".repeat(padding));
            rewrite(&rules, &PathValues::default(), document.as_bytes(), &[cut], When::Now, 0)
        };
        let edge = (262_000..262_200).find(|padding| run(*padding, 1 << 20).is_err()).unwrap();
        for cut in [1000, 4093, 65_536] {
            assert!(run(edge - 1, cut).is_ok() && run(edge, cut).is_err(), "{cut}");
        }
    }
}

#[test]
fn selectors_without_end_are_refused_when_compiled() {
    let deep = "$".to_owned() + &"..*[1,3,7].a".repeat(12);
    let selectors: Vec<_> = (0..8).map(|n| Selector::parse(&format!("{deep}.x{n}")).unwrap()).collect();
    let rules: Vec<_> = selectors
        .iter()
        .map(|selector| JsonRule { selector, each: false, bind: &[], may_drop: false, scalars: false })
        .collect();
    let start = std::time::Instant::now();
    let _ = Program::compile(&rules);
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "the construction is bounded");
    let slices = Selector::parse("$[::63, ::64]").unwrap();
    let rules = [JsonRule { selector: &slices, each: false, bind: &[], may_drop: false, scalars: false }];
    assert!(Program::compile(&rules).is_err());
}

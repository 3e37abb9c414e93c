use super::{Segment, Selector, SelectorError, Step};

fn parse(text: &str) -> Selector {
    Selector::parse(text).expect(text)
}

#[test]
fn reads_each_kind_of_step() {
    let selector = parse("$.a..['b', 2][*][1:5:2]");
    let slice = Step::Slice { start: 1, end: Some(5), step: 2 };
    let expected = [
        Segment::Child(vec![Step::Name("a".into())]),
        Segment::Descendant(vec![Step::Name("b".into()), Step::Index(2)]),
        Segment::Child(vec![Step::Wildcard]),
        Segment::Child(vec![slice]),
    ];
    assert_eq!(selector.segments(), expected);
}

#[test]
fn names_are_unescaped() {
    assert_eq!(parse(r#"$["\u0073sn"]"#).last_name(), Some("ssn"));
    assert_eq!(parse(r"$['it\'s']").last_name(), Some("it's"));
    assert_eq!(parse(r"$['a\\b']").last_name(), Some(r"a\b"));
    assert_eq!(parse(r"$['a\nb']").last_name(), Some("a\nb"));
}

#[test]
fn refuses_what_cannot_be_streamed_with_its_reason() {
    for (text, reason) in [
        ("$[?@.a]", "a filter"),
        ("$[-1]", "a negative index"),
        ("$[-2:]", "a negative slice bound"),
        ("$[:-1]", "a negative slice bound"),
        ("$[::-1]", "a negative slice step"),
    ] {
        assert_eq!(Selector::parse(text), Err(SelectorError::NotStreamable(reason)), "{text}");
    }
}

#[test]
fn refuses_bad_syntax_in_one_line() {
    for text in ["", "ssn", "$.", "$[", "$['a", "$.a b", " $.a", "$[01]", "$..", "path.id"] {
        let error = Selector::parse(text).expect_err(text).to_string();
        assert!(!error.contains('\n') && error.len() > 30, "{text}: {error}");
    }
    assert!(Selector::parse(&format!("$.{}", "a".repeat(5000))).is_err());
}

#[test]
fn bad_syntax_is_named_with_its_place_whatever_the_text() {
    for (text, reason) in [
        ("$.a[", "empty selector at byte 4"),
        ("ssn", "missing root identifier at byte 1"),
        ("$.a b", "at byte"),
        // Both make the parser's own report panic.
        ("d.a.b[.a.b['b,d''b,d'", "at byte"),
        ("$['日本", "at byte"),
    ] {
        let error = Selector::parse(text).expect_err(text).to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let deep = format!("$[?{}@.a{}]", "(".repeat(200), ")".repeat(200));
    assert!(Selector::parse(&deep).expect_err("deep").to_string().contains("nested too deeply"));
}

#[test]
fn default_contexts_keep_names_apart() {
    for (text, context) in [
        ("$.a.b", "a.b"),
        ("$['a.b']", r"a\.b"),
        (r"$['a\\b']", r"a\\b"),
        ("$..card.number", "card.number"),
        ("$.items[*].card.number", "items.card.number"),
        ("$[0][*]", ""),
        ("$", ""),
    ] {
        assert_eq!(parse(text).default_context(), context, "{text}");
    }
}

#[test]
fn tells_what_can_never_win() {
    for (outer, inner, strictly, covers) in [
        ("$.a", "$.a", false, true),
        ("$.a", "$.a", true, false),
        ("$.a", "$.a.b", true, true),
        ("$..ssn", "$.a.ssn", false, true),
        ("$.a.ssn", "$..ssn", false, false),
        ("$..*", "$.a", false, true),
        ("$.*", "$.a.b", true, true),
        ("$", "$..x", true, true),
        ("$.a[0:3]", "$.a[2]", false, true),
        ("$.a[0:3]", "$.a[3]", false, false),
        ("$.a[0:2]", "$.a[*]", false, false),
        ("$['a','b']", "$.b", false, true),
        ("$..a..b", "$.a.c.b.d", true, true),
    ] {
        assert_eq!(parse(outer).covers(&parse(inner), strictly), covers, "{outer} {inner} {strictly}");
    }
}

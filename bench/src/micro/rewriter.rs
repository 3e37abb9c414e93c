//! The rewriter alone: 1 MB of JSON in 16 KiB pieces, eight selectors, nothing matches.

use std::hint::black_box;
use std::sync::Arc;

use oilskin::fields::{Answer, Field, JsonRule, Limits, PathValues, Program, Resolver, Rewriter};
use oilskin_config::Selector;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Pair, samples};

const CHILDREN: [&str; 8] = [
    "$.ssn",
    "$.customer.ssn",
    "$[*].customer.ssn",
    "$[*].customer.address.iban",
    "$[*].lines[*].serial",
    "$[*].card.number",
    "$[*].passport",
    "$[*].customer.birth_date",
];

const DESCENDANTS: [&str; 8] =
    ["$..ssn", "$..iban", "$..serial", "$..card.number", "$..passport", "$..birth_date", "$..tax_id", "$..salary"];

const PIECE: usize = 16 * 1024;

struct Never;

impl Resolver for Never {
    type Error = ();

    fn resolve(&mut self, _: Field<'_>, _: &mut Vec<u8>) -> Result<Answer, ()> {
        Err(())
    }
}

pub(super) fn pairs() -> Vec<Pair> {
    vec![
        pair("rewriter, 1 MB, 8 child selectors", 0.8, &CHILDREN),
        pair("rewriter, 1 MB, 8 descendant selectors", 0.6, &DESCENDANTS),
    ]
}

fn pair(name: &'static str, must: f64, selectors: &[&str]) -> Pair {
    let body: Arc<[u8]> = samples::records().into();
    let selectors: Vec<Selector> = selectors.iter().filter_map(|text| Selector::parse(text).ok()).collect();
    assert_eq!(selectors.len(), 8, "all selectors parse");
    let rule = |selector| JsonRule { selector, each: false, bind: &[], may_drop: false };
    let rules: Vec<_> = selectors.iter().map(rule).collect();
    let program = Program::compile(&rules).map(Arc::new);
    let Ok(program) = program else { panic!("eight selectors compile") };
    let same = Arc::clone(&body);
    Pair {
        name,
        must,
        baseline: Box::new(move || {
            assert!(simdutf8::basic::from_utf8(&same).is_ok());
            let mut parser = serde_json::Deserializer::from_slice(&same);
            assert!(black_box(IgnoredAny::deserialize(&mut parser)).is_ok());
        }),
        ours: Box::new(move || {
            let mut rewriter = Rewriter::new(Arc::clone(&program), Limits::default(), PathValues::default());
            let mut out = Vec::with_capacity(PIECE);
            for piece in body.chunks(PIECE) {
                out.clear();
                assert_eq!(rewriter.push(piece, &mut Never, &mut out), Ok(piece.len()));
                black_box(&out);
            }
            assert_eq!(rewriter.finish(&mut Never, &mut out), Ok(()));
        }),
    }
}

//! The rewriter alone: 1 MB of JSON in 16 KiB pieces, eight selectors, nothing matches.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::Result;
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

pub(super) fn pairs() -> Result<Vec<Pair>> {
    Ok(vec![
        pair("rewriter, 1 MB in 16 KiB pieces, 8 child selectors, against IgnoredAny + simdutf8", 0.8, &CHILDREN)?,
        pair("the same with 8 descendant selectors", 0.6, &DESCENDANTS)?,
    ])
}

fn pair(what: &'static str, must: f64, selectors: &[&str]) -> Result<Pair> {
    let body: Arc<[u8]> = samples::records().into();
    let selectors = selectors.iter().map(|text| Selector::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let rule = |selector| JsonRule { selector, each: false, bind: &[], may_drop: false, scalars: false };
    let rules: Vec<_> = selectors.iter().map(rule).collect();
    let program = Arc::new(Program::compile(&rules)?);
    let same = Arc::clone(&body);
    Ok(Pair {
        what,
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
    })
}

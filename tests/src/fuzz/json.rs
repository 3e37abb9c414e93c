//! The rewriter: serde_json's verdict, one result for any chunking and any lateness, and encrypt then decrypt as identity.

use std::sync::{Arc, OnceLock};

use oilskin::fields::{
    Answer, Error, Field, HoleId, JsonRule, Kind, Limits, PathValues, Program, Replacement, Resolver, Rewriter,
};
use oilskin_config::Selector;
use oilskin_crypto::{Bound, Cipher, FieldSpec, KeysetHandle, Message, Value, looks_like_token};

use super::token::is_undecided;
use crate::keys::Keys;

/// Rules that the first byte picks from: selectors, and whether each leaf is taken by itself.
const RULES: [(&[&str], bool); 8] = [
    (&["$.a"], false),
    (&["$..a", "$..b[*]"], false),
    (&["$..*"], true),
    (&["$.none"], false),
    (&["$"], false),
    (&["$[::2]", "$..['a','b'].b"], true),
    (&["$.*.*", "$..a..b"], false),
    (&["$[1:3]", "$.a[0]", "$['\\u00e9\"']"], true),
];

struct Made {
    programs: Vec<Arc<Program>>,
    handle: KeysetHandle,
    spec: FieldSpec,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| Made {
        programs: RULES.iter().map(|(selectors, each)| Arc::new(compile(selectors, *each))).collect(),
        handle: Keys::with(Cipher::Aegis256, false).handle("default"),
        spec: FieldSpec::new(vec!["a".to_owned()]),
    })
}

fn compile(selectors: &[&str], each: bool) -> Program {
    let selectors: Vec<_> = selectors.iter().map(|text| Selector::parse(text).unwrap()).collect();
    let rule = |selector| JsonRule { selector, each, bind: &[], may_drop: false, scalars: false };
    Program::compile(&selectors.iter().map(rule).collect::<Vec<_>>()).unwrap()
}

/// The first byte picks the rules, the next two how the document that follows is cut.
pub(super) fn json(data: &[u8]) {
    let &[choice, first, second, ref document @ ..] = data else { return };
    let program = &made().programs[usize::from(choice % 8)];
    let cuts = [usize::from(first % 32) + 1, usize::from(second % 8) + 1];
    let whole = rewrite(program, document, &[usize::MAX], &mut Marker::now());
    match serde_json::from_slice::<serde_json::Value>(document) {
        Ok(_) => assert!(whole.is_ok(), "JSON is refused: {whole:?}"),
        Err(error) if is_undecided(&error) => {}
        Err(error) => assert!(whole.is_err(), "what is no JSON passes: {error}"),
    }
    let pieces = rewrite(program, document, &cuts, &mut Marker::now());
    let late = rewrite(program, document, &cuts, &mut Marker::late(usize::from(first)));
    for other in [pieces, late] {
        // Which of several things wrong is met first depends on the pieces; what comes out does not.
        match (&whole, other) {
            (Ok(whole), Ok(other)) => assert_eq!(whole, &other, "the pieces change the result"),
            (Err(_), Err(_)) => {}
            (whole, other) => panic!("the pieces change the verdict: {whole:?} {other:?}"),
        }
    }
    if whole.is_ok() {
        let message = || Message::new(&made().handle, None, 0);
        let sealed = rewrite(program, document, &cuts, &mut Encrypting(message())).unwrap();
        let opened = rewrite(program, &sealed, &[cuts[1]], &mut Decrypting(message())).unwrap();
        assert_eq!(opened, document, "not what went in");
    }
}

/// Rewrites in pieces of these lengths, over and over.
fn rewrite<R: Resolver<Error = ()> + Late>(
    program: &Arc<Program>,
    document: &[u8],
    cuts: &[usize],
    resolver: &mut R,
) -> Result<Vec<u8>, Error<()>> {
    let limits = Limits { holes: 3, ..Limits::default() };
    let mut rewriter = Rewriter::new(Arc::clone(program), limits, PathValues::default());
    let (mut out, mut rest) = (Vec::new(), document);
    let mut cuts = cuts.iter().copied().cycle();
    while !rest.is_empty() {
        let length = cuts.next().unwrap_or(1).min(rest.len());
        let taken = rewriter.push(&rest[..length], resolver, &mut out)?;
        rest = &rest[taken..];
        if taken < length {
            resolver.answer_one(&mut rewriter, &mut out);
        }
    }
    rewriter.finish(resolver, &mut out)?;
    while rewriter.open_holes() > 0 {
        resolver.answer_one(&mut rewriter, &mut out);
    }
    Ok(out)
}

/// A resolver that may owe answers.
trait Late {
    fn answer_one(&mut self, _: &mut Rewriter, _: &mut Vec<u8>) {
        panic!("nothing was left for later");
    }
}

/// Replaces a value by a string that shows the rule and its bytes.
struct Marker {
    turn: Option<usize>,
    open: Vec<(HoleId, Vec<u8>)>,
}

impl Marker {
    fn now() -> Self {
        Self { turn: None, open: Vec::new() }
    }

    fn late(turn: usize) -> Self {
        Self { turn: Some(turn), open: Vec::new() }
    }
}

impl Resolver for Marker {
    type Error = ();

    fn resolve(&mut self, field: Field<'_>, out: &mut Vec<u8>) -> Result<Answer, ()> {
        let hex: String = field.raw.iter().map(|byte| format!("{byte:02x}")).collect();
        let mark = format!("\"<{}|{hex}>\"", field.rule).into_bytes();
        if self.turn.is_some() {
            self.open.push((field.hole, mark));
            return Ok(Answer::Later);
        }
        out.extend_from_slice(&mark);
        Ok(Answer::Written)
    }
}

impl Late for Marker {
    fn answer_one(&mut self, rewriter: &mut Rewriter, out: &mut Vec<u8>) {
        let turn = self.turn.unwrap() + self.open.len();
        let (hole, mark) = self.open.swap_remove(turn % self.open.len());
        rewriter.answer::<()>(hole, Replacement::Bytes(&mark), out).unwrap();
    }
}

struct Encrypting(Message);

impl Late for Encrypting {}

impl Resolver for Encrypting {
    type Error = ();

    fn resolve(&mut self, field: Field<'_>, out: &mut Vec<u8>) -> Result<Answer, ()> {
        let value = match field.kind {
            Kind::String => Value::String(field.raw),
            Kind::Number => Value::Number(field.raw),
            Kind::True => Value::Boolean(true),
            Kind::False => Value::Boolean(false),
            Kind::Null => Value::Null,
            Kind::Array => Value::Array(field.raw),
            Kind::Object => Value::Object(field.raw),
        };
        out.push(b'"');
        self.0.encrypt(&made().spec, value, Bound::default(), out).map_err(|_| ())?;
        out.push(b'"');
        Ok(Answer::Written)
    }
}

struct Decrypting(Message);

impl Late for Decrypting {}

impl Resolver for Decrypting {
    type Error = ();

    fn resolve(&mut self, field: Field<'_>, out: &mut Vec<u8>) -> Result<Answer, ()> {
        let [b'"', token @ .., b'"'] = field.raw else { return Err(()) };
        assert!(looks_like_token(token));
        self.0.decrypt(&made().spec, token, Bound::default(), out).map_err(|_| ())?;
        Ok(Answer::Written)
    }
}

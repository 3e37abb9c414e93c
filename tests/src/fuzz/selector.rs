//! Selectors: what is read means the same when it is written out and read again.

use std::fmt::Write as _;

use oilskin::fields::{JsonRule, Program};
use oilskin_config::{Segment, Selector, Step};

/// Automata of more segments than this take longer to build than a fuzzer should wait.
const COMPILED: usize = 4;

/// Reads a selector.
pub(super) fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let selector = match Selector::parse(text) {
        Ok(selector) => selector,
        Err(error) => {
            let reason = error.to_string();
            assert!(!reason.is_empty() && !reason.contains(['\n', '\r']), "not one line: {reason:?}");
            return;
        }
    };
    assert_eq!(selector.to_string(), text);
    let again = Selector::parse(&selector.to_string()).unwrap();
    assert_eq!(selector, again);
    let spelled = spelled(&selector);
    // Written out in full a name may pass the longest selector that is taken.
    if let Ok(normal) = Selector::parse(&spelled) {
        assert_eq!(normal.segments(), selector.segments(), "{spelled}");
    } else {
        assert!(spelled.len() > 4096, "{spelled}");
    }
    let _ = selector.covers(&again, true);
    let _ = (selector.default_context(), selector.last_name());
    if selector.segments().len() <= COMPILED {
        let rule = JsonRule { selector: &selector, each: false, bind: &[], may_drop: false, scalars: false };
        let _ = Program::compile(&[rule]);
    }
}

/// A selector in its longest form.
fn spelled(selector: &Selector) -> String {
    let mut out = "$".to_owned();
    for segment in selector.segments() {
        let steps: Vec<String> = segment.steps().iter().map(step).collect();
        let dots = if matches!(segment, Segment::Descendant(_)) { ".." } else { "" };
        write!(out, "{dots}[{}]", steps.join(",")).unwrap();
    }
    out
}

fn step(step: &Step) -> String {
    match step {
        Step::Name(name) => serde_json::to_string(name).unwrap(),
        Step::Wildcard => "*".to_owned(),
        Step::Index(index) => index.to_string(),
        Step::Slice { start, end, step } => {
            format!("{start}:{}:{step}", end.map(|end| end.to_string()).unwrap_or_default())
        }
    }
}

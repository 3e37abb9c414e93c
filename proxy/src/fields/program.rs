//! Rules, compiled.

use oilskin_config::{BindPlace, BindValue, Selector};

use super::automaton::{Builder, Node, Watch};

/// Rules of one program at most.
const MAX_RULES: usize = 4096;

/// What the rewriter must know of a rule.
pub struct JsonRule<'a> {
    /// What it selects.
    pub selector: &'a Selector,
    /// Every leaf below a selected container by itself.
    pub each: bool,
    /// Bound values, in byte order of names.
    pub bind: &'a [BindValue],
    /// An answer may be a drop.
    pub may_drop: bool,
    /// It selects no object and no array: other rules go on inside of those.
    pub scalars: bool,
}

/// Why rules do not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Together they need too large an automaton.
    #[error(
        "these selectors together are too complex: use fewer wildcards below `..`, or slices whose steps have a smaller common multiple"
    )]
    TooComplex,
    /// Too many.
    #[error("more than 4096 rules")]
    TooMany,
}

/// All rules of one phase, compiled into one automaton; immutable, shared by all messages.
pub struct Program {
    pub(super) nodes: Vec<Node>,
    pub(super) rules: Vec<Rule>,
    /// How many members below its start each watched value is.
    pub(super) watches: Vec<usize>,
}

/// One rule, compiled.
pub(super) struct Rule {
    pub(super) each: bool,
    pub(super) may_drop: bool,
    pub(super) bind: Vec<Bind>,
}

/// One bound value.
pub(super) struct Bind {
    pub(super) name: Vec<u8>,
    pub(super) places: Vec<Place>,
}

/// Where it may stand.
pub(super) enum Place {
    /// In the object `up` above the one that holds the selected member, under this watch.
    Relative { up: usize, watch: u16 },
    /// In the document, under this watch.
    Document { watch: u16 },
    /// In the route's path, by name.
    Path(String),
}

impl Program {
    /// Compiles rules; a field's `rule` is its place in them.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn compile(rules: &[JsonRule<'_>]) -> Result<Self, CompileError> {
        if rules.len() > MAX_RULES {
            return Err(CompileError::TooMany);
        }
        let mut watches = Vec::new();
        let compiled: Vec<Rule> = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| Rule {
                each: rule.each,
                may_drop: rule.may_drop,
                bind: rule.bind.iter().map(|bind| Bind::compile(bind, index, &mut watches)).collect(),
            })
            .collect();
        let selectors: Vec<_> = rules.iter().map(|rule| rule.selector.segments()).collect();
        let may_drop: Vec<bool> = rules.iter().map(|rule| rule.may_drop).collect();
        let scalars: Vec<bool> = rules.iter().map(|rule| rule.scalars).collect();
        let nodes =
            Builder::new(&selectors, [&may_drop, &scalars], &watches).build().map_err(|_| CompileError::TooComplex)?;
        Ok(Self { nodes, rules: compiled, watches: watches.iter().map(|watch| watch.names.len()).collect() })
    }
}

impl Bind {
    fn compile(bind: &BindValue, rule: usize, watches: &mut Vec<Watch>) -> Self {
        let mut watch = |names: &[String], rule| {
            watches.push(Watch { names: names.to_vec(), rule });
            (watches.len() - 1) as u16
        };
        let places = bind
            .places
            .iter()
            .map(|place| match place {
                BindPlace::Relative { up, names } => Place::Relative { up: *up, watch: watch(names, Some(rule)) },
                BindPlace::Document(names) => Place::Document { watch: watch(names, None) },
                BindPlace::Path(name) => Place::Path(name.clone()),
            })
            .collect();
        Self { name: bind.name.as_bytes().to_vec(), places }
    }
}

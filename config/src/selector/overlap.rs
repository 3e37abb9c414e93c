//! Which selectors can meet, and which can never win.
//!
//! A selector is read as a nondeterministic automaton over the steps from the root: position `i` means that the
//! first `i` segments are matched. A set of positions is the bits of a `u128`.

use std::collections::BTreeSet;

use super::{Segment, Selector, Step};

/// Past this many pairs of position sets the question is left open (answered "no").
const MAX_PAIRS: usize = 4096;

impl Selector {
    /// True where every value that `other` selects is selected by `self` too, or lies inside one that is.
    ///
    /// With `strictly`, only the second counts. False where it is not decidable cheaply (slices with a step).
    pub fn covers(&self, other: &Self, strictly: bool) -> bool {
        let (Some(outer), Some(inner)) = (Automaton::new(&self.segments), Automaton::new(&other.segments)) else {
            return false;
        };
        // Most pairs of rules have nothing to do with each other: one path tells.
        if sample(&other.segments).is_some_and(|path| !outer.covers(&path, strictly)) {
            return false;
        }
        let symbols = symbols(&self.segments, &other.segments);
        let mut seen = BTreeSet::new();
        let mut queue = vec![(1_u128, 1_u128)];
        while let Some((outers, inners)) = queue.pop() {
            let (outer_won, inner_won) = (outer.accepts(outers), inner.accepts(inners));
            if inner_won && (!outer_won || strictly) {
                return false;
            }
            if outer_won || inners == 0 || !seen.insert((outers, inners)) {
                continue;
            }
            if seen.len() > MAX_PAIRS {
                return false;
            }
            queue.extend(symbols.iter().map(|symbol| (outer.advance(outers, symbol), inner.advance(inners, symbol))));
        }
        true
    }

    /// Whether it may select something at a path, inside it, or around it; none in the path is a first element.
    pub fn reaches(&self, path: &[Option<&str>]) -> bool {
        let Some(automaton) = Automaton::new(&self.segments) else { return true };
        let mut positions = 1;
        for step in path {
            if automaton.accepts(positions) {
                return true;
            }
            positions = automaton.advance(positions, &step.map_or(Symbol::Index(0), Symbol::Name));
        }
        positions != 0
    }
}

struct Automaton<'a>(&'a [Segment]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Symbol<'a> {
    Name(&'a str),
    /// A name that no selector mentions.
    OtherName,
    Index(u64),
}

impl<'a> Automaton<'a> {
    /// None for more segments than a position set holds, or steps whose indices have no few representatives.
    fn new(segments: &'a [Segment]) -> Option<Self> {
        let plain = |step: &Step| !matches!(step, Step::Slice { step, .. } if *step > 1);
        let all_plain = segments.iter().flat_map(Segment::steps).all(plain);
        (all_plain && segments.len() < 127).then_some(Self(segments))
    }

    fn accepts(&self, positions: u128) -> bool {
        positions & (1_u128 << self.0.len()) != 0
    }

    /// Whether the value at that path is selected, or lies inside one that is; with `strictly`, only the second.
    fn covers(&self, path: &[Symbol<'_>], strictly: bool) -> bool {
        let mut positions = 1;
        for symbol in path {
            if self.accepts(positions) {
                return true;
            }
            positions = self.advance(positions, symbol);
        }
        !strictly && self.accepts(positions)
    }

    fn advance(&self, positions: u128, symbol: &Symbol<'_>) -> u128 {
        let held = self.0.iter().enumerate().filter(|(at, _)| positions & (1_u128 << at) != 0);
        held.fold(0, |next, (at, segment)| {
            let stay = if segment.is_descendant() { 1_u128 << at } else { 0 };
            let go = if segment.steps().iter().any(|step| picks(step, symbol)) { 1_u128 << (at + 1) } else { 0 };
            next | stay | go
        })
    }
}

/// One path that these segments select; none where their first steps pick nothing.
fn sample(segments: &[Segment]) -> Option<Vec<Symbol<'_>>> {
    fn pick(segment: &Segment) -> Option<Symbol<'_>> {
        let step = segment.steps().first()?;
        Some(first(step)).filter(|symbol| picks(step, symbol))
    }
    segments.iter().map(pick).collect()
}

/// What a step picks, if it picks anything.
fn first(step: &Step) -> Symbol<'_> {
    match step {
        Step::Name(name) => Symbol::Name(name),
        Step::Wildcard => Symbol::OtherName,
        Step::Index(index) => Symbol::Index(*index),
        Step::Slice { start, .. } => Symbol::Index(*start),
    }
}

fn picks(step: &Step, symbol: &Symbol<'_>) -> bool {
    match (step, symbol) {
        (Step::Wildcard, _) => true,
        (Step::Name(name), Symbol::Name(other)) => name == other,
        (Step::Index(index), Symbol::Index(other)) => index == other,
        (Step::Slice { start, end, step }, Symbol::Index(at)) => {
            *step > 0 && at >= start && end.is_none_or(|end| *at < end)
        }
        _ => false,
    }
}

/// One symbol of each kind that the two selectors tell apart.
fn symbols<'a>(left: &'a [Segment], right: &'a [Segment]) -> BTreeSet<Symbol<'a>> {
    let mut symbols = BTreeSet::from([Symbol::OtherName, Symbol::Index(0)]);
    for step in left.iter().chain(right).flat_map(Segment::steps) {
        match step {
            Step::Name(name) => symbols.extend([Symbol::Name(name)]),
            Step::Index(index) => symbols.extend([Symbol::Index(*index), Symbol::Index(index.saturating_add(1))]),
            Step::Slice { start, end, .. } => {
                symbols.extend([Symbol::Index(*start)]);
                symbols.extend(end.map(Symbol::Index));
            }
            Step::Wildcard => {}
        }
    }
    symbols
}

//! All selectors of a program in one deterministic automaton over the path from the root.
//!
//! A state is a set of positions: how far each selector (and each path to a bound value) has matched. The subset
//! construction runs once, when a configuration is read, and is bounded; below a state without positions nothing can match.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use oilskin_config::{Segment, Step};

/// States at most: some sets of descendants and wildcards have exponentially many.
const MAX_STATES: usize = 20_000;

/// The longest pattern of indices that repeats, by slices with steps.
const MAX_PERIOD: u64 = 64;

/// The state from which nothing can match.
pub(super) const DEAD: u32 = 0;

/// The state of the document.
pub(super) const ROOT: u32 = 1;

/// A place whose value is bound, as the automaton sees it.
pub(super) struct Watch {
    /// Members below where it starts.
    pub(super) names: Vec<String>,
    /// The rule for whose records it starts; none starts at the document only.
    pub(super) rule: Option<usize>,
}

/// One deterministic state: what a node is, and where its children lead.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The rule that selects this node.
    pub(super) rule: Option<u16>,
    /// The rule that selects this node if it is neither object nor array, where none selects it in any case.
    pub(super) scalar: Option<u16>,
    /// Watched places whose value this node is.
    pub(super) watched: Vec<u16>,
    /// A child or one below it may be left out, so separators are held back.
    pub(super) may_drop: bool,
    /// Nothing is to be done about such a value itself.
    pub(super) inert: bool,
    members: Members,
    elements: Elements,
}

/// Where members lead: a hash table of the names that matter, searched once for each member of a document.
#[derive(Debug, Default)]
struct Members {
    named: Vec<(Box<[u8]>, u32)>,
    /// By hash: a place in `named`, plus one; zero is empty. Its length is a power of two, and most of it is empty.
    table: Vec<u32>,
    longest: usize,
    other: u32,
}

/// Places in `table` for each name: of names that do not matter most meet an empty one.
const PLACES_A_NAME: usize = 8;

/// Mixes length, first and last bytes; names that agree in those only cost a comparison. No one is served by making it slow:
/// the names in the table come from the configuration, so a document can make one lookup cost one run of it at most.
#[inline]
fn hash(name: &[u8]) -> usize {
    let (first, last) = match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (Some(first), Some(last)) => (u32::from_le_bytes(*first), u32::from_le_bytes(*last)),
        _ => match name {
            [] => (0, 0),
            [a] => (u32::from(*a), 0),
            [a, b] => (u32::from(*a), u32::from(*b)),
            [a, b, c, ..] => (u32::from(*a) | u32::from(*b) << 8, u32::from(*c)),
        },
    };
    let word = u64::from(first) << 32 | u64::from(last);
    // Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): the upper bits are the mixed ones.
    ((word ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as usize
}

impl Members {
    fn new(named: Vec<(Box<[u8]>, u32)>, other: u32) -> Self {
        let places = (named.len() * PLACES_A_NAME).next_power_of_two();
        let mut table = vec![0; if named.is_empty() { 0 } else { places }];
        for (at, (name, _)) in named.iter().enumerate() {
            let mut place = hash(name);
            while table.get(place & (places - 1)).is_some_and(|taken| *taken != 0) {
                place += 1;
            }
            if let Some(free) = table.get_mut(place & (places - 1)) {
                *free = at as u32 + 1;
            }
        }
        Self { longest: named.iter().map(|(name, _)| name.len()).max().unwrap_or_default(), named, table, other }
    }

    #[inline]
    fn lead(&self, name: &[u8]) -> u32 {
        let mask = self.table.len().wrapping_sub(1);
        let place = hash(name);
        match self.table.get(place & mask) {
            None | Some(0) => self.other,
            Some(_) => self.search(name, place),
        }
    }

    fn search(&self, name: &[u8], mut place: usize) -> u32 {
        let mask = self.table.len().wrapping_sub(1);
        loop {
            let at = self.table.get(place & mask).copied().unwrap_or_default();
            match (at as usize).checked_sub(1).and_then(|at| self.named.get(at)) {
                None => return self.other,
                Some((held, to)) if **held == *name => return *to,
                Some(_) => place += 1,
            }
        }
    }
}

#[derive(Debug, Default)]
struct Elements {
    /// From each index on: targets that repeat with their number. Empty where no index is told from another.
    runs: Vec<(u64, Vec<u32>)>,
    /// For all, where `runs` is empty.
    all: u32,
}

impl Node {
    /// Whether any member is told from another.
    pub(super) fn tells_members(&self) -> bool {
        !self.members.named.is_empty()
    }

    /// The longest name that matters.
    pub(super) fn longest(&self) -> usize {
        self.members.longest
    }

    /// Where a member leads whose name is none that matters.
    pub(super) fn other(&self) -> u32 {
        self.members.other
    }

    /// Where a member leads.
    #[inline]
    pub(super) fn member(&self, name: &[u8]) -> u32 {
        self.members.lead(name)
    }

    /// Where an element leads.
    pub(super) fn element(&self, index: u64) -> u32 {
        let elements = &self.elements;
        if elements.runs.is_empty() {
            return elements.all;
        }
        let at = elements.runs.partition_point(|(from, _)| *from <= index);
        let Some((from, targets)) = at.checked_sub(1).and_then(|at| elements.runs.get(at)) else {
            return elements.all;
        };
        let offset = (index - from) % targets.len().max(1) as u64;
        targets.get(offset as usize).copied().unwrap_or(DEAD)
    }
}

/// A position: selector or watch `of`, `at` segments (or names) done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Position {
    Selector { of: u16, at: u16 },
    Watch { of: u16, at: u16 },
}

type Set = Vec<Position>;

/// What the construction works on.
pub(super) struct Builder<'a> {
    selectors: &'a [&'a [Segment]],
    may_drop: &'a [bool],
    scalars: &'a [bool],
    watches: &'a [Watch],
    nodes: Vec<Node>,
    known: HashMap<Set, u32>,
    todo: Vec<(Set, u32)>,
}

/// Too many states, or indices that repeat over too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooComplex;

impl<'a> Builder<'a> {
    pub(super) fn new(
        selectors: &'a [&'a [Segment]],
        [may_drop, scalars]: [&'a [bool]; 2],
        watches: &'a [Watch],
    ) -> Self {
        Self {
            selectors,
            may_drop,
            scalars,
            watches,
            nodes: vec![Node::default()],
            known: HashMap::from([(Vec::new(), DEAD)]),
            todo: Vec::new(),
        }
    }

    /// Builds all states that can be reached.
    pub(super) fn build(mut self) -> Result<Vec<Node>, TooComplex> {
        let starts = (0..self.selectors.len()).map(|of| Position::Selector { of: of as u16, at: 0 });
        let from_document =
            |(of, watch): (usize, &Watch)| watch.rule.is_none().then_some(Position::Watch { of: of as u16, at: 0 });
        let watches = self.watches.iter().enumerate().filter_map(from_document);
        let root = starts.chain(watches).collect();
        self.intern(root)?;
        while let Some((set, id)) = self.todo.pop() {
            let node = self.node(&set)?;
            if let Some(slot) = self.nodes.get_mut(id as usize) {
                *slot = node;
            }
        }
        Ok(self.nodes)
    }

    fn intern(&mut self, mut set: Set) -> Result<u32, TooComplex> {
        self.close(&mut set);
        if let Some(id) = self.known.get(&set) {
            return Ok(*id);
        }
        let id = self.nodes.len() as u32;
        if self.nodes.len() >= MAX_STATES {
            return Err(TooComplex);
        }
        self.nodes.push(Node::default());
        self.known.insert(set.clone(), id);
        self.todo.push((set, id));
        Ok(id)
    }

    /// Adds the watches of every rule that may still select something below: its records begin here.
    fn close(&self, set: &mut Set) {
        let alive: BTreeSet<usize> = set
            .iter()
            .filter_map(|position| match *position {
                Position::Selector { of, at } if (at as usize) < self.length(of) => Some(of as usize),
                _ => None,
            })
            .collect();
        for (of, watch) in self.watches.iter().enumerate() {
            if watch.rule.is_some_and(|rule| alive.contains(&rule)) {
                set.push(Position::Watch { of: of as u16, at: 0 });
            }
        }
        set.sort_unstable();
        set.dedup();
    }

    fn length(&self, of: u16) -> usize {
        self.selectors.get(of as usize).map_or(0, |segments| segments.len())
    }

    fn segment(&self, of: u16, at: u16) -> Option<&'a Segment> {
        self.selectors.get(of as usize)?.get(at as usize)
    }

    fn node(&mut self, set: &Set) -> Result<Node, TooComplex> {
        let mut node = Node::default();
        for position in set {
            match *position {
                Position::Selector { of, at } if at as usize == self.length(of) => {
                    let scalars = self.scalars.get(of as usize) == Some(&true);
                    let rule = if scalars { &mut node.scalar } else { &mut node.rule };
                    *rule = Some(rule.map_or(of, |first| first.min(of)));
                }
                Position::Selector { of, .. } => node.may_drop |= self.may_drop.get(of as usize) == Some(&true),
                Position::Watch { of, at } => {
                    if self.watches.get(of as usize).is_some_and(|watch| watch.names.len() == at as usize) {
                        node.watched.push(of);
                    }
                }
            }
        }
        node.scalar = node.scalar.filter(|_| node.rule.is_none());
        let selected = node.rule.is_some() || node.scalar.is_some();
        node.inert = !selected && node.watched.is_empty() && !node.may_drop;
        // The outermost selected value wins: nothing is looked for inside.
        if node.rule.is_none() {
            let ended = |position: &Position| matches!(*position, Position::Selector { of, at } if at as usize == self.length(of));
            let open: Set = set.iter().filter(|position| !ended(position)).copied().collect();
            node.members = self.members(&open)?;
            self.elements(&open, &mut node.elements)?;
        }
        Ok(node)
    }

    fn members(&mut self, set: &Set) -> Result<Members, TooComplex> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for position in set {
            match *position {
                Position::Selector { of, at } => {
                    let (Segment::Child(steps) | Segment::Descendant(steps)) =
                        self.segment(of, at).ok_or(TooComplex)?;
                    names.extend(steps.iter().filter_map(|step| match step {
                        Step::Name(name) => Some(name.as_str()),
                        _ => None,
                    }));
                }
                Position::Watch { of, at } => {
                    let watch = self.watches.get(of as usize);
                    names.extend(watch.and_then(|watch| watch.names.get(at as usize)).map(String::as_str));
                }
            }
        }
        let other = self.target(set, &|step| picks_member(step, None), None)?;
        let mut named = Vec::new();
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        for name in &names {
            let to = self.target(set, &|step| picks_member(step, Some(name)), Some(name))?;
            if to != other {
                named.push((name.as_bytes().into(), to));
            }
        }
        Ok(Members::new(named, other))
    }

    fn elements(&mut self, set: &Set, elements: &mut Elements) -> Result<(), TooComplex> {
        let mut breaks: BTreeMap<u64, ()> = BTreeMap::new();
        let mut period = 1_u64;
        for position in set {
            let Position::Selector { of, at } = *position else { continue };
            let (Segment::Child(steps) | Segment::Descendant(steps)) = self.segment(of, at).ok_or(TooComplex)?;
            for step in steps {
                match *step {
                    Step::Index(index) => {
                        breaks.insert(index, ());
                        breaks.insert(index.saturating_add(1), ());
                    }
                    Step::Slice { start, end, step } if step > 0 => {
                        breaks.insert(start, ());
                        breaks.insert(end.unwrap_or(u64::MAX), ());
                        period = lcm(period, step).filter(|period| *period <= MAX_PERIOD).ok_or(TooComplex)?;
                    }
                    _ => {}
                }
            }
        }
        if breaks.is_empty() {
            elements.all = self.target(set, &|step| picks_element(step, 0), None)?;
            return Ok(());
        }
        breaks.insert(0, ());
        for from in breaks.into_keys().filter(|from| *from < u64::MAX) {
            let targets = (0..period).map(|offset| {
                let index = from.saturating_add(offset);
                self.target(set, &|step| picks_element(step, index), None)
            });
            let targets = targets.collect::<Result<Vec<_>, _>>()?;
            elements.runs.push((from, targets));
        }
        Ok(())
    }

    /// The state of a child that `picks` steps pick; `name` is its name where one is watched for.
    fn target(&mut self, set: &Set, picks: &dyn Fn(&Step) -> bool, name: Option<&str>) -> Result<u32, TooComplex> {
        let mut next = Vec::new();
        for position in set {
            match *position {
                Position::Selector { of, at } => {
                    let segment = self.segment(of, at).ok_or(TooComplex)?;
                    let (Segment::Child(steps) | Segment::Descendant(steps)) = segment;
                    if matches!(segment, Segment::Descendant(_)) {
                        next.push(*position);
                    }
                    if steps.iter().any(picks) {
                        next.push(Position::Selector { of, at: at + 1 });
                    }
                }
                Position::Watch { of, at } => {
                    let wanted = self.watches.get(of as usize).and_then(|watch| watch.names.get(at as usize));
                    if name.is_some() && wanted.map(String::as_str) == name {
                        next.push(Position::Watch { of, at: at + 1 });
                    }
                }
            }
        }
        self.intern(next)
    }
}

/// Whether a step picks the member of that name; none is a name that no step has.
fn picks_member(step: &Step, name: Option<&str>) -> bool {
    match step {
        Step::Name(wanted) => Some(wanted.as_str()) == name,
        Step::Wildcard => true,
        Step::Index(_) | Step::Slice { .. } => false,
    }
}

fn picks_element(step: &Step, index: u64) -> bool {
    match *step {
        Step::Wildcard => true,
        Step::Name(_) => false,
        Step::Index(wanted) => wanted == index,
        Step::Slice { start, end, step } => {
            step > 0 && index >= start && end.is_none_or(|end| index < end) && (index - start).is_multiple_of(step)
        }
    }
}

fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b)
}

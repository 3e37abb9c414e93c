//! A slow reader of whole documents: builds a tree with spans, evaluates each selector as RFC 9535 says, splices.

use std::collections::BTreeMap;

use oilskin_config::{BindPlace, Segment, Selector, Step};

use super::{JsonRule, PathValues, dropped, mark};

/// A node and where it stands.
struct Node {
    from: usize,
    to: usize,
    children: Vec<Child>,
    object: bool,
    parent: Option<usize>,
}

struct Child {
    name: Option<String>,
    /// Comma, white space, name and colon.
    separator: (usize, usize),
    node: usize,
}

struct Tree<'d> {
    text: &'d [u8],
    nodes: Vec<Node>,
}

impl Tree<'_> {
    fn space(&self, mut at: usize) -> usize {
        while self.text.get(at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
            at += 1;
        }
        at
    }

    fn string_end(&self, mut at: usize) -> usize {
        at += 1;
        while self.text[at] != b'"' {
            at += if self.text[at] == b'\\' { 2 } else { 1 };
        }
        at + 1
    }

    fn value(&mut self, from: usize, parent: Option<usize>) -> usize {
        let index = self.nodes.len();
        let first = self.text[from];
        self.nodes.push(Node { from, to: from, children: Vec::new(), object: first == b'{', parent });
        let to = match first {
            b'{' | b'[' => self.container(from, index, first == b'{'),
            b'"' => self.string_end(from),
            _ => {
                let stop = self.text[from..].iter().position(|byte| b",]} \t\r\n".contains(byte));
                stop.map_or(self.text.len(), |stop| from + stop)
            }
        };
        self.nodes[index].to = to;
        index
    }

    fn container(&mut self, from: usize, index: usize, object: bool) -> usize {
        let mut start = from + 1;
        let mut at = self.space(start);
        if b"]}".contains(&self.text[at]) {
            return at + 1;
        }
        loop {
            let mut name = None;
            if object {
                let end = self.string_end(at);
                name = Some(serde_json::from_slice(&self.text[at..end]).unwrap());
                at = self.space(self.space(end) + 1);
            }
            let node = self.value(at, Some(index));
            self.nodes[index].children.push(Child { name, separator: (start, at), node });
            start = self.space(self.nodes[node].to);
            if self.text[start] != b',' {
                return start + 1;
            }
            at = self.space(start + 1);
        }
    }

    fn picks(&self, steps: &[Step], child: &Child, index: u64) -> bool {
        steps.iter().any(|step| match (step, &child.name) {
            (Step::Wildcard, _) => true,
            (Step::Name(wanted), Some(name)) => wanted == name,
            (Step::Index(wanted), None) => *wanted == index,
            (Step::Slice { start, end, step }, None) => {
                *step > 0
                    && index >= *start
                    && end.is_none_or(|end| index < end)
                    && (index - start).is_multiple_of(*step)
            }
            _ => false,
        })
    }

    fn select(&self, selector: &Selector) -> Vec<usize> {
        let mut nodes = vec![0];
        for segment in selector.segments() {
            let (steps, deep) = match segment {
                Segment::Child(steps) => (steps, false),
                Segment::Descendant(steps) => (steps, true),
            };
            let mut next = Vec::new();
            for node in nodes {
                let visited = if deep { self.below(node) } else { vec![node] };
                for node in visited {
                    for (index, child) in self.nodes[node].children.iter().enumerate() {
                        if self.picks(steps, child, index as u64) {
                            next.push(child.node);
                        }
                    }
                }
            }
            nodes = next;
        }
        nodes
    }

    /// A node and all below it.
    fn below(&self, node: usize) -> Vec<usize> {
        let mut all = vec![node];
        for child in &self.nodes[node].children {
            all.extend(self.below(child.node));
        }
        all
    }

    fn raw(&self, node: usize) -> &[u8] {
        &self.text[self.nodes[node].from..self.nodes[node].to]
    }

    /// The object that holds a node, and so on upward.
    fn objects_above(&self, node: usize) -> Vec<usize> {
        let mut above = Vec::new();
        let mut at = self.nodes[node].parent;
        while let Some(parent) = at {
            if self.nodes[parent].object {
                above.push(parent);
            }
            at = self.nodes[parent].parent;
        }
        above
    }

    /// All members at the end of that way.
    fn members(&self, from: usize, names: &[String], selected: &BTreeMap<usize, usize>) -> Vec<usize> {
        names.iter().fold(vec![from], |nodes, name| {
            // What is selected is one value: nothing is looked for inside.
            let nodes = nodes.into_iter().filter(|node| !selected.contains_key(node));
            let children = nodes.flat_map(|node| &self.nodes[node].children);
            children.filter(|child| child.name.as_ref() == Some(name)).map(|child| child.node).collect()
        })
    }

    fn bound(
        &self,
        place: &BindPlace,
        node: usize,
        path: &PathValues,
        selected: &BTreeMap<usize, usize>,
    ) -> Result<Option<Vec<u8>>, ()> {
        let (from, names) = match place {
            BindPlace::Path(name) => {
                return Ok(path.0.iter().find(|(held, _)| held == name).map(|(_, value)| value.clone()));
            }
            BindPlace::Document(names) => (self.nodes[0].object.then_some(0).filter(|_| node != 0), names),
            BindPlace::Relative { up, names } => (self.objects_above(node).get(*up).copied(), names),
        };
        let Some(from) = from else { return Ok(None) };
        let found = self.members(from, names, selected);
        match found.as_slice() {
            [] => Ok(None),
            [one] if selected.contains_key(one) => Err(()),
            [one] => {
                let raw = self.raw(*one);
                let text = match raw[0] {
                    b'"' => serde_json::from_slice::<String>(raw).unwrap().into_bytes(),
                    b'-' | b'0'..=b'9' => raw.to_vec(),
                    _ => return Err(()),
                };
                if text.is_empty() { Err(()) } else { Ok(Some(text)) }
            }
            _ => Err(()),
        }
    }
}

/// What the whole document becomes; the error is a bound value's.
pub(super) fn rewrite(rules: &[JsonRule<'_>], path: &PathValues, text: &[u8]) -> Result<Vec<u8>, ()> {
    let mut tree = Tree { text, nodes: Vec::new() };
    let start = tree.space(0);
    tree.value(start, None);
    let mut selected: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        for node in tree.select(rule.selector) {
            selected.entry(node).or_insert(index);
        }
    }
    let mut splicer = Splicer { tree: &tree, rules, path, selected: &selected, out: text[..start].to_vec() };
    splicer.node(0, None)?;
    let end = tree.nodes[0].to;
    splicer.out.extend_from_slice(&text[end..]);
    Ok(splicer.out)
}

struct Splicer<'a> {
    tree: &'a Tree<'a>,
    rules: &'a [JsonRule<'a>],
    path: &'a PathValues,
    selected: &'a BTreeMap<usize, usize>,
    out: Vec<u8>,
}

impl Splicer<'_> {
    /// Appends a node; `each` is the rule inside whose container it stands and the node that was selected.
    fn node(&mut self, node: usize, each: Option<(usize, usize)>) -> Result<(), ()> {
        let container = matches!(self.tree.raw(node)[0], b'{' | b'[');
        let rule = each.or_else(|| self.selected.get(&node).map(|rule| (*rule, node)));
        match rule {
            Some((rule, holder)) if !container || !self.rules[rule].each => self.field(rule, node, holder),
            rule if container => self.container(node, rule),
            _ => {
                self.out.extend_from_slice(self.tree.raw(node));
                Ok(())
            }
        }
    }

    fn field(&mut self, rule: usize, node: usize, holder: usize) -> Result<(), ()> {
        let mut bound = Vec::new();
        for bind in self.rules[rule].bind {
            let mut value: Option<Vec<u8>> = None;
            for place in &bind.places {
                if let Some(found) = self.tree.bound(place, holder, self.path, self.selected)?
                    && value.replace(found.clone()).is_some_and(|before| before != found)
                {
                    return Err(());
                }
            }
            bound.push((bind.name.as_bytes(), value.ok_or(())?));
        }
        let bound: Vec<(&[u8], &[u8])> = bound.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        self.out.extend_from_slice(&mark(rule, &bound, self.tree.raw(node)));
        Ok(())
    }

    /// Whether this child is left out; its bound values must be right all the same.
    fn leaves_out(&mut self, child: &Child, each: Option<(usize, usize)>) -> Result<bool, ()> {
        let raw = self.tree.raw(child.node);
        let container = matches!(raw[0], b'{' | b'[');
        let rule = each.or_else(|| self.selected.get(&child.node).map(|rule| (*rule, child.node)));
        let Some((rule, holder)) = rule.filter(|(rule, _)| !container || !self.rules[*rule].each) else {
            return Ok(false);
        };
        if !self.rules[rule].may_drop || !dropped(raw) {
            return Ok(false);
        }
        let before = self.out.len();
        self.field(rule, child.node, holder)?;
        self.out.truncate(before);
        Ok(true)
    }

    fn container(&mut self, node: usize, each: Option<(usize, usize)>) -> Result<(), ()> {
        let text = self.tree.text;
        let (from, to) = (self.tree.nodes[node].from, self.tree.nodes[node].to);
        self.out.push(text[from]);
        let mut end = from + 1;
        let mut begun = false;
        for child in &self.tree.nodes[node].children {
            let (start, stop) = child.separator;
            // White space behind the value before.
            self.out.extend_from_slice(&text[end..start]);
            end = self.tree.nodes[child.node].to;
            if self.leaves_out(child, each)? {
                continue;
            }
            let separator = &text[start..stop];
            let separator = if begun { separator } else { separator.strip_prefix(b",").unwrap_or(separator) };
            self.out.extend_from_slice(separator);
            begun = true;
            self.node(child.node, each)?;
        }
        self.out.extend_from_slice(&text[end..to]);
        Ok(())
    }
}

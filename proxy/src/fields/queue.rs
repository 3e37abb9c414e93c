//! Output that cannot leave yet because something before it is still open.

use std::collections::{HashMap, VecDeque};

use super::HoleId;

/// The separators of a member or element that may be left out, and the container they stand in.
#[derive(Debug)]
pub(super) struct Separator {
    pub(super) container: u32,
    /// Comma, white space, key and colon, as they came.
    pub(super) bytes: Vec<u8>,
}

enum Segment {
    Bytes(Vec<u8>),
    /// Separators of a member that stays, in a container where others may not.
    Item(Separator),
    Hole {
        id: HoleId,
        separator: Option<Separator>,
        filling: Filling,
    },
    Close(u32),
}

/// What a hole holds.
pub(super) enum Filling {
    /// A call out is under way.
    Late,
    /// A bound value has not come yet.
    Unbound,
    Filled(Vec<u8>),
    Dropped,
}

/// Output in order, with holes.
#[derive(Default)]
pub(super) struct Queue {
    segments: VecDeque<Segment>,
    bytes: usize,
    late: usize,
    /// Containers in which something may be left out, and whether anything of them has left.
    begun: HashMap<u32, bool>,
}

impl Queue {
    /// Whether all may leave at once.
    pub(super) fn is_open(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes held back.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }

    /// Holes whose answer was promised for later.
    pub(super) fn late(&self) -> usize {
        self.late
    }

    /// Appends what simply follows.
    pub(super) fn bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self.is_open() {
            true => out.extend_from_slice(bytes),
            false => {
                self.bytes += bytes.len();
                self.tail().extend_from_slice(bytes);
            }
        }
    }

    /// Where output that simply follows is to be appended; [`Queue::grown`] tells how much it was.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        if !matches!(self.segments.back(), Some(Segment::Bytes(_))) {
            self.segments.push_back(Segment::Bytes(Vec::new()));
        }
        match self.segments.back_mut() {
            Some(Segment::Bytes(bytes)) => bytes,
            // The line above put one there.
            _ => unreachable!("a tail was just pushed"),
        }
    }

    pub(super) fn grown(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn shrunk(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Appends the separators of a member that stays.
    pub(super) fn item(&mut self, separator: Separator, out: &mut Vec<u8>) {
        match self.is_open() {
            true => self.write_item(&separator, out),
            false => {
                self.bytes += separator.bytes.len();
                self.segments.push_back(Segment::Item(separator));
            }
        }
    }

    /// A container in which members may be left out has ended.
    pub(super) fn close(&mut self, container: u32) {
        match self.is_open() {
            true => {
                self.begun.remove(&container);
            }
            false => self.segments.push_back(Segment::Close(container)),
        }
    }

    /// The first member that stays has no comma before it, whichever it was.
    pub(super) fn write_item(&mut self, separator: &Separator, out: &mut Vec<u8>) {
        let begun = self.begun.insert(separator.container, true).unwrap_or(false);
        let bytes = separator.bytes.as_slice();
        let bytes = if begun { bytes } else { bytes.strip_prefix(b",").unwrap_or(bytes) };
        out.extend_from_slice(bytes);
    }

    /// Appends a hole.
    pub(super) fn hole(&mut self, id: HoleId, separator: Option<Separator>, filling: Filling) {
        self.late += usize::from(matches!(filling, Filling::Late));
        self.bytes += separator.as_ref().map_or(0, |separator| separator.bytes.len());
        if let Filling::Filled(bytes) = &filling {
            self.bytes += bytes.len();
        }
        self.segments.push_back(Segment::Hole { id, separator, filling });
    }

    /// Writes what a hole becomes, where it is the first of all and nothing else hangs on it; false where it is not.
    pub(super) fn write_first(&mut self, wanted: HoleId, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match self.segments.front() {
            Some(Segment::Hole { id, separator: None, filling: Filling::Late }) if *id == wanted => {
                self.segments.pop_front();
                self.late -= 1;
                out.extend_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    /// Changes what a hole holds; false where there is no such open hole, or a drop where none may be.
    pub(super) fn fill(&mut self, wanted: HoleId, new: Filling) -> bool {
        // Holes are in order of their ids.
        let found = self.segments.iter_mut().find_map(|segment| match segment {
            Segment::Hole { id, separator, filling } if *id == wanted => Some((separator.is_some(), filling)),
            _ => None,
        });
        let Some((may_drop, filling)) = found else { return false };
        if matches!(filling, Filling::Filled(_) | Filling::Dropped) || (matches!(new, Filling::Dropped) && !may_drop) {
            return false;
        }
        self.late -= usize::from(matches!(filling, Filling::Late));
        self.late += usize::from(matches!(new, Filling::Late));
        if let Filling::Filled(bytes) = &new {
            self.bytes += bytes.len();
        }
        *filling = new;
        true
    }

    /// Moves out what may leave now.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        while let Some(segment) = self.segments.pop_front() {
            match segment {
                Segment::Bytes(bytes) => {
                    self.bytes = self.bytes.saturating_sub(bytes.len());
                    out.extend_from_slice(&bytes);
                }
                Segment::Item(separator) => {
                    self.bytes = self.bytes.saturating_sub(separator.bytes.len());
                    self.write_item(&separator, out);
                }
                Segment::Close(container) => {
                    self.begun.remove(&container);
                }
                Segment::Hole { separator, filling: Filling::Filled(bytes), .. } => {
                    if let Some(separator) = separator {
                        self.bytes = self.bytes.saturating_sub(separator.bytes.len());
                        self.write_item(&separator, out);
                    }
                    self.bytes = self.bytes.saturating_sub(bytes.len());
                    out.extend_from_slice(&bytes);
                }
                Segment::Hole { separator, filling: Filling::Dropped, .. } => {
                    self.bytes = self.bytes.saturating_sub(separator.map_or(0, |separator| separator.bytes.len()));
                }
                open => {
                    self.segments.push_front(open);
                    return;
                }
            }
        }
    }
}

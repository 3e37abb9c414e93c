//! Bound values: seen on the way, looked up for a field, waited for where they come later.

use super::lexer::unescape;
use super::program::{Place, Rule};
use super::{BindError, HoleId, Kind};

/// Longest bound value.
const MAX_VALUE: usize = 256;

/// Bytes of a spelled value beyond which it cannot be one of 256: each byte may be spelled `\u00xx`.
pub(super) const MAX_SPELLED: usize = 6 * MAX_VALUE + 2;

/// Names and their values, in byte order of the names.
type Named<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The parameters of the route's path, decoded.
#[derive(Debug, Clone, Default)]
pub struct PathValues(pub Vec<(String, Vec<u8>)>);

impl PathValues {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_slice())
    }
}

/// A watched member that was seen.
pub(super) struct Slot {
    watch: u16,
    value: Result<Vec<u8>, BindError>,
    /// A field was bound to it.
    used: Option<usize>,
}

/// The watched members seen in one object. Most objects have none, and frames are pushed by the million.
#[derive(Default)]
pub(super) struct Slots(Option<Box<Seen>>);

#[derive(Default)]
struct Seen {
    slots: Vec<Slot>,
}

impl Slots {
    fn of(&self, watch: u16) -> Option<&Slot> {
        self.0.as_ref()?.slots.iter().find(|slot| slot.watch == watch)
    }

    fn of_mut(&mut self, watch: u16) -> Option<&mut Slot> {
        self.0.as_mut()?.slots.iter_mut().find(|slot| slot.watch == watch)
    }

    fn push(&mut self, slot: Slot) {
        self.0.get_or_insert_default().slots.push(slot);
    }
}

/// An object or array that is open.
#[derive(Default)]
pub(super) struct Frame {
    pub(super) state: u32,
    pub(super) array: bool,
    /// The next element's.
    pub(super) index: u64,
    /// Names it for ever.
    pub(super) serial: u32,
    /// Every leaf below is a field of this rule; bound values are those of the object at `holder`.
    pub(super) each: Option<Each>,
    /// Members may be left out.
    pub(super) drops: bool,
    pub(super) slots: Slots,
}

#[derive(Clone, Copy)]
pub(super) struct Each {
    pub(super) rule: u16,
    pub(super) holder: Option<u32>,
}

/// What a watched value means as text.
pub(super) fn text_of(raw: &[u8]) -> Result<Vec<u8>, BindError> {
    let value = match raw {
        [b'"', body @ .., b'"'] if body.contains(&b'\\') => unescape(body),
        [b'"', body @ .., b'"'] => body.to_vec(),
        [b'-' | b'0'..=b'9', ..] => raw.to_vec(),
        _ => return Err(BindError::Type),
    };
    match value.len() {
        1..=MAX_VALUE => Ok(value),
        _ => Err(BindError::Length),
    }
}

/// Notes a watched member; the rule whose field was bound to an earlier one of that name is the error.
pub(super) fn note(frame: &mut Frame, watch: u16, value: Result<Vec<u8>, BindError>) -> Result<(), (usize, BindError)> {
    match frame.slots.of_mut(watch) {
        None => frame.slots.push(Slot { watch, value, used: None }),
        Some(slot) => {
            if let Some(rule) = slot.used {
                return Err((rule, BindError::Twice));
            }
            slot.value = Err(BindError::Twice);
        }
    }
    Ok(())
}

/// A field that waited is bound to a member of this frame now.
pub(super) fn use_slot(frame: &mut Frame, watch: u16, rule: usize) {
    if let Some(slot) = frame.slots.of_mut(watch) {
        slot.used = Some(rule);
    }
}

/// Where a place stands now.
enum Sight<'a> {
    Known(&'a [u8]),
    Absent,
    /// Its frame is open and it was not seen yet.
    Open {
        serial: u32,
        watch: u16,
    },
    Wrong(BindError),
}

/// The frame whose object a place's watch starts in.
fn frame_of(place: &Place, holder: Option<usize>, frames: &[Frame]) -> Option<(usize, u16)> {
    match place {
        Place::Path(_) => None,
        Place::Document { watch } => frames.first().filter(|frame| !frame.array).map(|_| (0, *watch)),
        Place::Relative { up, watch } => {
            let upto = frames.get(..=holder?)?;
            let mut objects = upto.iter().enumerate().rev().filter(|(_, frame)| !frame.array);
            objects.nth(*up).map(|(at, _)| (at, *watch))
        }
    }
}

fn sight<'a>(place: &Place, holder: Option<usize>, frames: &'a [Frame], path: &'a PathValues) -> Sight<'a> {
    if let Place::Path(name) = place {
        return match path.get(name) {
            Some(value) if (1..=MAX_VALUE).contains(&value.len()) => Sight::Known(value),
            Some(_) => Sight::Wrong(BindError::Length),
            None => Sight::Absent,
        };
    }
    let Some((at, watch)) = frame_of(place, holder, frames) else { return Sight::Absent };
    let Some(frame) = frames.get(at) else { return Sight::Absent };
    match frame.slots.of(watch) {
        None => Sight::Open { serial: frame.serial, watch },
        Some(Slot { value: Ok(value), .. }) => Sight::Known(value),
        Some(Slot { value: Err(error), .. }) => Sight::Wrong(*error),
    }
}

/// From now on a second occurrence of what this field is bound to is an error.
pub(super) fn mark(rule: usize, compiled: &Rule, holder: Option<usize>, frames: &mut [Frame]) {
    for place in compiled.bind.iter().flat_map(|bind| &bind.places) {
        if let Some((at, watch)) = frame_of(place, holder, frames)
            && let Some(slot) = frames.get_mut(at).and_then(|frame| frame.slots.of_mut(watch))
        {
            slot.used = Some(rule);
        }
    }
}

/// All bound values of a rule, where every place is decided.
pub(super) fn decided<'a>(
    compiled: &'a Rule,
    holder: Option<usize>,
    frames: &'a [Frame],
    path: &'a PathValues,
) -> Result<Option<Named<'a>>, BindError> {
    let mut values = Vec::with_capacity(compiled.bind.len());
    for bind in &compiled.bind {
        let mut value = None;
        for place in &bind.places {
            match sight(place, holder, frames, path) {
                Sight::Open { .. } => return Ok(None),
                Sight::Wrong(error) => return Err(error),
                Sight::Absent => {}
                Sight::Known(known) => agree(&mut value, known)?,
            }
        }
        values.push((bind.name.as_slice(), value.ok_or(BindError::Missing)?));
    }
    Ok(Some(values))
}

fn agree<'a>(value: &mut Option<&'a [u8]>, known: &'a [u8]) -> Result<(), BindError> {
    match value.replace(known) {
        Some(before) if before != known => Err(BindError::Differs),
        _ => Ok(()),
    }
}

/// A field whose bound values are not all decided.
pub(super) struct Pending {
    pub(super) hole: HoleId,
    pub(super) rule: usize,
    pub(super) kind: Kind,
    pub(super) raw: Vec<u8>,
    /// Bytes it counts as while it waits.
    pub(super) counted: usize,
    values: Vec<Vec<Waiting>>,
}

enum Waiting {
    Known(Vec<u8>),
    Absent,
    Open { serial: u32, watch: u16 },
}

impl Pending {
    pub(super) fn new(
        (hole, rule, kind, raw, counted): (HoleId, usize, Kind, &[u8], usize),
        compiled: &Rule,
        holder: Option<usize>,
        frames: &[Frame],
        path: &PathValues,
    ) -> Result<Self, BindError> {
        let waiting = |place: &Place| match sight(place, holder, frames, path) {
            Sight::Known(value) => Ok(Waiting::Known(value.to_vec())),
            Sight::Absent => Ok(Waiting::Absent),
            Sight::Open { serial, watch } => Ok(Waiting::Open { serial, watch }),
            Sight::Wrong(error) => Err(error),
        };
        let values = compiled.bind.iter().map(|bind| bind.places.iter().map(waiting).collect());
        let values = values.collect::<Result<_, BindError>>()?;
        Ok(Self { hole, rule, kind, raw: raw.to_vec(), counted, values })
    }

    /// A watched member was seen in the frame of that serial; true where this field waited for it.
    pub(super) fn seen(
        &mut self,
        serial: u32,
        watch: u16,
        value: &Result<Vec<u8>, BindError>,
    ) -> Result<bool, BindError> {
        let mut waited = false;
        for place in self.values.iter_mut().flatten() {
            if matches!(place, Waiting::Open { serial: s, watch: w } if *s == serial && *w == watch) {
                *place = Waiting::Known(value.clone()?);
                waited = true;
            }
        }
        Ok(waited)
    }

    /// The frame of that serial has ended.
    pub(super) fn closed(&mut self, serial: u32) {
        for place in self.values.iter_mut().flatten() {
            if matches!(place, Waiting::Open { serial: s, .. } if *s == serial) {
                *place = Waiting::Absent;
            }
        }
    }

    pub(super) fn is_decided(&self) -> bool {
        !self.values.iter().flatten().any(|place| matches!(place, Waiting::Open { .. }))
    }

    /// Its bound values, once it is decided.
    pub(super) fn bound<'a>(&'a self, compiled: &'a Rule) -> Result<Named<'a>, BindError> {
        let mut bound = Vec::with_capacity(self.values.len());
        for (bind, places) in compiled.bind.iter().zip(&self.values) {
            let mut value = None;
            for place in places {
                if let Waiting::Known(known) = place {
                    agree(&mut value, known)?;
                }
            }
            bound.push((bind.name.as_slice(), value.ok_or(BindError::Missing)?));
        }
        Ok(bound)
    }
}

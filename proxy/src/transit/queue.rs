//! What waits in a lane: tenants take turns, and the messages of a tenant, so that no large one keeps small ones waiting.

use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::{Item, Mailbox};

/// Items that one message may put into a call before the next one's turn.
const TURN: usize = 32;

/// Items of all messages that wait; more are refused.
const MOST: usize = 20_000;

/// Their size in bytes.
const MOST_BYTES: usize = 32 << 20;

/// How large a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Names and values in it.
    pub(super) strings: usize,
    pub(super) bytes: usize,
}

/// An item on its way.
pub(super) struct Waiting {
    pub(super) to: Weak<Mailbox>,
    pub(super) ticket: u64,
    pub(super) item: Item,
}

struct Message {
    to: Weak<Mailbox>,
    items: VecDeque<(u64, Item)>,
}

type Tenant = Option<Arc<str>>;

#[derive(Default)]
pub(super) struct Queue {
    /// Whose turn it is, the next one first. Each stands here once.
    turns: VecDeque<Tenant>,
    waiting: HashMap<Tenant, VecDeque<Message>>,
    items: usize,
    strings: usize,
    bytes: usize,
}

impl Queue {
    /// Takes the items of one message, or gives them back where too much waits already. An empty lane takes anything.
    pub(super) fn push(
        &mut self,
        tenant: Option<&Arc<str>>,
        to: &Rc<Mailbox>,
        items: Vec<(u64, Item)>,
    ) -> Result<(), Vec<(u64, Item)>> {
        let bytes: usize = items.iter().map(|(_, item)| item.size()).sum();
        let over = self.items + items.len() > MOST || self.bytes + bytes > MOST_BYTES;
        if over && self.items > 0 {
            return Err(items);
        }
        self.items += items.len();
        self.strings += items.iter().map(|(_, item)| item.strings()).sum::<usize>();
        self.bytes += bytes;
        let tenant = tenant.cloned();
        let messages = self.waiting.entry(tenant.clone()).or_default();
        if messages.is_empty() {
            self.turns.push_back(tenant);
        }
        messages.push_back(Message { to: Rc::downgrade(to), items: items.into() });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Whether what waits fills a call.
    pub(super) fn fills(&self, size: Size) -> bool {
        self.strings >= size.strings || self.bytes >= size.bytes
    }

    /// The next call, no larger than that, but for one item that is larger by itself. Items whose message is gone are left out.
    pub(super) fn take(&mut self, most: Size) -> Vec<Waiting> {
        let mut taken: Vec<Waiting> = Vec::new();
        let mut size = Size { strings: 0, bytes: 0 };
        while let Some(tenant) = self.turns.pop_front() {
            let Some(messages) = self.waiting.get_mut(&tenant) else { continue };
            let Some(mut message) = messages.pop_front() else { continue };
            let gone = message.to.strong_count() == 0;
            let mut turn = 0;
            let mut full = false;
            while let Some((_, item)) = message.items.front() {
                let (strings, bytes) = (item.strings(), item.size());
                let over = size.strings + strings > most.strings || size.bytes + bytes > most.bytes;
                full = !gone && !taken.is_empty() && over;
                if full || (turn >= TURN && !gone) {
                    break;
                }
                let Some((ticket, item)) = message.items.pop_front() else { break };
                self.items -= 1;
                self.strings = self.strings.saturating_sub(strings);
                self.bytes = self.bytes.saturating_sub(bytes);
                if !gone {
                    turn += 1;
                    size.strings += strings;
                    size.bytes += bytes;
                    taken.push(Waiting { to: message.to.clone(), ticket, item });
                }
            }
            match (message.items.is_empty(), full) {
                (true, _) => {}
                // Its turn is not over.
                (false, true) => messages.push_front(message),
                (false, false) => messages.push_back(message),
            }
            match messages.is_empty() {
                true => drop(self.waiting.remove(&tenant)),
                false if full => self.turns.push_front(tenant),
                false => self.turns.push_back(tenant),
            }
            if full {
                break;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{MOST, Queue, Size, TURN};
    use crate::transit::{Item, Mailbox};

    fn items(tickets: std::ops::Range<u64>) -> Vec<(u64, Item)> {
        let item = || Item { text: vec![b'a'; 10].into(), context: "".into(), associated: None, version: None };
        tickets.map(|ticket| (ticket, item())).collect()
    }

    /// Room for so many of these items.
    fn room(items: usize) -> Size {
        Size { strings: 4 * items, bytes: usize::MAX }
    }

    fn tenant(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn a_large_message_lets_small_ones_by() {
        let (mut queue, large, small) = (Queue::default(), Mailbox::new(), Mailbox::new());
        assert!(queue.push(Some(&tenant("a")), &large, items(0..1_000)).is_ok());
        assert!(queue.push(Some(&tenant("b")), &small, items(0..3)).is_ok());
        let first = queue.take(room(100));
        let of_small = first.iter().filter(|waiting| std::ptr::eq(waiting.to.as_ptr(), Rc::as_ptr(&small))).count();
        assert_eq!((first.len(), of_small), (100, 3));
        assert_eq!(first.iter().position(|waiting| std::ptr::eq(waiting.to.as_ptr(), Rc::as_ptr(&small))), Some(TURN));
        assert_eq!((queue.items, queue.fills(room(903)), queue.fills(room(904))), (903, true, false));
    }

    #[test]
    fn tenants_take_turns_however_many_messages_they_have() {
        let (mut queue, boxes) = (Queue::default(), [Mailbox::new(), Mailbox::new()]);
        for _ in 0..50 {
            assert!(queue.push(Some(&tenant("busy")), &boxes[0], items(0..TURN as u64)).is_ok());
        }
        assert!(queue.push(Some(&tenant("calm")), &boxes[1], items(0..5)).is_ok());
        let call = queue.take(room(TURN + 5));
        let calm = call.iter().filter(|waiting| std::ptr::eq(waiting.to.as_ptr(), Rc::as_ptr(&boxes[1]))).count();
        assert_eq!(calm, 5, "second in turn, behind 49 messages of another tenant");
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent_and_a_full_lane_says_so() {
        let (mut queue, gone, here) = (Queue::default(), Mailbox::new(), Mailbox::new());
        assert!(queue.push(None, &gone, items(0..MOST as u64)).is_ok());
        assert!(queue.push(None, &here, items(0..1)).is_err());
        drop(gone);
        assert!(queue.take(room(10)).is_empty());
        assert_eq!((queue.items, queue.strings, queue.bytes), (0, 0, 0));
        assert!(queue.push(None, &here, items(0..MOST as u64 + 1)).is_ok(), "an empty lane takes anything");
    }

    proptest! {
        #[test]
        fn everything_that_was_put_in_comes_out_once_and_in_order(
            messages in prop::collection::vec((0_usize..3, 0_u64..80), 1..20),
            most in 1_usize..100,
            most_bytes in 1_usize..5_000,
        ) {
            let mut queue = Queue::default();
            let boxes: Vec<_> = messages.iter().map(|_| Mailbox::new()).collect();
            for ((of, count), mailbox) in messages.iter().zip(&boxes) {
                prop_assert!(queue.push(Some(&tenant(&of.to_string())), mailbox, items(0..*count)).is_ok());
            }
            let mut seen: Vec<Vec<u64>> = vec![Vec::new(); boxes.len()];
            while !queue.is_empty() {
                let call = queue.take(Size { strings: 4 * most, bytes: most_bytes });
                prop_assert!(!call.is_empty() && call.len() <= most);
                let size: usize = call.iter().map(|waiting| waiting.item.size()).sum();
                prop_assert!(call.len() == 1 || size <= most_bytes);
                for waiting in call {
                    let at = boxes.iter().position(|mailbox| std::ptr::eq(Rc::as_ptr(mailbox), waiting.to.as_ptr()));
                    seen[at.unwrap()].push(waiting.ticket);
                }
            }
            for ((_, count), seen) in messages.iter().zip(&seen) {
                prop_assert_eq!(seen, &(0..*count).collect::<Vec<_>>());
            }
            prop_assert!(queue.turns.is_empty() || queue.waiting.values().all(|left| left.iter().all(|message| message.items.is_empty())));
            prop_assert_eq!((queue.strings, queue.bytes), (0, 0));
        }
    }
}

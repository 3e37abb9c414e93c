//! Lanes with a Vault of our own making, which fails as it is told: whatever happens, every message gets its own results and no others.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use oilskin_config::VaultKey;
use proptest::prelude::*;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::lane::Times;
use super::{Item, ItemResult, Keys, Lanes, Mailbox, Memory, Missed, Operation, Service};
use crate::vault::Error;

/// What the next calls do, one after another; then all go well.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Well,
    Late,
    Hang,
    Unreachable,
    Sealed,
    Strings(usize),
    Refused,
    TooFew,
}

#[derive(Default)]
struct Fake {
    turns: RefCell<Vec<Turn>>,
    calls: Cell<usize>,
    items: Cell<usize>,
    at_once: Cell<usize>,
    most_at_once: Cell<usize>,
}

/// A call that has begun; it may be given up at any time.
struct UnderWay<'a>(&'a Fake);

impl<'a> UnderWay<'a> {
    fn new(fake: &'a Fake) -> Self {
        fake.at_once.set(fake.at_once.get() + 1);
        fake.most_at_once.set(fake.most_at_once.get().max(fake.at_once.get()));
        Self(fake)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.at_once.set(self.0.at_once.get() - 1);
    }
}

/// Makes of `a` what only the item `a` can become; texts that hold `bad` fail by themselves.
fn answer(item: &Item) -> ItemResult {
    match std::str::from_utf8(&item.text).unwrap() {
        text if text.contains("bad") => Err("vault_tag"),
        text => Ok(format!("<{text}>").into()),
    }
}

impl Service for Rc<Fake> {
    async fn call(&self, _: &VaultKey, _: Operation, items: &[Item]) -> Result<Vec<ItemResult>, Error> {
        self.calls.set(self.calls.get() + 1);
        let under_way = UnderWay::new(self);
        let turn = self.turns.borrow_mut().pop().unwrap_or(Turn::Well);
        sleep(match turn {
            Turn::Late => Duration::from_millis(20),
            Turn::Hang => Duration::from_secs(60),
            _ => Duration::from_millis(1),
        })
        .await;
        drop(under_way);
        let strings: usize = items.iter().map(Item::strings).sum();
        match turn {
            Turn::Unreachable => return Err(Error::of_code(599)),
            Turn::Sealed => return Err(Error::of_code(503)),
            Turn::Strings(most) if strings > most => {
                return Err(Error::said(400, "exceeded maximum number of strings"));
            }
            Turn::Refused => return Err(Error::said(400, "no")),
            Turn::TooFew => return Ok(Vec::new()),
            _ => {}
        }
        self.items.set(self.items.get() + items.len());
        Ok(items.iter().map(answer).collect())
    }
}

fn item(text: String) -> Item {
    Item { text: text.into_bytes().into(), context: "".into(), associated: None, version: None }
}

/// What one message gets, in the order of its tickets.
async fn message(lanes: Rc<Lanes<Rc<Fake>>>, tenant: &str, texts: Vec<String>) -> Vec<Result<String, Missed>> {
    let keys = Keys::default();
    let key = keys.expected(&VaultKey { mount: "m".to_owned(), key: "k".to_owned() }, false);
    asked(&lanes, &key, tenant, texts).await
}

async fn asked(
    lanes: &Lanes<Rc<Fake>>,
    key: &Arc<super::Key>,
    tenant: &str,
    texts: Vec<String>,
) -> Vec<Result<String, Missed>> {
    let mailbox = Mailbox::new();
    let count = texts.len();
    let items = texts.into_iter().enumerate().map(|(at, text)| (at as u64, item(text))).collect();
    lanes.ask(key, Operation::Encrypt, Some(&tenant.into()), &mailbox, items);
    let mut got: Vec<Option<Result<String, Missed>>> = vec![None; count];
    for _ in 0..count {
        let (ticket, outcome) = poll_fn(|cx| mailbox.poll(cx)).await;
        let slot = &mut got[usize::try_from(ticket).unwrap()];
        assert!(slot.is_none(), "one answer each");
        *slot = Some(outcome.map(|text| String::from_utf8(text.to_vec()).unwrap()));
    }
    assert!(poll_fn(|cx| Poll::Ready(mailbox.poll(cx).is_pending())).await, "and no more");
    got.into_iter().map(Option::unwrap).collect()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

fn fake(turns: &[Turn]) -> Rc<Fake> {
    Rc::new(Fake { turns: RefCell::new(turns.iter().rev().copied().collect()), ..Fake::default() })
}

fn lanes(fake: Rc<Fake>) -> Rc<Lanes<Rc<Fake>>> {
    Lanes::with(fake, Memory::default(), Times::SHORT)
}

fn key() -> Arc<super::Key> {
    Keys::default().expected(&VaultKey { mount: "m".to_owned(), key: "k".to_owned() }, false)
}

#[test]
fn messages_that_come_together_go_together_and_each_gets_its_own() {
    run(async {
        let fake = fake(&[]);
        let (lanes, key) = (lanes(Rc::clone(&fake)), key());
        let tasks: Vec<_> = (0..64)
            .map(|at| {
                let (lanes, key) = (Rc::clone(&lanes), Arc::clone(&key));
                spawn_local(
                    async move { asked(&lanes, &key, "t", (0..3).map(|n| format!("{at}.{n}")).collect()).await },
                )
            })
            .collect();
        for (at, task) in tasks.into_iter().enumerate() {
            let want: Vec<_> = (0..3).map(|n| Ok(format!("<{at}.{n}>"))).collect();
            assert_eq!(task.await.unwrap(), want);
        }
        assert_eq!((fake.calls.get(), fake.items.get()), (1, 192), "one call for 64 messages");
    });
}

#[test]
fn a_lonely_message_does_not_wait_for_company() {
    run(async {
        let fake = fake(&[]);
        let (lanes, key, mailbox) = (lanes(Rc::clone(&fake)), key(), Mailbox::new());
        lanes.ask(&key, Operation::Encrypt, None, &mailbox, vec![(0, item("a".to_owned()))]);
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fake.calls.get(), 1, "no timer stands before its call");
    });
}

#[test]
fn one_bad_item_fails_alone_and_a_refused_call_is_halved_until_it_is_found() {
    run(async {
        let texts = |n: usize| (0..n).map(|at| at.to_string()).chain(["bad".to_owned()]).collect::<Vec<_>>();
        for turns in [&[][..], &[Turn::Refused, Turn::Refused]] {
            let got = message(lanes(fake(turns)), "t", texts(5)).await;
            assert_eq!(got.iter().filter(|one| one.is_ok()).count(), 5, "{turns:?}: {got:?}");
            assert_eq!(got[5], Err(Missed::Refused("vault_tag")));
        }
    });
}

#[test]
fn a_smaller_limit_is_learned_once() {
    run(async {
        let fake = fake(&[Turn::Strings(500), Turn::Strings(500), Turn::Strings(500), Turn::Strings(500)]);
        let (lanes, key) = (lanes(Rc::clone(&fake)), key());
        let texts: Vec<_> = (0..249).map(|at| at.to_string()).collect();
        let got = asked(&lanes, &key, "t", texts.clone()).await;
        assert!(got.iter().all(Result::is_ok));
        let calls = fake.calls.get();
        assert!(asked(&lanes, &key, "t", texts).await.iter().all(Result::is_ok));
        assert_eq!((calls, fake.calls.get()), (3, 6), "refused once, then halves; after that 124 items a call");
    });
}

#[test]
fn a_vault_that_hangs_is_given_up_in_time_and_not_waited_for_by_all() {
    run(async {
        let begun = tokio::time::Instant::now();
        let fake = fake(&[Turn::Hang; 3]);
        let (lanes, key) = (lanes(Rc::clone(&fake)), key());
        let got = asked(&lanes, &key, "t", vec!["a".to_owned()]).await;
        assert_eq!(got, [Err(Missed::Unavailable("vault_timeout"))]);
        assert!(begun.elapsed() < Duration::from_secs(10), "the call itself takes a minute");
    });
}

#[test]
fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    run(async {
        let well = fake(&[Turn::Unreachable, Turn::Sealed]);
        assert!(message(lanes(Rc::clone(&well)), "t", vec!["a".to_owned()]).await[0].is_ok());
        assert_eq!(well.calls.get(), 3);
        let down = fake(&[Turn::Sealed; 9]);
        let (lanes, key) = (lanes(Rc::clone(&down)), key());
        let sealed = [Err(Missed::Unavailable("vault_sealed"))];
        assert_eq!(asked(&lanes, &key, "t", vec!["a".to_owned()]).await, sealed);
        assert_eq!(down.calls.get(), 3);
        assert_eq!(asked(&lanes, &key, "t", vec!["a".to_owned()]).await, sealed);
        assert_eq!(down.calls.get(), 3, "nobody asks while the breaker is open");
        sleep(Duration::from_millis(550)).await;
        assert_eq!(asked(&lanes, &key, "t", vec!["a".to_owned()]).await, sealed);
        assert_eq!(down.calls.get(), 4, "one asks whether it is back");
        down.turns.borrow_mut().clear();
        sleep(Duration::from_millis(600)).await;
        assert!(asked(&lanes, &key, "t", vec!["a".to_owned()]).await[0].is_ok());
    });
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => Just(Turn::Well),
        2 => Just(Turn::Late),
        1 => Just(Turn::Hang),
        2 => Just(Turn::Unreachable),
        1 => Just(Turn::Sealed),
        1 => (10_usize..400).prop_map(Turn::Strings),
        1 => Just(Turn::Refused),
        1 => Just(Turn::TooFew),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Messages that come at any time, some of whose apps leave, some of whose fields are bad, and a Vault that fails in every way.
    #[test]
    fn whatever_happens_every_message_gets_exactly_its_own_results(
        turns in prop::collection::vec(turn(), 0..30),
        messages in prop::collection::vec((0_u64..30, 0_usize..120, 0_usize..4, prop::option::of(0_u64..20)), 1..30),
    ) {
        run(async {
            let fake = fake(&turns);
            let (lanes, key) = (lanes(Rc::clone(&fake)), key());
            let tasks: Vec<_> = messages
                .iter()
                .enumerate()
                .map(|(at, &(comes, count, tenant, leaves))| {
                    let (lanes, key) = (Rc::clone(&lanes), Arc::clone(&key));
                    let text = move |n: usize| if n % 7 == 3 { format!("{at}.{n}.bad") } else { format!("{at}.{n}") };
                    spawn_local(async move {
                        sleep(Duration::from_millis(comes)).await;
                        let tenant = tenant.to_string();
                        let asking = asked(&lanes, &key, &tenant, (0..count).map(text).collect());
                        // Twice the patience: what waits in the queue is sent when others have ended.
                        let within = leaves.map_or(Duration::from_secs(60), Duration::from_millis);
                        let Ok(got) = timeout(within, asking).await else {
                            assert!(leaves.is_some(), "no answer in a minute");
                            return;
                        };
                        for (n, one) in got.iter().enumerate() {
                            match one {
                                Ok(got) => assert_eq!(*got, format!("<{}>", text(n))),
                                Err(Missed::Refused("vault_tag")) => assert_eq!(n % 7, 3),
                                Err(Missed::Refused(_) | Missed::Unavailable(_)) => {}
                                Err(Missed::Full) => panic!("nothing is full"),
                            }
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert!(fake.most_at_once.get() <= 4, "{} calls at once", fake.most_at_once.get());
        });
    }
}

#[test]
fn what_is_denied_to_one_worker_makes_all_forget() {
    let denials = Arc::default();
    let cache = || Some(oilskin_crypto::Remembered::new(4_096, true).unwrap());
    let [one, other] = [Memory::new(cache(), &denials), Memory::new(cache(), &denials)];
    let now = std::time::Instant::now();
    for memory in [&one, &other] {
        memory.with(|cache| cache.remember(&[b"token"], b"plain", now));
    }
    let recalls = |memory: &Memory| memory.with(|cache| cache.recall(&[b"token"], now, &mut Vec::new())).unwrap();
    assert!(recalls(&one) && recalls(&other));
    one.denied();
    assert!(!recalls(&one) && !recalls(&other));
}

//! Random programs: many tasks at one primitive, some of them cancelled and some waits dropped at
//! random points. What comes out is compared with a plain model: nothing is lost, nothing is had
//! twice, nobody overtakes, and nobody is left waiting.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::sim::{Faults, Sim, for_seeds};
use quoit::sync::channel::{self, SendError};
use quoit::sync::{Condition, Mutex, OnceCell, Semaphore, broadcast, oneshot, watch};
use quoit::time::sleep;
use quoit::{CancelHandle, CarriesCancelled, JoinHandle, Scope, random, spawn, yield_now};
use tests::{Counted, Drops};

/// How many seeds each program is run under.
const SEEDS: u64 = 150;

/// Runs a program under seeds, half of them with faults that nobody has to notice.
fn under_seeds<M: Future<Output = ()>>(program: impl Fn() -> M) {
    for_seeds(0..SEEDS, |sim: Sim| {
        let faults = if sim.seed().is_multiple_of(2) {
            Faults::none()
        } else {
            Faults::benign()
        };
        let outcome = sim.faults(faults).block_on(program());
        assert_eq!(outcome.counts.left_behind, 0, "waits or scopes are left");
    });
}

fn below(end: u64) -> u64 {
    random().expect("a simulation has randomness") % end
}

/// Lets others run, or time pass.
async fn pause() -> io::Result<()> {
    match below(4) {
        0 => Ok(()),
        1 => Ok(yield_now().await?),
        _ => Ok(sleep(Duration::from_nanos(1 + below(50))).await?),
    }
}

/// How one call came out.
#[derive(Debug, PartialEq, Eq)]
enum Call<T> {
    Ended(T),
    /// Its future was dropped after some polls.
    Dropped,
}

/// Polls a call to its end, or drops it when it was polled so often.
async fn perhaps_dropped<F: Future>(call: F) -> Call<F::Output> {
    let mut left = if below(4) == 0 { below(3) } else { u64::MAX };
    let mut call = pin!(call);
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(Call::Dropped);
        }
        left -= 1;
        let polled = call.as_mut().poll(cx).map(Call::Ended);
        if polled.is_pending() && left < 3 {
            // Nobody else would.
            cx.waker().wake_by_ref();
        }
        polled
    })
    .await
}

/// Makes a call in a scope that is cancelled soon, or drops it; `None` if one of the two ended it.
async fn attempt<T, E: CarriesCancelled>(
    call: impl Future<Output = Result<T, E>>,
) -> Option<Result<T, E>> {
    let scope = Scope::new().timeout(Duration::from_nanos(below(60)));
    let body = async {
        match perhaps_dropped(call).await {
            Call::Ended(outcome) => outcome.map(Some),
            Call::Dropped => Ok(None),
        }
    };
    scope.run(body).await.map(Option::flatten).transpose()
}

/// The tasks of a program, and what cancels them.
#[derive(Default)]
struct Crowd {
    tasks: Vec<(CancelHandle, JoinHandle<bool>)>,
    cancelled: Rc<RefCell<BTreeSet<usize>>>,
}

impl Crowd {
    /// Adds a task whose body runs in a scope that may be cancelled.
    fn add(&mut self, body: impl Future<Output = io::Result<()>> + 'static) {
        let scope = Scope::new();
        let handle = scope.handle();
        let task = spawn(async move {
            let outcome = scope.run(body).await;
            outcome.expect("no error but a cancel").is_some()
        });
        self.tasks.push((handle, task));
    }

    /// Cancels some of them, now and then, and waits for all; returns how many were not cancelled.
    async fn end(self) -> usize {
        for (place, (scope, _)) in self.tasks.iter().enumerate() {
            if below(3) == 0 {
                pause().await.expect("nobody cancels this");
                self.cancelled.borrow_mut().insert(place);
                scope.cancel();
            }
        }
        let mut whole = 0;
        for (_, task) in self.tasks {
            whole += usize::from(task.await.expect("no panic"));
        }
        whole
    }
}

#[test]
fn c136_permits_are_all_free_at_the_end_and_never_more_held_than_there_are() {
    let whole = Rc::new(Cell::new(0));
    let inside = Rc::clone(&whole);
    under_seeds(move || {
        let whole = Rc::clone(&inside);
        async move {
            let total = 1 + below(5) as usize;
            let permits = Rc::new(Semaphore::new(total));
            let held = Rc::new(Cell::new(0));
            let mut crowd = Crowd::default();
            for _ in 0..40 {
                let (permits, held) = (Rc::clone(&permits), Rc::clone(&held));
                crowd.add(async move {
                    for _ in 0..4 {
                        let count = 1 + below(total as u64) as usize;
                        let permit = if below(5) == 0 {
                            permits.try_acquire_many(count).ok()
                        } else {
                            match perhaps_dropped(permits.acquire_many(count)).await {
                                Call::Ended(permit) => Some(permit?),
                                Call::Dropped => None,
                            }
                        };
                        if permit.is_some() {
                            held.set(held.get() + count);
                            assert!(held.get() <= total && permits.held() >= held.get());
                            let paused = pause().await;
                            held.set(held.get() - count);
                            paused?;
                        }
                        drop(permit);
                    }
                    Ok(())
                });
            }
            whole.set(whole.get() + crowd.end().await);
            assert_eq!((permits.available(), permits.waiting()), (total, 0));
            assert_eq!(held.get(), 0);
        }
    });
    assert!(whole.get() > 0, "somebody has to get through");
}

/// The same with 1 000 tasks, as the scenario says, under a few seeds.
#[test]
fn c136_a_thousand_tasks_share_a_few_permits() {
    for_seeds(0..4, |sim| {
        sim.block_on(async {
            let permits = Rc::new(Semaphore::new(7));
            let most = Rc::new(Cell::new(0));
            let mut crowd = Crowd::default();
            for _ in 0..1_000 {
                let (permits, most) = (Rc::clone(&permits), Rc::clone(&most));
                crowd.add(async move {
                    let permit = Rc::clone(&permits).acquire_owned().await?;
                    most.set(most.get().max(permits.held()));
                    pause().await?;
                    drop(permit);
                    Ok(())
                });
            }
            assert!(crowd.end().await > 100);
            assert_eq!(most.get(), 7);
            assert_eq!((permits.available(), permits.waiting()), (7, 0));
        });
    });
}

#[test]
fn a_lock_goes_to_whoever_has_waited_longest() {
    under_seeds(|| async {
        let mutex = Rc::new(Mutex::new(0_u64));
        // Which task waits, by the order of arrival.
        let waiting = Rc::new(RefCell::new(BTreeMap::new()));
        let arrivals = Rc::new(Cell::new(0));
        let locked = Rc::new(Cell::new(false));
        let mut crowd = Crowd::default();
        for place in 0..30 {
            let (mutex, locked) = (Rc::clone(&mutex), Rc::clone(&locked));
            let (waiting, arrivals) = (Rc::clone(&waiting), Rc::clone(&arrivals));
            let cancelled = Rc::clone(&crowd.cancelled);
            crowd.add(async move {
                for _ in 0..3 {
                    pause().await?;
                    let ticket = arrivals.replace(arrivals.get() + 1);
                    waiting.borrow_mut().insert(ticket, place);
                    let call = perhaps_dropped(mutex.lock()).await;
                    waiting.borrow_mut().remove(&ticket);
                    let mut guard = match call {
                        Call::Ended(guard) => guard?,
                        Call::Dropped => continue,
                    };
                    let overtaken = |(_, place)| !cancelled.borrow().contains(place);
                    assert!(
                        !waiting.borrow().range(..ticket).any(overtaken),
                        "somebody was overtaken who was not cancelled"
                    );
                    assert!(!locked.replace(true), "one at a time");
                    *guard += 1;
                    let paused = pause().await;
                    locked.set(false);
                    paused?;
                }
                Ok(())
            });
        }
        crowd.end().await;
        assert!(*mutex.try_lock().expect("free") > 0);
        assert_eq!(mutex.waiting(), 0);
    });
}

/// What became of the items of a channel.
#[derive(Default)]
struct Fates {
    arrivals: Cell<u64>,
    sent: RefCell<BTreeSet<u64>>,
    given_back: RefCell<BTreeSet<u64>>,
    dropped: RefCell<BTreeSet<u64>>,
    received: RefCell<Vec<u64>>,
}

type Item = (u64, Counted);

impl Fates {
    /// Sends one item, one way or another; `Err` if it was cancelled.
    async fn send(&self, sender: &channel::Sender<Item>, item: Counted) -> io::Result<()> {
        let number = self.arrivals.replace(self.arrivals.get() + 1);
        let call = if below(5) == 0 {
            let sent = sender.try_send((number, item));
            Call::Ended(sent.map_err(|error| SendError::Closed(error.into_inner())))
        } else {
            perhaps_dropped(sender.send((number, item))).await
        };
        let list = match call {
            Call::Ended(Ok(())) => &self.sent,
            Call::Ended(Err(error)) => {
                let cancelled = error.cancelled();
                assert_eq!(error.into_inner().0, number);
                assert!(self.given_back.borrow_mut().insert(number));
                return cancelled.map_or(Ok(()), |cancelled| Err(cancelled.into()));
            }
            Call::Dropped => &self.dropped,
        };
        assert!(list.borrow_mut().insert(number));
        Ok(())
    }

    /// Receives until the channel is closed.
    async fn receive(&self, receiver: &channel::Receiver<Item>) -> io::Result<()> {
        loop {
            match perhaps_dropped(receiver.recv()).await {
                Call::Ended(item) => match item? {
                    Some((number, _)) => self.received.borrow_mut().push(number),
                    None => return Ok(()),
                },
                Call::Dropped => {}
            }
            pause().await?;
        }
    }

    /// Checks that each item had one fate, and that they were received in the order they were sent.
    fn check(&self, all_received: bool) {
        let received = self.received.borrow();
        assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
        let received: BTreeSet<u64> = received.iter().copied().collect();
        let (sent, dropped) = (self.sent.borrow(), self.dropped.borrow());
        assert!(received.is_disjoint(&self.given_back.borrow()));
        assert!(received.is_subset(&(&*sent | &*dropped)));
        if all_received {
            assert!(sent.is_subset(&received), "{sent:?} {received:?}");
        }
        let fates = sent.len() + dropped.len() + self.given_back.borrow().len();
        assert_eq!(fates as u64, self.arrivals.get());
    }
}

#[test]
fn an_item_is_received_once_or_given_back_and_in_order() {
    let received = Rc::new(Cell::new(0));
    let inside = Rc::clone(&received);
    under_seeds(move || {
        let total = Rc::clone(&inside);
        async move {
            let drops = Drops::new();
            let fates = Rc::new(Fates::default());
            let (sender, receiver) = channel::bounded(below(4) as usize);
            let mut crowd = Crowd::default();
            for _ in 0..12 {
                let (sender, fates, drops) = (sender.clone(), Rc::clone(&fates), drops.clone());
                crowd.add(async move {
                    for _ in 0..5 {
                        fates.send(&sender, drops.value()).await?;
                        pause().await?;
                    }
                    Ok(())
                });
            }
            for _ in 0..6 {
                let (receiver, fates) = (receiver.clone(), Rc::clone(&fates));
                crowd.add(async move { fates.receive(&receiver).await });
            }
            // Under every third seed, the receivers may all be gone before the senders.
            let patient = (below(3) > 0).then(|| {
                let (receiver, fates) = (receiver.clone(), Rc::clone(&fates));
                spawn(async move { fates.receive(&receiver).await })
            });
            let all_received = patient.is_some();
            drop((sender, receiver));
            crowd.end().await;
            if let Some(patient) = patient {
                let outcome = patient.await.expect("no panic");
                outcome.expect("it was not cancelled");
            }
            fates.check(all_received);
            assert_eq!(drops.alive(), 0, "each item was dropped, and once");
            total.set(total.get() + fates.received.borrow().len());
        }
    });
    assert!(
        received.get() > 100,
        "too few were received: {}",
        received.get()
    );
}

#[test]
fn every_receiver_sees_every_item_or_is_told_that_it_lost_it() {
    under_seeds(|| async {
        const ITEMS: u64 = 60;
        let drops = Drops::new();
        let (news, reader) = broadcast::bounded(1 + below(6) as usize);
        let mut tasks = Vec::new();
        for _ in 0..6 {
            let mut reader = reader.clone();
            tasks.push(spawn(async move {
                let mut next = 0;
                loop {
                    match attempt(reader.recv()).await {
                        None => {}
                        Some(Ok(Some(item))) => {
                            let item: Rc<(u64, Counted)> = item;
                            assert_eq!(item.0, next);
                            next += 1;
                        }
                        Some(Ok(None)) => return next,
                        Some(Err(broadcast::RecvError::Lagged(lost))) => next += lost,
                        Some(Err(error)) => panic!("{error}"),
                    }
                    if below(8) == 0 {
                        let once_more = reader.clone();
                        reader = once_more;
                    }
                }
            }));
        }
        drop(reader);
        for item in 0..ITEMS {
            news.send(Rc::new((item, drops.value())))
                .expect("receivers");
            pause().await.expect("nobody cancels this");
        }
        drop(news);
        for task in tasks {
            assert_eq!(task.await.expect("no panic"), ITEMS);
        }
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn every_watcher_sees_the_last_value_and_none_twice() {
    under_seeds(|| async {
        const LAST: u64 = 40;
        let (level, watcher) = watch::channel(0);
        let mut tasks = Vec::new();
        for _ in 0..6 {
            let mut watcher = watcher.clone();
            tasks.push(spawn(async move {
                let mut seen = 0;
                loop {
                    match attempt(watcher.changed()).await {
                        None => {}
                        Some(Ok(Some(value))) => {
                            assert!(*value > seen);
                            seen = *value;
                        }
                        Some(Ok(None)) => return seen,
                        Some(Err(error)) => panic!("{error}"),
                    }
                }
            }));
        }
        for value in 1..=LAST {
            level.send(value);
            pause().await.expect("nobody cancels this");
        }
        drop(level);
        for task in tasks {
            assert_eq!(task.await.expect("no panic"), LAST);
        }
    });
}

#[test]
fn one_value_is_received_or_given_back_or_dropped_with_its_receiver() {
    under_seeds(|| async {
        let drops = Drops::new();
        let mut pairs = Vec::new();
        for _ in 0..40 {
            let (sender, mut receiver) = oneshot::channel();
            let value = drops.value();
            let sends = spawn(async move {
                pause().await.expect("nobody cancels this");
                match below(4) {
                    0 => None,
                    _ => Some(sender.send(value).is_ok()),
                }
            });
            let receives = spawn(async move {
                loop {
                    match attempt(receiver.recv()).await {
                        Some(outcome) => return Some(outcome.is_ok()),
                        None if below(10) == 0 => return None,
                        None => {}
                    }
                }
            });
            pairs.push((sends, receives));
        }
        for (sends, receives) in pairs {
            let sent = sends.await.expect("no panic");
            let received = receives.await.expect("no panic");
            match received {
                Some(true) => assert_eq!(sent, Some(true)),
                Some(false) => assert_eq!(sent, None, "only a sender that is dropped ends it"),
                // Gone before or after.
                None => {}
            }
        }
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_cell_is_made_once_and_everybody_sees_the_same() {
    under_seeds(|| async {
        let cell = Rc::new(OnceCell::new());
        let makers = Rc::new(Cell::new(0));
        let made = Rc::new(Cell::new(0));
        let mut crowd = Crowd::default();
        for place in 0..20_u64 {
            let (cell, makers, made) = (Rc::clone(&cell), Rc::clone(&makers), Rc::clone(&made));
            crowd.add(async move {
                pause().await?;
                loop {
                    let got = cell.get_or_try_init(async || {
                        assert_eq!(makers.get(), 0, "one at a time");
                        let making = Making::begin(&makers);
                        pause().await?;
                        drop(making);
                        if below(3) == 0 {
                            return Err(io::Error::from(io::ErrorKind::NotFound));
                        }
                        made.set(made.get() + 1);
                        Ok(place)
                    });
                    let got = match perhaps_dropped(got).await {
                        Call::Ended(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                            continue;
                        }
                        Call::Ended(got) => *got?,
                        Call::Dropped => continue,
                    };
                    assert_eq!(cell.get(), Some(&got));
                    return Ok(());
                }
            });
        }
        let whole = crowd.end().await;
        assert_eq!(made.get(), u64::from(cell.get().is_some()));
        assert!(whole == 0 || cell.get().is_some());
    });
}

#[test]
fn a_notification_is_never_lost() {
    under_seeds(|| async {
        const ITEMS: usize = 40;
        let shared = Rc::new((Mutex::new(Stock::default()), Condition::new()));
        let taken = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for place in 0..8 {
            let (shared, taken) = (Rc::clone(&shared), Rc::clone(&taken));
            tasks.push(spawn(async move {
                // Two stay to the end; the others give up after some attempts.
                let mut attempts = if place < 2 { u64::MAX } else { 1 + below(8) };
                while attempts > 0 {
                    let take = async {
                        let (stock, changed) = &*shared;
                        let mut stock = changed
                            .wait_while(stock.lock().await?, |stock| {
                                stock.items.is_empty() && !stock.is_closed
                            })
                            .await?;
                        let item = stock.items.pop_front();
                        taken.borrow_mut().extend(item);
                        Ok::<_, io::Error>(item.is_some())
                    };
                    let outcome = if place < 2 {
                        Some(take.await)
                    } else {
                        attempts -= 1;
                        attempt(take).await
                    };
                    let more = outcome.map(|more| more.expect("no error but a cancel"));
                    if more == Some(false) {
                        return;
                    }
                }
            }));
        }
        let (stock, changed) = &*shared;
        for item in 0..ITEMS {
            let mut stock = stock.lock().await.expect("nobody cancels this");
            stock.items.push_back(item);
            if below(2) == 0 {
                drop(stock);
            }
            changed.notify_one();
            pause().await.expect("nobody cancels this");
        }
        // Whoever was notified takes what is left: no further word is needed for that.
        for _ in 0..1_000 {
            if taken.borrow().len() == ITEMS {
                break;
            }
            sleep(Duration::from_nanos(10))
                .await
                .expect("nobody cancels this");
        }
        assert_eq!(taken.borrow().len(), ITEMS, "a notification was lost");
        stock.lock().await.expect("nobody cancels this").is_closed = true;
        changed.notify_all();
        for task in tasks {
            task.await.expect("no panic");
        }
        assert!(
            taken.borrow().is_sorted_by(|a, b| a < b),
            "each once, in order"
        );
        assert!(changed.waiting() == 0 && !stock.is_locked());
    });
}

#[derive(Default)]
struct Stock {
    items: VecDeque<usize>,
    is_closed: bool,
}

/// Somebody makes the value.
struct Making<'a>(&'a Cell<u64>);

impl<'a> Making<'a> {
    fn begin(makers: &'a Cell<u64>) -> Self {
        makers.set(makers.get() + 1);
        Self(makers)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

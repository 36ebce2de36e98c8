//! Waits of all kinds in random trees, against what each of them is to come to.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Wake;

use super::*;

/// Somebody who waits, and how often he was woken.
struct Who(AtomicU32);

impl Wake for Who {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The other side of a wait, and how often it was told.
struct Side(Cell<u32>);

impl Relay for Side {
    fn relay(&self, _: Cancelled, _: Option<Instant>) {
        self.0.set(self.0.get() + 1);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Memory,
    Kernel,
    Deaf,
    Relayed,
}

/// A wait as it has to be.
struct Expected {
    id: ParkId,
    of: Of,
    /// The waker that it has, if it has one.
    who: usize,
    /// Where it lies, or lay when it was told.
    node: usize,
    told: bool,
    /// By whom it was told, and where it stood then.
    teller: Option<Told>,
    /// He is to be woken for a cancel, and was not.
    due: bool,
    /// Of the wait: that of its kernel op as well.
    number: usize,
}

struct World {
    tree: Tree,
    /// The nodes that were, with the places of those around them; `None` once they are closed.
    nodes: Vec<Option<(NodeId, usize)>>,
    waits: Vec<Expected>,
    people: Vec<(Arc<Who>, Waker)>,
    wakes: Vec<u32>,
    /// The other side of each wait, or what stands for its kernel op, and how often that has to be told.
    sides: Vec<(Rc<Side>, u32)>,
}

const PEOPLE: usize = 4;

impl World {
    fn new() -> Self {
        let tree = Tree::new(0);
        let root = tree.root();
        let people = (0..PEOPLE).map(|_| Arc::new(Who(0.into())));
        Self {
            tree,
            nodes: vec![Some((root, 0))],
            waits: Vec::new(),
            people: people
                // Copies know each other, where the first may have a table of its own.
                .map(|who| (Arc::clone(&who), Waker::from(who).clone()))
                .collect(),
            wakes: vec![0; PEOPLE],
            sides: Vec::new(),
        }
    }

    fn node(&self, place: usize) -> NodeId {
        self.nodes[place].expect("it is open").0
    }

    fn begin(&mut self, of: Of, node: usize, who: usize) {
        let number = self.sides.len();
        let side = Rc::new(Side(Cell::new(0)));
        let waker = self.people[who].1.clone();
        let purpose = Purpose::Turn;
        let wait = match of {
            Of::Memory => Wait::Memory { waker, purpose },
            Of::Deaf => Wait::Deaf { waker, purpose },
            Of::Kernel => Wait::Kernel(number as u64),
            Of::Relayed => {
                let relay = self.tree.keep_relay(Rc::<Side>::clone(&side));
                Wait::Relayed {
                    waker,
                    purpose,
                    relay,
                }
            }
        };
        let id = self.tree.park(self.node(node), wait);
        self.sides.push((side, 0));
        self.waits.push(Expected {
            id,
            of,
            who,
            node,
            told: false,
            teller: None,
            due: false,
            number,
        });
    }

    /// Does all that is to be done.
    fn drain(&mut self) {
        while let Some(effect) = self.tree.next_effect() {
            match effect {
                Effect::Wake(waker) => waker.wake(),
                Effect::Kernel(op) => self.sides[op as usize]
                    .0
                    .relay(Cancelled::requested(), None),
                Effect::Relay(relay, cause, ..) => relay.relay(cause, None),
                Effect::Drop(waker) | Effect::Seen(waker) => drop(waker),
                other => assert!(matches!(other, Effect::Foreign(_)), "{other:?}"),
            }
        }
        for wait in self.waits.iter_mut().filter(|wait| wait.due) {
            wait.due = false;
            self.wakes[wait.who] += 1;
        }
        for ((who, _), &wakes) in self.people.iter().zip(&self.wakes) {
            assert_eq!(who.0.load(Relaxed), wakes);
        }
    }

    /// The owner of a wait gives it up, and so does somebody else who drops it.
    fn give_up(&mut self, place: usize) {
        let wait = self.waits.swap_remove(place);
        let is_plain = !wait.told && matches!(wait.of, Of::Memory | Of::Kernel);
        match self.tree.give_up(wait.id) {
            GivenUp::Nothing => assert!(is_plain && wait.of == Of::Kernel),
            GivenUp::Waker(waker) => {
                assert!(is_plain && waker.will_wake(&self.people[wait.who].1));
            }
            GivenUp::Told => {
                assert!(!is_plain);
                let remains = self.tree.unpark(wait.id).expect("it is there");
                assert_eq!(remains.told(), wait.teller);
                let due = remains.due();
                assert_eq!(due.is_some(), wait.due);
                assert!(due.is_none_or(|due| due.will_wake(&self.people[wait.who].1)));
            }
        }
    }

    /// Somebody completes a wait.
    fn complete(&mut self, place: usize) {
        let wait = &self.waits[place];
        let waker = self.tree.complete(wait.id);
        let ends = match wait.of {
            Of::Memory => !wait.told,
            Of::Kernel => false,
            Of::Deaf | Of::Relayed => true,
        };
        assert_eq!(waker.is_some(), ends, "{:?}", wait.of);
        if let Some(waker) = waker {
            assert!(waker.will_wake(&self.people[wait.who].1));
            self.waits.swap_remove(place);
        }
    }

    /// Somebody looks at a wait, within a node; as one who needs it no more once it has ended, or not.
    fn look(&mut self, place: usize, node: usize, who: usize, is_last: bool) {
        let active = self.node(node);
        let wait = &mut self.waits[place];
        let waker = self.people[who].1.clone();
        let is_over = wait.told && matches!(wait.of, Of::Memory | Of::Kernel);
        if is_last && wait.of == Of::Memory {
            let outcome = self.tree.outcome(wait.id, Some(active), &waker);
            let is_same = wait.who == who && wait.node == node;
            match outcome {
                Outcome::Aborted(_, told) => assert_eq!((Some(told), is_over), (wait.teller, true)),
                Outcome::Unchanged => assert!(!is_over && is_same),
                Outcome::None => assert!(!is_over && !is_same),
                Outcome::Ready => panic!("nobody has completed it"),
            }
            if is_over {
                self.wakes[wait.who] += u32::from(wait.due && wait.who != who);
                self.waits.swap_remove(place);
            }
            return;
        }
        let polled = self
            .tree
            .poll_park(wait.id, active, &waker, &mut Some(waker.clone()));
        let polled = polled.expect("a copy is there");
        if is_over {
            assert!(matches!(polled.parked, Parked::Aborted(_)));
            self.wakes[wait.who] += u32::from(wait.due && wait.who != who);
            wait.due = false;
            return;
        }
        if wait.of != Of::Kernel {
            assert_eq!(polled.stale.is_some(), wait.who != who);
            wait.who = who;
        }
        if !wait.told {
            wait.node = node;
            // Who looks is told there and then.
            let ends = matches!(wait.of, Of::Memory | Of::Kernel);
            wait.told = ends && self.tree.is_cancelled(active);
            wait.teller = wait.told.then(|| told_now(&self.tree, active));
            self.sides[wait.number].1 += u32::from(wait.told && wait.of == Of::Kernel);
        }
        let is_aborted = matches!(polled.parked, Parked::Aborted(_));
        assert_eq!(is_aborted, wait.told && wait.of != Of::Relayed);
    }

    fn close(&mut self, node: usize) {
        let (id, around) = self.nodes[node].take().expect("it is open");
        self.tree.close(id);
        for other in self.nodes.iter_mut().flatten() {
            if other.1 == node {
                other.1 = around;
            }
        }
        for wait in &mut self.waits {
            if wait.node == node && !wait.told {
                wait.node = around;
            }
        }
    }

    /// Notes who has to have been told by what was done, and looks whether all is as it has to be.
    fn check(&mut self) {
        for wait in &mut self.waits {
            if !wait.told && wait.of != Of::Deaf {
                let (node, _) = self.nodes[wait.node].expect("a wait goes outward");
                wait.told = self.tree.is_cancelled(node);
                wait.teller = wait.told.then(|| told_now(&self.tree, node));
                wait.due = wait.told && wait.of == Of::Memory;
                self.sides[wait.number].1 += u32::from(wait.told && wait.of != Of::Memory);
            }
            let is_over = wait.told && matches!(wait.of, Of::Memory | Of::Kernel);
            assert_eq!(self.tree.aborted(wait.id).is_some(), is_over);
            assert_eq!(self.tree.is_waiting(wait.id), !is_over);
        }
        let kept = self.waits.iter();
        let kept = kept.filter(|wait| wait.of == Of::Relayed && !wait.told);
        assert_eq!(self.tree.relays.len(), kept.count());
        assert_eq!(self.tree.park_count(), self.waits.len());
        for (place, node) in self.nodes.iter().enumerate().skip(1) {
            let Some((id, _)) = *node else { continue };
            let holds = |wait: &Expected| {
                let ends_by_itself = wait.of != Of::Memory || !wait.told;
                wait.node == place && ends_by_itself
            };
            let is_around = |other: &(NodeId, usize)| other.1 == place;
            let is_bare =
                !self.waits.iter().any(holds) && !self.nodes.iter().flatten().any(is_around);
            assert_eq!(self.tree.waits_in_foreign(id), is_bare);
        }
    }
}

/// What a wait is to know that stands under this node and is told of a cancel now.
fn told_now(tree: &Tree, under: NodeId) -> Told {
    let by = tree.source(under).expect("it is cancelled");
    Told { under, by }
}

/// Each is told once, by what it waits for, and woken once; and nothing is left of any.
#[test]
fn waits_of_all_kinds_come_to_what_they_have_to() {
    const KINDS: [Of; 4] = [Of::Memory, Of::Kernel, Of::Deaf, Of::Relayed];
    for seed in 0..300_u64 {
        let mut random = seed;
        let mut draw = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let mut world = World::new();
        for _ in 0..300 {
            let open: Vec<_> = (0..world.nodes.len())
                .filter(|&place| world.nodes[place].is_some())
                .collect();
            let node = open[draw(open.len())];
            let who = draw(PEOPLE);
            let wait = draw(world.waits.len().max(1));
            match draw(10) {
                0 if open.len() < 8 => {
                    let id = world.tree.open(world.node(node), Kind::Scope, Shield::None);
                    world.nodes.push(Some((id, node)));
                }
                1 if node != 0 && draw(2) == 0 => {
                    world
                        .tree
                        .cancel(world.node(node), Cancelled::requested(), None);
                }
                2 if node != 0 => world.close(node),
                3 => world.drain(),
                4 | 5 if !world.waits.is_empty() => world.look(wait, node, who, draw(2) == 0),
                6 if !world.waits.is_empty() => world.give_up(wait),
                7 if !world.waits.is_empty() => world.complete(wait),
                _ => world.begin(KINDS[draw(4)], node, who),
            }
            world.check();
        }
        while !world.waits.is_empty() {
            world.drain();
            world.give_up(0);
        }
        world.drain();
        world.check();
        for (side, told) in &world.sides {
            assert_eq!(
                (side.0.get(), Rc::strong_count(side)),
                (*told, 1),
                "seed {seed}"
            );
        }
        for ((who, _), &wakes) in world.people.iter().zip(&world.wakes) {
            assert_eq!(
                (who.0.load(Relaxed), Arc::strong_count(who)),
                (wakes, 2),
                "seed {seed}"
            );
        }
    }
}

//! The tree by itself, and its bits against their definition.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Wake;

use super::*;
use crate::task::TaskId;
use crate::task::waker::task_of;
use crate::time::store::TimerStore;

fn waiting() -> Wait {
    Wait::Memory {
        waker: Waker::noop().clone(),
        purpose: Purpose::Time,
    }
}

fn task_waker(slot: u32) -> Waker {
    TaskId::new(0, slot, NonZeroU32::MIN).waker()
}

fn cause() -> Cancelled {
    Cancelled::requested()
}

fn shield(shielded: bool) -> Shield {
    if shielded { Shield::Full } else { Shield::None }
}

fn open(tree: &mut Tree, parent: NodeId, shielded: bool) -> NodeId {
    tree.open(parent, Kind::Scope, shield(shielded))
}

fn open_below_root(tree: &mut Tree, shielded: bool) -> NodeId {
    open(tree, tree.root(), shielded)
}

fn effects(tree: &mut Tree) -> Vec<Effect> {
    std::iter::from_fn(|| tree.next_effect()).collect()
}

fn cancel(tree: &mut Tree, node: NodeId, cause: Cancelled) -> Vec<Effect> {
    tree.cancel(node, cause, None);
    effects(tree)
}

fn cancel_root(tree: &mut Tree) -> Vec<Effect> {
    cancel(tree, tree.root(), cause())
}

/// Looks at a park as its owner does, who has this waker.
fn poll(tree: &mut Tree, park: ParkId, active: NodeId, waker: &Waker) -> Parked {
    let polled = tree.poll_park(park, active, waker, &mut Some(waker.clone()));
    polled.expect("a copy is there").parked
}

fn look(tree: &mut Tree, park: ParkId, active: NodeId) -> Parked {
    poll(tree, park, active, Waker::noop())
}

/// Asks whether the end of a node is reached, and waits for it if not.
fn is_done(tree: &mut Tree, node: NodeId) -> bool {
    tree.is_done(node) || tree.await_end(node, Waker::noop().clone()).is_some()
}

/// What a wait came to that a cancel of its own scope has aborted.
fn aborted_in(scope: NodeId) -> Outcome {
    let (under, by) = (scope, scope);
    Outcome::Aborted(cause(), Told { under, by })
}

fn move_to_root(tree: &mut Tree, node: NodeId) {
    tree.move_under(node, tree.root());
    assert!(effects(tree).is_empty());
}

fn task(tree: &mut Tree, parent: NodeId) -> NodeId {
    tree.open(parent, Kind::Task(7), Shield::None)
}

#[test]
fn cancel_reaches_what_is_below_and_nothing_else() {
    let mut tree = Tree::new(0);
    let outer = open_below_root(&mut tree, false);
    let inner = open(&mut tree, outer, false);
    let shield = open(&mut tree, outer, true);
    let beside = open_below_root(&mut tree, false);
    for node in [outer, inner, shield, beside] {
        tree.park(node, waiting());
    }
    assert_eq!(cancel(&mut tree, outer, cause()).len(), 2);
    assert!(tree.is_cancelled(inner));
    assert!(!tree.is_cancelled(shield));
    assert!(!tree.is_cancelled(beside));
    assert!(tree.absorbs(outer));
    assert!(!tree.absorbs(inner));
}

#[test]
fn second_cancel_finds_nothing_to_do() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    tree.park(scope, Wait::Kernel(1));
    assert_eq!(cancel(&mut tree, scope, cause()).len(), 1);
    assert!(cancel(&mut tree, scope, Cancelled::deadline()).is_empty());
    assert!(cancel_root(&mut tree).is_empty());
    assert_eq!(tree.own_cause(scope), Some(cause()));
}

#[test]
fn completed_park_is_not_aborted() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    let park = tree.park(scope, waiting());
    assert!(tree.complete(park).is_some());
    assert!(cancel(&mut tree, scope, cause()).is_empty());
    assert_eq!(look(&mut tree, park, scope), Parked::Ready);
}

#[test]
fn aborted_park_is_skipped_by_who_would_complete_it() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    let park = tree.park(scope, waiting());
    assert_eq!(cancel(&mut tree, scope, cause()).len(), 1);
    assert!(tree.complete(park).is_none());
    assert_eq!(look(&mut tree, park, scope), Parked::Aborted(cause()));
}

#[test]
fn a_wait_knows_which_scope_has_aborted_it_and_whose_it_was() {
    let mut tree = Tree::new(0);
    let root = tree.root();
    let outer = open_below_root(&mut tree, false);
    let task = tree.open(outer, Kind::Task(3), Shield::None);
    let inner = open(&mut tree, task, false);
    let told_of = |tree: &mut Tree, park| {
        let remains = tree.unpark(park).expect("it is there");
        remains.told()
    };
    let wait = tree.park(inner, Wait::Kernel(1));
    assert_eq!(told_of(&mut tree, wait), None, "nobody has cancelled it");
    let [first, second, third] = [(); 3].map(|()| tree.park(inner, Wait::Kernel(1)));
    cancel(&mut tree, outer, cause());
    // What comes later has aborted nothing, and a shield takes nothing back.
    cancel(&mut tree, root, Cancelled::deadline());
    tree.set_shield(inner, Shield::Full);
    let told = Told {
        under: inner,
        by: outer,
    };
    assert_eq!(told_of(&mut tree, first), Some(told));
    assert_eq!(tree.teller(told), Some(outer));
    assert!(tree.may_be_of(inner, 3));
    assert!(!tree.may_be_of(inner, 4));
    tree.set_shield(inner, Shield::None);
    tree.move_under(task, root);
    tree.close(outer);
    assert_eq!(told_of(&mut tree, second), Some(told));
    assert_eq!(tree.teller(told), Some(root), "it is who refuses it now");
    tree.close(inner);
    assert_eq!(told_of(&mut tree, third), Some(told));
    assert_eq!(tree.teller(told), None);
    assert!(tree.may_be_of(inner, 4), "nobody knows");
}

#[test]
fn a_park_follows_the_scope_it_is_polled_under() {
    let mut tree = Tree::new(0);
    let before = open_below_root(&mut tree, false);
    let now = open_below_root(&mut tree, false);
    let park = tree.park(before, waiting());
    assert_eq!(look(&mut tree, park, now), Parked::Waiting);
    assert!(cancel(&mut tree, before, cause()).is_empty());
    assert_eq!(cancel(&mut tree, now, cause()).len(), 1);
}

#[test]
fn a_wait_is_unchanged_only_where_the_same_polls_it_again() {
    let mut tree = Tree::new(0);
    let (scope, other) = (
        open_below_root(&mut tree, false),
        open_below_root(&mut tree, false),
    );
    let waker = Waker::from(Arc::new(Woken(0.into())));
    let purpose = Purpose::Time;
    let known = waker.clone();
    let wait = Wait::Memory {
        waker: known,
        purpose,
    };
    let park = tree.park(scope, wait);
    assert_eq!(tree.outcome(park, Some(scope), &waker), Outcome::Unchanged);
    assert_eq!(tree.outcome(park, Some(other), &waker), Outcome::None);
    assert_eq!(
        tree.outcome(park, None, &waker),
        Outcome::None,
        "it has no node yet"
    );
    assert_eq!(
        tree.outcome(park, Some(scope), Waker::noop()),
        Outcome::None
    );
    assert!(tree.cancel(scope, cause(), None));
    assert_eq!(tree.outcome(park, Some(scope), &waker), aborted_in(scope));
    assert_eq!(
        tree.outcome(park, Some(scope), &waker),
        Outcome::Ready,
        "it is forgotten"
    );
}

#[test]
fn a_park_that_outlives_its_scope_moves_to_the_parent() {
    let mut tree = Tree::new(0);
    let outer = open_below_root(&mut tree, false);
    let inner = open(&mut tree, outer, false);
    tree.park(inner, waiting());
    tree.close(inner);
    assert!(effects(&mut tree).is_empty());
    assert_eq!(cancel(&mut tree, outer, cause()).len(), 1);
}

#[test]
fn a_node_that_leaves_a_cancelled_scope_is_as_its_new_parent() {
    let mut tree = Tree::new(0);
    let cancelled = open_below_root(&mut tree, false);
    let moving = open(&mut tree, cancelled, false);
    let below = open(&mut tree, moving, false);
    let own = open(&mut tree, moving, false);
    cancel(&mut tree, own, cause());
    cancel(&mut tree, cancelled, Cancelled::deadline());
    move_to_root(&mut tree, moving);
    assert!(!tree.is_cancelled(moving) && !tree.is_cancelled(below));
    assert!(tree.is_cancelled(own), "its own cancel is for ever");
    tree.move_under(cancelled, moving);
    tree.move_under(moving, cancelled);
    assert!(!tree.is_cancelled(moving), "no node lies below itself");
    assert!(effects(&mut tree).is_empty());
}

#[test]
fn a_closed_scope_stays_until_its_orphans_have_ended() {
    let mut tree = Tree::new(0);
    let outer = open_below_root(&mut tree, false);
    let inner = open(&mut tree, outer, false);
    let account = tree.orphan_started(inner);
    tree.close(inner);
    assert_eq!(tree.node_count(), 3);
    assert!(!is_done(&mut tree, outer));
    tree.orphan_ended(account);
    assert!(
        matches!(effects(&mut tree)[..], [Effect::End(_)]),
        "the outer scope's end is woken"
    );
    assert!(is_done(&mut tree, outer));
    assert_eq!(tree.node_count(), 2);
}

#[test]
fn a_closed_scope_that_waits_for_its_orphans_is_moved_nowhere() {
    let mut tree = Tree::new(0);
    let outer = open_below_root(&mut tree, false);
    let inner = open(&mut tree, outer, false);
    let elsewhere = open_below_root(&mut tree, false);
    let account = tree.orphan_started(inner);
    tree.close(inner);
    tree.move_under(inner, elsewhere);
    assert!(is_done(&mut tree, elsewhere));
    assert!(!is_done(&mut tree, outer));
    tree.orphan_ended(account);
    assert!(is_done(&mut tree, outer));
    assert_eq!(tree.node_count(), 3);
}

#[test]
fn a_dropped_scope_hands_its_orphans_outward() {
    let mut tree = Tree::new(0);
    let outer = open_below_root(&mut tree, false);
    let middle = open(&mut tree, outer, false);
    let inner = open(&mut tree, middle, false);
    let account = tree.orphan_started(inner);
    tree.close(inner);
    tree.close(middle);
    assert!(!is_done(&mut tree, outer));
    tree.orphan_ended(account);
    assert!(matches!(effects(&mut tree)[..], [Effect::End(_)]));
    assert_eq!(tree.node_count(), 2);
}

#[test]
fn a_hundred_thousand_deep_is_cancelled_without_recursion() {
    let mut tree = Tree::new(0);
    let outermost = open_below_root(&mut tree, false);
    let mut node = outermost;
    for _ in 0..100_000 {
        node = open(&mut tree, node, false);
    }
    tree.park(node, waiting());
    assert_eq!(cancel(&mut tree, outermost, cause()).len(), 1);
    assert!(tree.is_cancelled(node));
}

/// What is further out and has grace left is hidden there: whoever asks again sees the same.
#[test]
fn an_abort_behind_a_grace_shield_has_the_cause_that_is_seen_there() {
    let mut tree = Tree::new(0);
    let root = tree.root();
    let outer = open(&mut tree, root, false);
    let inner = open(&mut tree, outer, false);
    let graced = tree.open(inner, Kind::Scope, Shield::Grace);
    let below = open(&mut tree, graced, false);
    let (behind, before) = (tree.park(below, waiting()), tree.park(inner, waiting()));
    tree.cancel(outer, Cancelled::deadline(), Some(Instant::NEVER));
    assert_eq!(tree.aborted(before), Some(Cancelled::deadline()));
    assert_eq!(tree.aborted(behind), None);
    tree.cancel(inner, cause(), None);
    assert_eq!(tree.aborted(behind), Some(cause()));
    assert_eq!(tree.cause(below), cause());
}

#[test]
fn a_grace_shield_holds_until_the_grace_is_over() {
    let mut tree = Tree::new(0);
    let outer = open_below_root(&mut tree, false);
    let plain = open(&mut tree, outer, false);
    let graced = tree.open(outer, Kind::Scope, Shield::Grace);
    let full = open(&mut tree, graced, true);
    for node in [plain, graced, full] {
        tree.park(node, waiting());
    }
    tree.cancel(outer, cause(), Some(Instant::NEVER));
    assert_eq!(effects(&mut tree).len(), 1);
    assert!(tree.is_cancelled(plain) && !tree.is_cancelled(graced));
    assert_eq!(tree.source(graced), None);
    tree.end_grace(outer);
    assert_eq!(effects(&mut tree).len(), 1);
    assert!(tree.is_cancelled(graced) && !tree.is_cancelled(full));
    assert_eq!(tree.source(graced), Some(outer));
    assert!(!tree.absorbs(graced) && tree.absorbs(outer));
}

#[test]
fn a_shield_that_is_cleared_lets_the_cancel_in_once() {
    let mut tree = Tree::new(0);
    let outer = open_below_root(&mut tree, false);
    let inner = open(&mut tree, outer, true);
    let park = tree.park(inner, waiting());
    assert!(cancel(&mut tree, outer, cause()).is_empty());
    tree.set_shield(inner, Shield::None);
    assert_eq!(effects(&mut tree).len(), 1);
    tree.set_shield(inner, Shield::Full);
    tree.set_shield(inner, Shield::None);
    assert!(effects(&mut tree).is_empty());
    assert_eq!(tree.aborted(park), Some(cause()));
}

struct Nobody;

impl Relay for Nobody {
    fn relay(&self, _: Cancelled, _: Option<Instant>) {}
}

fn relayed(tree: &mut Tree) -> Wait {
    Wait::Relayed {
        waker: Waker::noop().clone(),
        purpose: Purpose::Remote,
        relay: tree.keep_relay(Rc::new(Nobody)),
    }
}

fn park_relayed(tree: &mut Tree, node: NodeId) -> ParkId {
    let wait = relayed(tree);
    tree.park(node, wait)
}

#[test]
fn a_wait_that_refuses_is_told_nothing_and_a_relayed_one_once() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    let waker = Waker::noop().clone();
    let purpose = Purpose::Remote;
    let deaf = tree.park(scope, Wait::Deaf { waker, purpose });
    let relayed = park_relayed(&mut tree, scope);
    let told = cancel(&mut tree, scope, cause());
    assert!(matches!(told[..], [Effect::Relay(..)]), "{told:?}");
    assert!(cancel_root(&mut tree).is_empty());
    for park in [deaf, relayed] {
        assert_eq!(look(&mut tree, park, scope), Parked::Waiting);
        assert!(tree.complete(park).is_some());
        assert!(tree.is_ready(park));
        tree.unpark(park);
    }
    assert_eq!(tree.park_count(), 0);
}

/// It may be told late, when what has the grace has gone.
#[test]
fn the_other_side_of_a_wait_is_told_of_the_grace_that_is_left() {
    let end = Instant::from_nanos(7);
    for is_over in [false, true] {
        let mut tree = Tree::new(0);
        let outer = open_below_root(&mut tree, false);
        let scope = open(&mut tree, outer, false);
        park_relayed(&mut tree, scope);
        assert!(tree.cancel(outer, cause(), Some(end)));
        let told = effects(&mut tree);
        let [Effect::Relay(_, _, under, grace_end)] = told[..] else {
            panic!("{told:?}");
        };
        assert_eq!((under, grace_end), (scope, Some(end)));
        assert_eq!(tree.grace_left(under, grace_end), Some(end));
        if is_over {
            tree.end_grace(outer);
            assert_eq!(tree.grace_left(under, grace_end), None);
        }
        tree.close(scope);
        assert_eq!(tree.grace_left(under, grace_end), Some(end), "nobody knows");
    }
}

/// What the other side holds may be anybody's, whose destructor looks at the tree.
#[test]
fn the_other_side_of_a_forgotten_wait_is_dropped_by_who_forgets_it() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    let relay = Rc::new(Nobody);
    let kept = tree.keep_relay(Rc::clone(&relay) as Rc<dyn Relay>);
    let park = tree.park(
        scope,
        Wait::Relayed {
            waker: Waker::noop().clone(),
            purpose: Purpose::Remote,
            relay: kept,
        },
    );
    let remains = tree.unpark(park);
    assert_eq!((tree.park_count(), Rc::strong_count(&relay)), (0, 2));
    drop(remains);
    assert_eq!(Rc::strong_count(&relay), 1);
}

#[test]
fn a_body_whose_wait_was_relayed_waits_in_nothing_foreign() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    let [first, second, third] = [(); 3].map(|()| park_relayed(&mut tree, scope));
    assert_eq!(cancel(&mut tree, scope, cause()).len(), 3);
    assert!(!tree.waits_in_foreign(scope));
    tree.unpark(first);
    assert!(tree.complete(second).is_some());
    assert!(!tree.waits_in_foreign(scope), "one has not ended");
    tree.unpark(second);
    tree.close(scope);
    // Its future lives outside the scope.
    assert!(tree.complete(third).is_some());
    tree.unpark(third);
    assert_eq!((tree.park_count(), tree.node_count()), (0, 1));
    let scope = open_below_root(&mut tree, false);
    let wait = park_relayed(&mut tree, scope);
    cancel_root(&mut tree);
    tree.unpark(wait);
    assert!(tree.waits_in_foreign(scope));
}

#[test]
fn what_parks_where_all_is_cancelled_is_told_at_once() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    let inner = open(&mut tree, scope, false);
    cancel(&mut tree, scope, cause());
    let deaf = Wait::Deaf {
        waker: Waker::noop().clone(),
        purpose: Purpose::Join,
    };
    let relayed = relayed(&mut tree);
    let parks = [waiting(), Wait::Kernel(7), relayed, deaf].map(|wait| tree.park(inner, wait));
    let told = effects(&mut tree);
    assert!(
        matches!(
            told[..],
            [Effect::Kernel(7), Effect::Relay(..), Effect::Wake(_)]
        ),
        "{told:?}"
    );
    let aborted = parks.map(|park| tree.aborted(park));
    assert_eq!(aborted, [Some(cause()), Some(cause()), None, None]);
    for park in parks {
        tree.unpark(park);
    }
    assert!(tree.waits_in_foreign(inner) && tree.park_count() == 0);
}

#[test]
fn a_body_that_waits_in_nothing_known_is_woken_by_its_cancel() {
    let mut tree = Tree::new(0);
    let alone = open_below_root(&mut tree, false);
    tree.set_foreign(alone, Some(Waker::noop().clone()));
    let busy = open_below_root(&mut tree, false);
    let root = tree.root();
    let child = task(&mut tree, root);
    let woken = cancel_root(&mut tree);
    assert!(
        matches!(woken[..], [Effect::ForeignTask(node, 7), Effect::Foreign(other)]
            if node == child && other == alone),
        "{woken:?}; {busy:?} is being polled"
    );
}

#[test]
fn a_group_ends_after_its_last_task() {
    let mut tree = Tree::new(0);
    let group = tree.open(tree.root(), Kind::Group, Shield::None);
    let (first, second) = (task(&mut tree, group), task(&mut tree, group));
    tree.promise(group);
    assert!(!is_done(&mut tree, group));
    tree.close(first);
    tree.unpromise(group);
    tree.unpromise(group);
    assert!(effects(&mut tree).is_empty());
    let account = tree.orphan_started(second);
    tree.close(second);
    assert!(effects(&mut tree).is_empty(), "the kernel is not done");
    tree.orphan_ended(account);
    assert!(matches!(effects(&mut tree)[..], [Effect::End(_)]));
    assert!(tree.has_ended_below(group));
}

#[test]
fn tasks_of_a_dropped_group_are_waited_for_further_out() {
    let mut tree = Tree::new(0);
    let outer = open_below_root(&mut tree, false);
    let group = tree.open(outer, Kind::Group, Shield::None);
    let child = task(&mut tree, group);
    tree.cancel(group, Cancelled::new(Reason::Dropped), None);
    tree.close(group);
    assert!(tree.is_cancelled(child), "it stays so");
    assert!(!tree.is_cancelled(outer));
    effects(&mut tree);
    assert!(!is_done(&mut tree, outer));
    tree.close(child);
    assert!(matches!(effects(&mut tree)[..], [Effect::End(_)]));
    assert_eq!(tree.node_count(), 2);
}

#[test]
fn a_leaked_group_is_cancelled_when_its_task_ends() {
    let mut tree = Tree::new(0);
    let root = tree.root();
    let host = task(&mut tree, root);
    let scope = open(&mut tree, host, false);
    let group = tree.open(scope, Kind::Group, Shield::None);
    let child = task(&mut tree, group);
    tree.close(scope);
    assert!(tree.has_group_below(host));
    tree.close(host);
    assert!(tree.is_cancelled(child));
    assert_eq!(
        tree.own_cause(child),
        Some(Cancelled::new(Reason::Abandoned))
    );
    assert_eq!(tree.node_count(), 2);
    tree.close(group);
    tree.close(child);
    assert_eq!(tree.node_count(), 1);
}

/// Whoever has its body may poll that.
#[test]
fn a_leaked_group_refuses_ops_though_nothing_else_is_cancelled() {
    let mut tree = Tree::new(0);
    let root = tree.root();
    let task = tree.open(root, Kind::Task(1), Shield::None);
    let group = tree.open(task, Kind::Group, Shield::None);
    assert!(!tree.refuses_any());
    tree.close(task);
    assert_eq!(tree.node_count(), 1);
    assert!(tree.refuses_any() && tree.is_cancelled(group));
    assert!(!tree.is_cancelled(root));
}

/// The kernel keeps its node.
#[test]
fn a_cancelled_scope_that_is_gone_with_an_orphan_is_counted_until_that_ends() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    tree.cancel(scope, cause(), None);
    assert_eq!(tree.refusing, 1);
    let account = tree.orphan_started(scope);
    tree.close(scope);
    assert_eq!(tree.refusing, 1);
    tree.orphan_ended(account);
    assert_eq!((tree.refusing, tree.node_count()), (0, 1));
}

/// A tree by its definition.
#[derive(Default)]
struct Model {
    nodes: Vec<ModelNode>,
}

struct ModelNode {
    id: NodeId,
    parent: usize,
    shield: Shield,
    cancelled: bool,
    grace: bool,
    open: bool,
    /// Its parks, and whether they have been told.
    parks: Vec<ParkId>,
}

impl Model {
    /// What a node sees: whether it is cancelled, and whether without grace.
    fn sees(&self, at: usize) -> (bool, bool) {
        let node = &self.nodes[at];
        let outside = match (at, node.shield) {
            (0, _) | (_, Shield::Full) => (false, false),
            (_, Shield::None) => self.sees(node.parent),
            (_, Shield::Grace) => {
                let hard = self.sees(node.parent).1;
                (hard, hard)
            }
        };
        (
            outside.0 || node.cancelled,
            outside.1 || (node.cancelled && !node.grace),
        )
    }

    /// The outermost that is cancelled of those that a node sees, itself among them.
    fn source(&self, mut at: usize) -> usize {
        let (mut source, mut hard_only) = (None, false);
        loop {
            let node = &self.nodes[at];
            if node.cancelled && !(hard_only && node.grace) {
                source = Some(at);
            }
            match node.shield {
                Shield::None => {}
                Shield::Grace => hard_only = true,
                Shield::Full => break,
            }
            if at == 0 {
                break;
            }
            at = node.parent;
        }
        source.expect("it sees a cancel")
    }

    fn is_within(&self, mut at: usize, top: usize) -> bool {
        while at != top && at != 0 {
            at = self.nodes[at].parent;
        }
        at == top
    }
}

/// The bits and the parks against their definition, in random trees that change in every way.
#[test]
fn the_bits_say_what_the_definition_says() {
    for seed in 0..400_u64 {
        let mut random = seed;
        let mut draw = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        const SHIELDS: [Shield; 4] = [Shield::None, Shield::None, Shield::Grace, Shield::Full];
        let mut tree = Tree::new(seed as u32);
        let mut model = Model::default();
        model.nodes.push(ModelNode {
            id: tree.root(),
            parent: 0,
            shield: Shield::None,
            cancelled: false,
            grace: false,
            open: true,
            parks: Vec::new(),
        });
        for _ in 0..80 {
            let pick = loop {
                let pick = draw(model.nodes.len());
                if model.nodes[pick].open {
                    break pick;
                }
            };
            let other = draw(model.nodes.len());
            let id = model.nodes[pick].id;
            match draw(9) {
                0..=2 => {
                    let shield = SHIELDS[draw(4)];
                    model.nodes.push(ModelNode {
                        id: tree.open(id, Kind::Scope, shield),
                        parent: pick,
                        shield,
                        cancelled: false,
                        grace: false,
                        open: true,
                        parks: Vec::new(),
                    });
                }
                3 | 4 if !model.sees(pick).0 => {
                    let park = tree.park(id, waiting());
                    model.nodes[pick].parks.push(park);
                }
                5 => {
                    let grace = draw(2) == 0;
                    let why = Cancelled::new(Reason::User(pick as u32));
                    let first = tree.cancel(id, why, grace.then_some(Instant::NEVER));
                    assert_eq!(first, !model.nodes[pick].cancelled);
                    if first {
                        model.nodes[pick].cancelled = true;
                        model.nodes[pick].grace = grace;
                    }
                }
                6 => {
                    tree.end_grace(id);
                    model.nodes[pick].grace = false;
                }
                7 if pick != 0 => {
                    let shield = SHIELDS[draw(4)];
                    tree.set_shield(id, shield);
                    model.nodes[pick].shield = shield;
                }
                8 if pick != 0 && draw(2) == 0 => {
                    tree.close(id);
                    let parent = model.nodes[pick].parent;
                    model.nodes[pick].open = false;
                    let parks = std::mem::take(&mut model.nodes[pick].parks);
                    model.nodes[parent].parks.extend(parks);
                    for node in &mut model.nodes {
                        if node.parent == pick {
                            node.parent = parent;
                        }
                    }
                }
                8 if pick != 0 && model.nodes[other].open && !model.is_within(other, pick) => {
                    tree.move_under(id, model.nodes[other].id);
                    model.nodes[pick].parent = other;
                }
                _ => {}
            }
            // Each park is told once, as soon as its node sees a cancel, and why: for the outermost that it sees.
            let mut expected = 0;
            for at in 0..model.nodes.len() {
                if model.nodes[at].open && model.sees(at).0 {
                    let why = Cancelled::new(Reason::User(model.source(at) as u32));
                    let parks = std::mem::take(&mut model.nodes[at].parks);
                    expected += parks.len();
                    for park in parks {
                        assert_eq!(tree.aborted(park), Some(why), "seed {seed}");
                    }
                }
            }
            let told = effects(&mut tree)
                .iter()
                .filter(|effect| matches!(effect, Effect::Wake(_)))
                .count();
            assert_eq!(told, expected, "seed {seed}");
            for (at, node) in model.nodes.iter().enumerate().filter(|(_, node)| node.open) {
                let (refused, hard) = model.sees(at);
                assert_eq!(
                    tree.node(node.id.0.link()).bits(),
                    (refused, hard),
                    "seed {seed}"
                );
                assert_eq!(tree.source(node.id).is_some(), refused, "seed {seed}");
            }
            let open = model.nodes.iter().enumerate();
            let refused = open.filter(|(at, node)| node.open && model.sees(*at).0);
            assert_eq!(tree.refusing, refused.count() as u64, "seed {seed}");
        }
    }
}

#[test]
fn who_waits_on_after_being_told_waits_in_nothing_foreign() {
    let mut tree = Tree::new(0);
    let scope = open_below_root(&mut tree, false);
    let (one, other) = (
        tree.park(scope, Wait::Kernel(1)),
        tree.park(scope, waiting()),
    );
    tree.cancel(scope, cause(), None);
    assert_eq!(effects(&mut tree).len(), 2);
    tree.unpark(other);
    assert!(
        !tree.waits_in_foreign(scope),
        "the kernel has yet to end it"
    );
    tree.unpark(one);
    assert!(tree.waits_in_foreign(scope));
}

/// No cancel ends it: it goes outward with what the task leaves.
#[test]
fn a_deaf_wait_of_a_leaked_group_outlives_its_task() {
    let mut tree = Tree::new(0);
    let root = tree.root();
    let task = tree.open(root, Kind::Task(1), Shield::None);
    let group = tree.open(task, Kind::Group, Shield::None);
    let deaf = Wait::Deaf {
        waker: Waker::noop().clone(),
        purpose: Purpose::Turn,
    };
    let park = tree.park(group, deaf);
    tree.close(task);
    assert_eq!(tree.node_of(park), Some(root));
    assert!(tree.complete(park).is_some());
    assert_eq!((tree.node_count(), tree.park_count()), (1, 0));
}

/// Counts the wakes of each of its wakers.
#[derive(Debug)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn who_has_looked_or_gone_is_not_woken_for_a_cancel() {
    // Each of three stands first, in the middle and last, and leaves the line in three ways.
    for place in 0..3 {
        for way in 0..3 {
            let mut tree = Tree::new(0);
            let scope = open_below_root(&mut tree, false);
            // Tasks, since a waker of another kind need not know its like again.
            let parks = [0, 1, 2].map(|slot| {
                let waker = task_waker(slot);
                let purpose = Purpose::Time;
                tree.park(scope, Wait::Memory { waker, purpose })
            });
            assert!(tree.cancel(scope, cause(), None));
            let looks = task_waker(place);
            let park = parks[place as usize];
            match way {
                0 => drop(tree.unpark(park)),
                1 => assert_eq!(tree.outcome(park, None, &looks), aborted_in(scope)),
                _ => {
                    let polled = poll(&mut tree, park, scope, &looks);
                    assert_eq!(polled, Parked::Aborted(cause()));
                    drop(tree.unpark(park));
                }
            }
            let mut woken: Vec<_> = effects(&mut tree)
                .iter()
                .filter_map(|effect| match effect {
                    Effect::Wake(waker) => task_of(waker, 0),
                    _ => None,
                })
                .map(|task| task.slot())
                .collect();
            woken.sort_unstable();
            let others: Vec<_> = (0..3).filter(|&slot| slot != place).collect();
            assert_eq!(woken, others, "{place} {way}");
            assert!(!tree.has_effects());
            assert_eq!(tree.park_count(), 2);
        }
    }
}

#[test]
fn who_waits_is_woken_for_a_cancel_though_another_has_looked_or_dropped_the_wait() {
    for way in 0..3 {
        let mut tree = Tree::new(0);
        let scope = open_below_root(&mut tree, false);
        let woken = Arc::new(Woken(0.into()));
        let waker = Waker::from(Arc::clone(&woken));
        let purpose = Purpose::Time;
        let park = tree.park(scope, Wait::Memory { waker, purpose });
        assert!(tree.cancel(scope, cause(), None));
        let another = Waker::noop();
        match way {
            0 => {
                let remains = tree.unpark(park).expect("it stood in line");
                remains.due().expect("it was to be woken").wake();
            }
            1 => assert_eq!(tree.outcome(park, None, another), aborted_in(scope)),
            _ => {
                let polled = poll(&mut tree, park, scope, another);
                assert_eq!(polled, Parked::Aborted(cause()));
            }
        }
        for effect in effects(&mut tree) {
            if let Effect::Wake(waker) = effect {
                waker.wake();
            }
        }
        assert_eq!(woken.0.load(Relaxed), 1, "{way}");
    }
}

/// A scope with a deadline, and which that is.
fn open_until(tree: &mut Tree, timers: &mut TimerStore<()>, at: Instant) -> (NodeId, Order) {
    let scope = open_below_root(tree, false);
    let order = timers.arm(at, Of::Scope, scope.key());
    tree.set_deadline(scope, Some((at, order)));
    (scope, order)
}

/// Takes the deadlines that were let go of.
fn idle(tree: &mut Tree) -> Vec<Order> {
    let next = || match tree.next_idle_timer()? {
        IdleTimer::OfDeadline(order) => Some(order),
        IdleTimer::OfGrace(_) => unreachable!("nothing has grace"),
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn a_deadline_stays_when_its_scope_gets_more_than_that() {
    let (mut tree, mut timers) = (Tree::new(0), TimerStore::default());
    let [soon, late] = [5, 10].map(Instant::from_nanos);
    let (scope, first) = open_until(&mut tree, &mut timers, soon);
    assert_eq!(
        (tree.deadlines.len(), tree.deadline(scope)),
        (1, Some(soon))
    );
    let second = timers.arm(late, Of::Scope, scope.key());
    tree.set_deadline(scope, Some((late, second)));
    assert_eq!(
        (tree.deadlines.len(), tree.deadline(scope)),
        (1, Some(late))
    );
    assert_eq!(idle(&mut tree), [first]);
    let armed = |tree: &Tree, order| tree.is_armed(Of::Scope, scope.key(), order);
    assert!(!armed(&tree, first) && armed(&tree, second));

    tree.set_grace_period(scope, Duration::from_nanos(3));
    assert_eq!(
        (tree.deadlines.len(), tree.deadline(scope)),
        (0, Some(late))
    );
    let graced = Instant::from_nanos(13);
    assert_eq!(tree.deadlines(scope), [late, graced]);
    assert!(armed(&tree, second));
    tree.set_deadline(scope, Some((soon, first)));
    assert!(armed(&tree, first) && !armed(&tree, second));
    assert_eq!((tree.deadlines.len(), idle(&mut tree)), (0, vec![second]));
    tree.set_deadline(scope, None);
    assert_eq!((tree.deadline(scope), idle(&mut tree)), (None, vec![first]));
}

#[test]
fn a_deadline_is_let_go_of_once_however_its_scope_ends() {
    let (mut tree, mut timers) = (Tree::new(0), TimerStore::default());
    let at = Instant::from_nanos(5);
    let (scope, order) = open_until(&mut tree, &mut timers, at);
    assert_eq!(tree.close_if_unnoticed(scope), (true, Some(order)));
    assert_eq!(idle(&mut tree), []);

    let (scope, order) = open_until(&mut tree, &mut timers, at);
    tree.set_grace_period(scope, Duration::from_nanos(3));
    assert_eq!(tree.close_if_unnoticed(scope), (true, Some(order)));
    assert_eq!(idle(&mut tree), []);

    let (scope, order) = open_until(&mut tree, &mut timers, at);
    tree.close(scope);
    assert_eq!(idle(&mut tree), [order]);

    let (scope, order) = open_until(&mut tree, &mut timers, at);
    cancel(&mut tree, scope, cause());
    assert_eq!((tree.deadline(scope), idle(&mut tree)), (None, vec![order]));
    assert!(tree.own_cause(scope).is_some());
    tree.close(scope);
    assert_eq!(idle(&mut tree), []);

    let (scope, _) = open_until(&mut tree, &mut timers, at);
    tree.deadline_fired(scope);
    assert_eq!((tree.deadline(scope), idle(&mut tree)), (None, vec![]));
    tree.close(scope);

    assert_eq!((tree.deadlines.len(), tree.extras.len()), (0, 0));
}

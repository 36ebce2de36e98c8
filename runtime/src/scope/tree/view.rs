//! The tree as it is told to people.

use super::{Cancelled, Kind, NodeId, ParkState, Purpose, Shield, Tree, Wait};
use crate::time::Instant;

/// A node.
#[derive(Debug)]
#[expect(dead_code, reason = "the report of a simulation tells a part of it")]
pub(crate) struct View {
    pub(crate) depth: usize,
    pub(crate) node: NodeId,
    pub(crate) kind: Kind,
    pub(crate) cause: Option<Cancelled>,
    pub(crate) cancelled_at: Instant,
    pub(crate) refused: bool,
    pub(crate) shield: Shield,
    pub(crate) ghost: bool,
    pub(crate) orphans: u32,
    pub(crate) tasks: u32,
    pub(crate) deadline: Option<Instant>,
    pub(crate) ending: bool,
    /// Waits in nothing the runtime knows, or is being polled.
    pub(crate) bare: bool,
    pub(crate) waits: Vec<(Waits, Instant)>,
}

/// What a park waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Memory(Purpose),
    Kernel(u64),
    /// Whatever happens to its scope.
    Deaf(Purpose),
}

impl Tree {
    /// Returns a node and those below it, each before its children; of `inside_task` those that
    /// belong to the same task alone.
    pub(crate) fn views(&self, top: NodeId, inside_task: bool) -> Vec<View> {
        let mut views = Vec::new();
        let mut left = vec![(0, top.0)];
        while let Some((depth, key)) = left.pop() {
            let Some(node) = self.nodes.get(key) else {
                continue;
            };
            if inside_task && depth > 0 && matches!(node.kind, Kind::Task(_)) {
                continue;
            }
            let mut waits = Vec::new();
            let mut next = node.first_park;
            while let Some(park) = next.and_then(|key| self.parks.get(key)) {
                if let ParkState::Waiting(wait) = &park.state {
                    let wait = match wait {
                        Wait::Memory { purpose, .. } | Wait::Relayed { purpose, .. } => {
                            Waits::Memory(*purpose)
                        }
                        Wait::Deaf { purpose, .. } => Waits::Deaf(*purpose),
                        Wait::Kernel(op) => Waits::Kernel(*op),
                    };
                    waits.push((wait, park.since));
                }
                next = park.next;
            }
            views.push(View {
                depth,
                node: NodeId(key),
                kind: node.kind,
                cause: node.cause,
                cancelled_at: node.cancelled_at,
                refused: node.refused,
                shield: node.shield,
                ghost: node.ghost,
                orphans: node.orphans,
                tasks: node.tasks,
                deadline: node.deadline.map(|(at, _)| at),
                ending: node.end_waiter.is_some(),
                bare: node.is_bare(),
                waits,
            });
            let mut child = node.first_child;
            while let Some(key) = child {
                left.push((depth + 1, key));
                child = self.nodes.get(key).and_then(|node| node.next);
            }
        }
        views
    }
}

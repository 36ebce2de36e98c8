//! The tree as it is told to people.

use std::collections::BTreeMap;

use super::{Cancelled, Extra, Kind, NodeId, Park, Purpose, Shield, Tree, Wait};
use crate::time::Instant;

/// A node.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) depth: usize,
    pub(crate) node: NodeId,
    pub(crate) kind: Kind,
    /// Its own cancel, and since when.
    pub(crate) cause: Option<(Cancelled, Instant)>,
    pub(crate) refused: bool,
    pub(crate) shield: Shield,
    /// When the grace of its cancel ends.
    pub(crate) grace: Option<Instant>,
    pub(crate) ghost: bool,
    /// Tasks directly below, and of these such as are promised only.
    pub(crate) tasks: u32,
    pub(crate) promises: u32,
    pub(crate) deadline: Option<Instant>,
    pub(crate) ending: bool,
    /// Waits in nothing the runtime knows, or is being polled.
    pub(crate) bare: bool,
    pub(crate) waits: Vec<Waiting>,
}

/// A park.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) waits: Waits,
    pub(crate) since: Instant,
    /// It was told of a cancel, and waits for the other side all the same.
    pub(crate) told: bool,
}

/// What a park waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Memory(Purpose),
    Kernel(u64),
    /// Whatever happens to its scope.
    Deaf(Purpose),
}

impl Waits {
    pub(super) fn of(wait: &Wait) -> Self {
        match wait {
            Wait::Memory { purpose, .. }
            | Wait::Relayed { purpose, .. }
            | Wait::Asked { purpose, .. } => Self::Memory(*purpose),
            Wait::Deaf { purpose, .. } => Self::Deaf(*purpose),
            Wait::Kernel(op) => Self::Kernel(*op),
        }
    }
}

impl Tree {
    /// Returns all nodes, each before its children and these in the order in which they came.
    pub(crate) fn views(&self) -> Vec<View> {
        let mut told = self.told_parks();
        let mut views = Vec::with_capacity(self.nodes.len());
        let mut left = vec![(0, self.root)];
        while let Some((depth, link)) = left.pop() {
            let node = self.node(link);
            let extra = self.extra(node);
            let id = NodeId(self.nodes.key(link));
            let mut waits = told.remove(&id).unwrap_or_default();
            let mut next = node.first_park;
            while let Some(park) = next.map(|link| self.parks.linked(link)) {
                waits.extend(park.view());
                next = park.next;
            }
            // The newest is the first in its list.
            waits.reverse();
            views.push(View {
                depth,
                node: id,
                kind: node.kind(),
                cause: extra.and_then(|extra| extra.cause),
                refused: node.refused,
                shield: node.shield,
                grace: extra.and_then(Extra::grace_end),
                ghost: node.ghost,
                tasks: node.tasks,
                promises: extra.map_or(0, |extra| extra.promises),
                deadline: self.deadline(id),
                ending: extra.is_some_and(|extra| extra.end_waiter.is_some()),
                bare: node.is_bare(),
                waits,
            });
            let mut child = node.first_child;
            while let Some(link) = child {
                left.push((depth + 1, link));
                child = self.node(link).next;
            }
        }
        views
    }

    /// Returns the parks that no list has any more, by the node they were under; at the root where
    /// that has gone.
    fn told_parks(&self) -> BTreeMap<NodeId, Vec<Waiting>> {
        let mut told = BTreeMap::<_, Vec<_>>::new();
        for park in self.parks.values().filter(|park| park.is_told()) {
            let known = self.nodes.get(park.node).map(|_| NodeId(park.node));
            let node = known.unwrap_or_else(|| self.root());
            told.entry(node).or_default().extend(park.view());
        }
        told
    }
}

impl Park {
    fn view(&self) -> Option<Waiting> {
        Some(Waiting {
            waits: self.waits()?,
            since: self.since(),
            told: self.is_told(),
        })
    }
}

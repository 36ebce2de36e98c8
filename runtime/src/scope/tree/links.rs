//! The links between nodes, and between a node and its parks.

use super::node::{Deadline, More};
use super::{Extra, Node, Tree};
use crate::slab::Link;

impl Tree {
    pub(super) fn link(&mut self, node: Link, parent: Link) {
        let first = self.node_mut(parent).first_child.replace(node);
        self.node_mut(node).next = first;
        if let Some(first) = first {
            self.node_mut(first).previous = Some(node);
        }
    }

    #[inline]
    pub(super) fn unlink(&mut self, node: Link) {
        let (parent, previous, next) = {
            let node = self.node_mut(node);
            (node.parent, node.previous.take(), node.next.take())
        };
        if let (None, Some(parent)) = (previous, parent) {
            self.node_mut(parent).first_child = next;
        }
        self.join_siblings(previous, next);
    }

    /// Makes two siblings neighbours, between whom another was.
    #[inline]
    pub(super) fn join_siblings(&mut self, previous: Option<Link>, next: Option<Link>) {
        if let Some(previous) = previous {
            self.node_mut(previous).next = next;
        }
        if let Some(next) = next {
            self.node_mut(next).previous = previous;
        }
    }

    pub(super) fn link_park(&mut self, park: Link, node: Link) {
        let first = self.node_mut(node).first_park.replace(park);
        self.parks.linked_mut(park).next = first;
        if let Some(first) = first {
            self.parks.linked_mut(first).previous = Some(park);
        }
    }

    /// Takes a park off the list of its node, which is there as long as the park is on it.
    #[inline(always)]
    pub(super) fn unlink_park(&mut self, park: Link) {
        let found = self.parks.linked_mut(park);
        let (node, previous, next) = (found.node.link(), found.previous.take(), found.next.take());
        match previous {
            Some(previous) => self.parks.linked_mut(previous).next = next,
            None => {
                let node = self.node_mut(node);
                if node.first_park == Some(park) {
                    node.first_park = next;
                }
            }
        }
        if let Some(next) = next {
            self.parks.linked_mut(next).previous = previous;
        }
    }

    #[inline]
    pub(super) fn node(&self, link: Link) -> &Node {
        self.nodes.linked(link)
    }

    #[inline]
    pub(super) fn node_mut(&mut self, link: Link) -> &mut Node {
        self.nodes.linked_mut(link)
    }

    /// Returns what few nodes have, if this one does, and more of it than a deadline.
    #[inline]
    pub(super) fn extra(&self, node: &Node) -> Option<&Extra> {
        match node.more() {
            More::Extra(link) => Some(self.extras.linked(link)),
            More::Nothing | More::Deadline(_) => None,
        }
    }

    /// As [`Tree::extra`], to be changed.
    #[inline]
    pub(super) fn extra_mut(&mut self, node: Link) -> Option<&mut Extra> {
        match self.nodes.linked(node).more() {
            More::Extra(link) => Some(self.extras.linked_mut(link)),
            More::Nothing | More::Deadline(_) => None,
        }
    }

    /// Returns what few nodes have; from now on, this one does.
    pub(super) fn ensure_extra(&mut self, node: Link) -> &mut Extra {
        let link = match self.nodes.linked(node).more() {
            More::Extra(link) => link,
            More::Nothing | More::Deadline(_) => {
                let deadline = self.take_deadline(node);
                let link = self.extras.insert(Extra::BLANK).link();
                self.extras.linked_mut(link).deadline = deadline;
                self.node_mut(node).more = Some(link);
                link
            }
        };
        self.extras.linked_mut(link)
    }

    /// Returns the deadline of a node, if it has one.
    #[inline]
    pub(super) fn deadline_of(&self, node: &Node) -> Option<Deadline> {
        match node.more() {
            More::Nothing => None,
            More::Deadline(link) => Some(*self.deadlines.linked(link)),
            More::Extra(link) => self.extras.linked(link).deadline,
        }
    }

    /// Lets a node have a deadline; the one before comes back.
    pub(super) fn put_deadline(&mut self, node: Link, deadline: Deadline) -> Option<Deadline> {
        match self.nodes.linked(node).more() {
            More::Nothing => {
                let link = self.deadlines.insert(deadline).link();
                let node = self.node_mut(node);
                node.more = Some(link);
                node.has_deadline_alone = true;
                None
            }
            More::Deadline(link) => {
                let known = self.deadlines.linked_mut(link);
                Some(std::mem::replace(known, deadline))
            }
            More::Extra(link) => self.extras.linked_mut(link).deadline.replace(deadline),
        }
    }

    /// Takes the deadline of a node away.
    #[inline]
    pub(super) fn take_deadline(&mut self, node: Link) -> Option<Deadline> {
        match self.nodes.linked(node).more() {
            More::Nothing => None,
            More::Deadline(link) => {
                let node = self.node_mut(node);
                node.more = None;
                node.has_deadline_alone = false;
                Some(self.free_deadline(link))
            }
            More::Extra(link) => self.extras.linked_mut(link).deadline.take(),
        }
    }

    /// Frees the place of a deadline that no node leads to any more, or whose node goes as well.
    #[inline]
    pub(super) fn free_deadline(&mut self, link: Link) -> Deadline {
        let deadline = *self.deadlines.linked(link);
        self.deadlines.clear_plain(link);
        deadline
    }
}

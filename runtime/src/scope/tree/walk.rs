//! The walk that pushes the two bits down.

use super::{Cancelled, Shield, Tree};
use crate::slab::Link;

impl Tree {
    /// What the two bits of a node have to be.
    pub(super) fn wanted(&self, link: Link) -> (bool, bool) {
        let node = self.node(link);
        let outside = |parent| self.node(parent).bits();
        node.wanted(node.parent.map_or((false, false), outside))
    }

    /// Makes the bits of `top` and of all below say what they must, without recursion: a tree may
    /// be 100 000 deep. Visits only nodes that change, and their neighbours.
    pub(super) fn refresh(&mut self, top: Link) {
        if self.wanted(top) == self.node(top).bits() {
            return;
        }
        // All that is newly refused below is so for the reason that `top` has; behind a grace shield,
        // for the one that it has past all grace.
        let why = [false, true].map(|hard_only| self.cause_from(top, hard_only));
        self.refresh_one(top, why[0]);
        let mut at = top;
        // Grace shields on the way from `top` down to here.
        let mut shields = 0;
        loop {
            let mut next = self.first_changed(self.node(at).first_child, why, shields);
            while next.is_none() && at != top {
                let node = self.node(at);
                let (sibling, parent) = (node.next, node.parent);
                shields -= u32::from(node.shield == Shield::Grace);
                next = self.first_changed(sibling, why, shields);
                at = parent.expect("below the top there is a parent");
            }
            let Some(link) = next else { return };
            shields += u32::from(self.node(link).shield == Shield::Grace);
            at = link;
        }
    }

    /// The first of these siblings whose bits change; they are behind so many grace shields.
    fn first_changed(
        &mut self,
        mut sibling: Option<Link>,
        why: [Cancelled; 2],
        shields: u32,
    ) -> Option<Link> {
        while let Some(link) = sibling {
            let behind = shields > 0 || self.node(link).shield == Shield::Grace;
            if self.refresh_one(link, why[usize::from(behind)]) {
                return Some(link);
            }
            sibling = self.node(link).next;
        }
        None
    }

    /// Sets the bits of one node; true if they changed. What is newly refused is aborted, for this
    /// cause.
    fn refresh_one(&mut self, link: Link, cause: Cancelled) -> bool {
        let wanted = self.wanted(link);
        let node = self.node_mut(link);
        let bits = node.bits();
        (node.refused, node.hard) = wanted;
        if wanted.0 && !bits.0 {
            self.abort_parks(link, cause);
        }
        wanted != bits
    }
}

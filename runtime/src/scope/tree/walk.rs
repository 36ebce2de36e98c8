//! The walk that pushes the two bits down.

use super::parks::Why;
use super::{Shield, Tree};
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
        let wanted = self.wanted(top);
        if wanted == self.node(top).bits() {
            return;
        }
        // All that is newly refused below is so for the reason that `top` has; behind a grace shield,
        // for the one that it has past all grace.
        let why = [false, true].map(|hard_only| self.why_from(top, hard_only));
        self.set_bits(top, wanted, why[0]);
        let mut at = top;
        // Grace shields on the way from `top` down to here.
        let mut shields = 0;
        loop {
            let node = self.node(at);
            let (first, bits) = (node.first_child, node.bits());
            let mut next = self.refresh_siblings(first, bits, why, shields);
            while next.is_none() && at != top {
                let node = self.node(at);
                let (sibling, parent) = (node.next, node.parent);
                shields -= u32::from(node.shield == Shield::Grace);
                at = parent.expect("below the top there is a parent");
                let bits = self.node(at).bits();
                next = self.refresh_siblings(sibling, bits, why, shields);
            }
            let Some(link) = next else { return };
            shields += u32::from(self.node(link).shield == Shield::Grace);
            at = link;
        }
    }

    /// Sets the bits of these siblings, up to the first that has changed and has children, which is
    /// returned. Their parent has the bits `outside`; they are behind so many grace shields.
    #[inline(never)]
    fn refresh_siblings(
        &mut self,
        mut sibling: Option<Link>,
        outside: (bool, bool),
        why: [Why; 2],
        shields: u32,
    ) -> Option<Link> {
        while let Some(link) = sibling {
            let node = self.node(link);
            let (next, first) = (node.next, node.first_child);
            let wanted = node.wanted(outside);
            if wanted != node.bits() {
                let behind = shields > 0 || node.shield == Shield::Grace;
                self.set_bits(link, wanted, why[usize::from(behind)]);
                if let Some(first) = first
                    && !self.refresh_alone(first, wanted, why, behind)
                {
                    return Some(link);
                }
            }
            sibling = next;
        }
        None
    }

    /// Sets the bits of a first child if it is an only one that has none, as the scope is in which most tasks wait that
    /// have one; false if it is not so. Its parent has the bits `outside`, and is `behind` a grace shield or not.
    #[inline(always)]
    fn refresh_alone(
        &mut self,
        link: Link,
        outside: (bool, bool),
        why: [Why; 2],
        behind: bool,
    ) -> bool {
        let node = self.node(link);
        if node.next.is_some() || node.first_child.is_some() {
            return false;
        }
        let wanted = node.wanted(outside);
        if wanted != node.bits() {
            let behind = behind || node.shield == Shield::Grace;
            self.set_bits(link, wanted, why[usize::from(behind)]);
        }
        true
    }

    /// Sets the bits of one node. What is newly refused is aborted, for this reason.
    #[inline(always)]
    fn set_bits(&mut self, link: Link, wanted: (bool, bool), why: Why) {
        let node = self.node_mut(link);
        let was_refused = node.refused;
        (node.refused, node.hard) = wanted;
        self.refusing += u64::from(wanted.0);
        self.refusing -= u64::from(was_refused);
        if wanted.0 && !was_refused {
            self.abort_parks(link, why);
        }
    }
}

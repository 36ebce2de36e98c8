//! The links between nodes, and between a node and its parks.

use super::{Node, Tree};
use crate::slab::Key;

impl Tree {
    pub(super) fn link(&mut self, key: Key, parent: Key) {
        let first = self.node_mut(parent).first_child.replace(key);
        self.node_mut(key).next = first;
        if let Some(first) = first {
            self.node_mut(first).previous = Some(key);
        }
    }

    pub(super) fn unlink(&mut self, key: Key) {
        let (parent, previous, next) = {
            let node = self.node_mut(key);
            (node.parent, node.previous.take(), node.next.take())
        };
        match (previous, parent) {
            (Some(previous), _) => self.node_mut(previous).next = next,
            (None, Some(parent)) => self.node_mut(parent).first_child = next,
            (None, None) => {}
        }
        if let Some(next) = next {
            self.node_mut(next).previous = previous;
        }
    }

    pub(super) fn link_park(&mut self, key: Key, node: Key) {
        let first = self.node_mut(node).first_park.replace(key);
        self.parks.get_mut(key).expect("the park lives").next = first;
        if let Some(first) = first {
            self.parks
                .get_mut(first)
                .expect("a linked park lives")
                .previous = Some(key);
        }
    }

    pub(super) fn unlink_park(&mut self, key: Key) {
        let park = self.parks.get_mut(key).expect("the park lives");
        let (node, previous, next) = (park.node, park.previous.take(), park.next.take());
        match previous {
            Some(previous) => {
                self.parks
                    .get_mut(previous)
                    .expect("a linked park lives")
                    .next = next;
            }
            None => {
                let node = self.node_mut(node);
                if node.first_park == Some(key) {
                    node.first_park = next;
                }
            }
        }
        if let Some(next) = next {
            self.parks
                .get_mut(next)
                .expect("a linked park lives")
                .previous = previous;
        }
    }

    pub(super) fn node(&self, key: Key) -> &Node {
        self.nodes.get(key).expect("links lead to nodes that live")
    }

    pub(super) fn node_mut(&mut self, key: Key) -> &mut Node {
        self.nodes
            .get_mut(key)
            .expect("links lead to nodes that live")
    }
}

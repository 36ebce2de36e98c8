//! Changes of scopes that others run: cancels, shields, deadlines.

use std::rc::Rc;
use std::time::Duration;

use quoit::{Group, Reason, Scope};

use super::failure::Failure;
use super::plan::Here;
use super::reference::{Node, Shield};
use crate::workload::Dice;

/// How many scopes and groups lie around at most.
const ROOM: usize = 10;

impl Here {
    pub(super) fn shelve_scope(&self, scope: &Rc<Scope>, node: Node) {
        let mut shelf = self.shelf.borrow_mut();
        shelf.scopes.push((Rc::clone(scope), node));
        let old = (shelf.scopes.len() > ROOM).then(|| shelf.scopes.remove(0));
        drop(shelf);
        drop(old);
    }

    pub(super) fn unshelve_scope(&self, node: Node) {
        let mut shelf = self.shelf.borrow_mut();
        let place = shelf.scopes.iter().position(|(_, other)| *other == node);
        let scope = place.map(|place| shelf.scopes.remove(place));
        drop(shelf);
        drop(scope);
    }

    pub(super) fn shelve_group(&self, group: Group<Failure>, node: Node) {
        let mut shelf = self.shelf.borrow_mut();
        shelf.groups.push((group, node));
        if shelf.groups.len() > ROOM {
            shelf.groups.remove(0);
        }
    }

    /// A group that somebody has opened on this core: one that may have ended.
    pub(super) fn any_group(&self, dice: &mut Dice) -> Option<(Group<Failure>, Node)> {
        let shelf = self.shelf.borrow();
        let count = shelf.groups.len() as u64;
        (count > 0).then(|| shelf.groups[dice.roll(count) as usize])
    }

    /// Changes a scope or group, if there is any.
    pub(super) fn meddle(&self, dice: &mut Dice) {
        if dice.roll(3) == 0 {
            if let Some((group, node)) = self.any_group(dice) {
                self.change_group(group, node, dice);
            }
            return;
        }
        let scope = {
            let shelf = self.shelf.borrow();
            let count = shelf.scopes.len() as u64;
            (count > 0).then(|| shelf.scopes[dice.roll(count) as usize].clone())
        };
        if let Some((scope, node)) = scope {
            self.change(&scope, node, dice);
        }
    }

    /// Changes a scope: one that has not begun, one that runs, or one that has ended.
    pub(super) fn change(&self, scope: &Scope, node: Node, dice: &mut Dice) {
        let plan = &self.plan;
        let alive = plan.with(|model| model.scopes.scopes[node].alive);
        match dice.roll(8) {
            0 | 1 => {
                let reason = plan.reason();
                let grace = match dice.roll(2) {
                    0 => Duration::ZERO,
                    _ => dice.micros(3_000),
                };
                plan.with(|model| model.notice_deadline(node));
                let told = scope.cancel_with(reason, grace);
                plan.with(|model| model.cancel(node, reason, Some(grace), Some(told)));
            }
            2 => {
                plan.with(|model| model.notice_deadline(node));
                let told = scope.cancel();
                plan.with(|model| model.cancel(node, Reason::Requested, None, Some(told)));
            }
            3 | 4 => {
                let shielded = dice.roll(2) == 0;
                scope.set_shielded(shielded);
                plan.with(|model| model.set_shield(node, shield(shielded)));
            }
            5 | 6 => {
                let at = plan.now() + dice.roll(2_000_000);
                let deadline = (dice.roll(4) > 0).then_some(at);
                plan.with(|model| model.notice_deadline(node));
                scope.set_deadline(deadline.map(|at| plan.at(at)));
                if alive {
                    plan.with(|model| model.set_deadline(node, deadline));
                }
            }
            _ => {
                let told = scope.cancelled().map(quoit::Cancelled::reason);
                if alive {
                    plan.with(|model| model.own_is(node, told));
                }
            }
        }
    }

    fn change_group(&self, group: Group<Failure>, node: Node, dice: &mut Dice) {
        let plan = &self.plan;
        let open = plan.with(|model| model.groups[&node].open);
        match dice.roll(3) {
            0 => {
                let reason = plan.reason();
                let told = group.cancel_for(reason);
                plan.with(|model| model.cancel(node, reason, None, Some(told)));
            }
            1 => {
                let shielded = dice.roll(2) == 0;
                group.set_shielded(shielded);
                if open {
                    plan.with(|model| model.set_shield(node, shield(shielded)));
                }
            }
            _ => {
                let told = group.cancelled().map(quoit::Cancelled::reason);
                if open {
                    plan.with(|model| model.own_is(node, told));
                }
            }
        }
    }
}

fn shield(shielded: bool) -> Shield {
    if shielded { Shield::Full } else { Shield::None }
}

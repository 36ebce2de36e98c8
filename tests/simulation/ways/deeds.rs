//! What is done to scopes, groups and tasks: by themselves, or by their handles.

use std::rc::Rc;
use std::time::Duration;

use quoit::time::Instant;
use quoit::{CancelHandle, Cancelled, Delivery, Group, JoinHandle, Reason, Scope};

use super::choices::DEED;
use super::failure::Failure;
use super::play::Play;
use super::program::{Deed, Moment, UNIT};

/// What can be cancelled.
pub(super) enum Target {
    Scope(Rc<Scope>, Option<CancelHandle>),
    Group(Group<Failure>),
    Task(Option<JoinHandle<(), Failure>>, CancelHandle),
}

impl Play {
    pub(super) fn tell_all(&self, id: usize, deeds: &[(usize, Deed)]) {
        for (place, (target, deed)) in deeds.iter().enumerate() {
            let way = self.ways.of(id, (DEED + place as u64, 2));
            let told = self.tell(way, *target, *deed);
            self.say(id, format!("{deed:?} of {target} {told:?}"));
        }
    }

    /// Does something to a target that has begun. Returns whether it has not ended, where that is told.
    pub(super) fn tell(&self, way: u64, target: usize, deed: Deed) -> Option<bool> {
        let targets = self.targets.borrow();
        let is_there = |told: Delivery| told != Delivery::Gone;
        let deadline = |at: Option<Moment>| at.map(|at| self.at(at));
        match (targets.get(&target)?, deed) {
            (Target::Scope(scope, handle), deed) => {
                let handle = match way {
                    0 => None,
                    _ => handle.as_ref(),
                };
                Some(is_there(match (deed, handle) {
                    (Deed::Cancel, None) => scope.cancel(),
                    (Deed::Cancel, Some(handle)) => handle.cancel(),
                    (Deed::CancelWith(why, grace), None) => {
                        scope.cancel_with(Reason::User(why), UNIT * grace as u32)
                    }
                    (Deed::CancelWith(why, grace), Some(handle)) => {
                        handle.cancel_with(Reason::User(why), UNIT * grace as u32)
                    }
                    (Deed::Deadline(at), Some(handle)) => {
                        handle.set_deadline(deadline(at).unwrap_or(Instant::NEVER));
                        return None;
                    }
                    (Deed::Deadline(at), None) => {
                        scope.set_deadline(deadline(at));
                        return None;
                    }
                    (Deed::Shield(shielded), _) => {
                        scope.set_shielded(shielded);
                        return None;
                    }
                }))
            }
            (Target::Group(group), Deed::Shield(shielded)) => {
                group.set_shielded(shielded);
                None
            }
            (Target::Group(group), deed) => {
                let by_group = way == 0;
                Some(is_there(match (deed, group.handle()) {
                    (_, None) => Delivery::Gone,
                    (Deed::Deadline(at), Some(handle)) => {
                        handle.set_deadline(deadline(at).unwrap_or(Instant::NEVER))
                    }
                    (Deed::CancelWith(why, _), _) if by_group => {
                        group.cancel_for(Reason::User(why))
                    }
                    (Deed::CancelWith(why, _), Some(handle)) => {
                        handle.cancel_with(Reason::User(why), Duration::ZERO)
                    }
                    (_, Some(_)) if by_group => group.cancel(),
                    (_, Some(handle)) => handle.cancel(),
                }))
            }
            (Target::Task(task, handle), Deed::Cancel) => {
                match task {
                    Some(task) if way == 0 => task.cancel(),
                    _ => drop(handle.cancel()),
                }
                None
            }
            (Target::Task(task, handle), Deed::CancelWith(why, _)) => {
                match task {
                    Some(task) if way == 0 => task.cancel_for(Reason::User(why)),
                    _ => drop(handle.cancel_with(Reason::User(why), Duration::ZERO)),
                }
                None
            }
            (Target::Task(_, handle), Deed::Deadline(at)) => {
                handle.set_deadline(deadline(at).unwrap_or(Instant::NEVER));
                None
            }
            (Target::Task(..), Deed::Shield(_)) => None,
        }
    }

    /// Returns why a target was cancelled, where that is told.
    pub(super) fn own_cause(&self, target: usize) -> Option<Reason> {
        let cause = match self.targets.borrow().get(&target)? {
            Target::Scope(scope, _) => scope.cancelled(),
            Target::Group(group) => group.cancelled(),
            Target::Task(..) => None,
        };
        cause.map(Cancelled::reason)
    }
}

//! Programs: steps, and how they are drawn.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::workload::Dice;

/// A moment of a program, in units that the deadlines and graces of handles are exact in.
pub(super) type Moment = u64;

pub(super) const UNIT: Duration = Duration::from_micros(128);

/// How many steps a program has, more or less.
pub(super) const MOST: usize = 50;

/// After the end of every program.
pub(super) const FAR: Duration = Duration::from_secs(8);

#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) id: usize,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    /// An op that lasts until then.
    Wait(Moment, IfCancelled),
    /// At that time, whatever is cancelled here.
    Do(Moment, Vec<(usize, Deed)>),
    Look,
    Scope(Making, Vec<Step>),
    /// The body and the children.
    Group(Vec<Step>, Vec<(usize, Vec<Step>)>),
    /// Dropped at that time.
    Half(Moment, Vec<Step>),
    Fail,
    /// Fails with a cancellation that was kept, if one was.
    FailWithKept,
}

/// What a body does that is cancelled.
#[derive(Debug, Clone, Copy)]
pub(super) enum IfCancelled {
    PassOn,
    Swallow,
    Keep,
    Fail,
    FailAndPassOn,
}

/// What is done to a scope, a group or a task.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    Cancel,
    CancelWith(u32, Moment),
    Deadline(Option<Moment>),
    Shield(bool),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Making {
    pub(super) shield: Shield,
    pub(super) deadline: Option<Moment>,
    pub(super) grace: Moment,
    /// What is done to it before it runs.
    pub(super) before: Option<Deed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shield {
    None,
    Grace,
    Full,
}

/// Draws a program.
pub(super) struct Maker {
    pub(super) dice: Dice,
    pub(super) next: usize,
    pub(super) taken: BTreeSet<Moment>,
    pub(super) targets: Vec<usize>,
    /// Nothing in it may be stray.
    pub(super) tame: bool,
}

impl Maker {
    pub(super) fn id(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Draws a moment that nothing else has, not long after this one.
    pub(super) fn after(&mut self, moment: Moment) -> Moment {
        loop {
            let drawn = moment + 1 + self.dice.roll(400);
            if self.taken.insert(drawn) {
                return drawn;
            }
        }
    }

    pub(super) fn target(&mut self) -> usize {
        let id = self.id();
        self.targets.push(id);
        id
    }

    /// Draws one of the last, which are mostly those around.
    pub(super) fn any_target(&mut self) -> usize {
        let back = self.dice.roll(self.targets.len().min(5) as u64) as usize;
        self.targets[self.targets.len() - 1 - back]
    }

    pub(super) fn steps(&mut self, depth: u32, mut now: Moment) -> Vec<Step> {
        let count = 1 + self.dice.roll(5);
        let mut steps = Vec::new();
        for _ in 0..count {
            let most = if depth < 5 && self.next < MOST {
                18
            } else {
                10
            };
            let (id, what) = match self.dice.roll(most) {
                0..5 => {
                    now = self.after(now);
                    (self.id(), What::Wait(now, self.if_cancelled()))
                }
                5..9 if !self.targets.is_empty() => {
                    now = self.after(now);
                    let count = 1 + self.dice.roll(3);
                    let mut deeds = Vec::new();
                    for _ in 0..count {
                        let deed = (self.any_target(), self.deed(now));
                        // Of the deadlines that a handle was told at a time only the last counts.
                        let is_deadline =
                            |deed: &(usize, Deed)| matches!(deed.1, Deed::Deadline(_));
                        if !(is_deadline(&deed) && deeds.iter().any(is_deadline)) {
                            deeds.push(deed);
                        }
                    }
                    (self.id(), What::Do(now, deeds))
                }
                5..10 => (self.id(), What::Look),
                10..15 => {
                    let (id, making) = (self.target(), self.making(now));
                    (id, What::Scope(making, self.steps(depth + 1, now)))
                }
                15 | 16 => {
                    let id = self.target();
                    let children = (0..1 + self.dice.roll(2))
                        .map(|_| (self.target(), self.steps(depth + 1, now)))
                        .collect();
                    (id, What::Group(self.steps(depth + 1, now), children))
                }
                _ => {
                    let end = self.after(now);
                    (self.id(), What::Half(end, self.steps(depth + 1, now)))
                }
            };
            steps.push(Step { id, what });
        }
        let what = match self.dice.roll(8) {
            0 => What::Fail,
            1 if !self.tame => What::FailWithKept,
            _ => return steps,
        };
        steps.push(Step {
            id: self.id(),
            what,
        });
        steps
    }

    pub(super) fn if_cancelled(&mut self) -> IfCancelled {
        match self.dice.roll(8) {
            0 => IfCancelled::Swallow,
            1 => IfCancelled::Keep,
            2 => IfCancelled::Fail,
            3 => IfCancelled::FailAndPassOn,
            _ => IfCancelled::PassOn,
        }
    }

    pub(super) fn deed(&mut self, now: Moment) -> Deed {
        match self.dice.roll(8) {
            0 => Deed::Cancel,
            1..4 => Deed::CancelWith(self.dice.roll(1000) as u32, self.grace()),
            4 => Deed::Deadline(Some(self.after(now))),
            5 => Deed::Deadline(Some(now.saturating_sub(self.dice.roll(100)))),
            6 => Deed::Deadline(None),
            _ => Deed::Shield(self.dice.roll(2) == 0 && !self.tame),
        }
    }

    /// Draws a grace; mostly none.
    pub(super) fn grace(&mut self) -> Moment {
        match self.dice.roll(3) {
            0 => 1 + self.dice.roll(100),
            _ => 0,
        }
    }

    pub(super) fn making(&mut self, now: Moment) -> Making {
        Making {
            shield: match self.dice.roll(6) {
                0 => Shield::Full,
                1 => Shield::Grace,
                _ => Shield::None,
            },
            deadline: match self.dice.roll(6) {
                0 | 1 => Some(self.after(now)),
                2 => Some(now.saturating_sub(self.dice.roll(100))),
                _ => None,
            },
            grace: self.grace(),
            before: (self.dice.roll(4) == 0).then(|| self.deed(now)),
        }
    }
}

/// Returns whether a cancellation may be passed on where nothing is cancelled: it was kept, or shielded meanwhile.
pub(super) fn has_strays(steps: &[Step]) -> bool {
    steps.iter().any(|step| match &step.what {
        What::FailWithKept => true,
        What::Do(_, deeds) => {
            let shields = |deed: &(usize, Deed)| matches!(deed.1, Deed::Shield(true));
            deeds.iter().any(shields)
        }
        What::Scope(_, steps) | What::Half(_, steps) => has_strays(steps),
        What::Group(steps, children) => {
            has_strays(steps) || children.iter().any(|(_, steps)| has_strays(steps))
        }
        _ => false,
    })
}

/// Returns whether a group is dropped in these steps: its tasks go to the scope around.
pub(super) fn leaves_tasks(steps: &[Step], may_be_dropped: bool) -> bool {
    steps.iter().any(|step| match &step.what {
        What::Scope(_, steps) => leaves_tasks(steps, may_be_dropped),
        What::Half(_, steps) => leaves_tasks(steps, true),
        What::Group(steps, children) => {
            may_be_dropped
                || leaves_tasks(steps, false)
                || children.iter().any(|(_, steps)| leaves_tasks(steps, false))
        }
        _ => false,
    })
}

/// Returns the programs that lack one step of this one, or have what is in it in its place.
pub(super) fn smaller(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut all = Vec::new();
    for place in 0..steps.len() {
        let mut with = |new: Vec<Step>| {
            let mut steps = steps.to_vec();
            steps.splice(place..=place, new);
            all.push(steps);
        };
        with(Vec::new());
        let Step { id, what } = steps[place].clone();
        match what {
            What::Scope(making, inside) => {
                with(inside.clone());
                for inside in smaller(&inside) {
                    let what = What::Scope(making, inside);
                    with(vec![Step { id, what }]);
                }
            }
            What::Half(end, inside) => {
                with(inside.clone());
                for inside in smaller(&inside) {
                    let what = What::Half(end, inside);
                    with(vec![Step { id, what }]);
                }
            }
            What::Group(body, children) => {
                with(body.clone());
                for body in smaller(&body) {
                    let what = What::Group(body, children.clone());
                    with(vec![Step { id, what }]);
                }
                for which in 0..children.len() {
                    let mut fewer = children.clone();
                    let (child, inside) = fewer.remove(which);
                    let what = What::Group(body.clone(), fewer);
                    with(vec![Step { id, what }]);
                    for inside in smaller(&inside) {
                        let mut children = children.clone();
                        children[which] = (child, inside);
                        let what = What::Group(body.clone(), children);
                        with(vec![Step { id, what }]);
                    }
                }
            }
            _ => {}
        }
    }
    all
}

//! A dump as lines for people: also what a simulation says of its cores.

use std::fmt;
use std::time::Duration;

use super::dump::{CoreDump, NodeDump, ScopeDump, Silence, TaskState};
use crate::scope::tree::{Kind, Shield};

impl fmt::Display for ScopeDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (core, answer) in &self.cores {
            match answer {
                Ok(dump) => write!(f, "core {core}{dump}")?,
                Err(silence) => writeln!(f, "core {core} {silence}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy { turned: false } => {
                "does not answer: one task has been running all the while"
            }
            Self::Busy { turned: true } => "does not answer: it has too much to do",
            Self::Full => "does not answer: its mailbox is full",
            Self::Ended => "has ended",
            Self::NotAsked => "was not asked: a core cannot wait for another",
        })
    }
}

/// The numbers, on the line that the caller has begun, and a line or more for each node.
impl fmt::Display for CoreDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            ": {}, {} ready, {} in the kernel",
            counted(self.tasks as usize, "task"),
            self.ready,
            counted(self.in_kernel as usize, "op")
        )?;
        if self.orphans > 0 {
            write!(f, " ({} given up)", self.orphans)?;
        }
        writeln!(f, ", {} armed", counted(self.timers, "timer"))?;
        let busy = self.tasks_that_wait();
        for (node, waits) in self.nodes.iter().zip(busy) {
            let indent = "  ".repeat(node.depth.min(DEEPEST));
            // The root has nothing to say of itself but that it was cancelled.
            if node.depth > 0 || node.refused {
                let indent = indent.strip_prefix("  ").unwrap_or("");
                write!(f, "  {indent}")?;
                if node.depth > DEEPEST {
                    write!(f, "{} deeper: ", node.depth - DEEPEST)?;
                }
                writeln!(f, "{}", line(node, waits))?;
            }
            for wait in &node.waits {
                let since = short(wait.since);
                writeln!(f, "  {indent}for {}, for {since}", wait.what)?;
            }
            for op in &node.orphans {
                writeln!(f, "  {indent}given up, and not ended: {op}")?;
            }
        }
        Ok(())
    }
}

/// What lies deeper is not set in further: a text grows with the square of its depth otherwise.
const DEEPEST: usize = 100;

impl CoreDump {
    /// Says of each node whether its task waits in anything that stands below it.
    fn tasks_that_wait(&self) -> Vec<Waits> {
        let mut found = vec![Waits::default(); self.nodes.len()];
        let mut task_of: Vec<Option<usize>> = Vec::with_capacity(self.nodes.len());
        for (place, node) in self.nodes.iter().enumerate() {
            let task = match node.parent {
                _ if node.task.is_some() => Some(place),
                Some(parent) => task_of[parent],
                None => None,
            };
            task_of.push(task);
            if let Some(task) = task {
                found[task].in_ops |= !node.waits.is_empty();
                found[task].for_an_end |= node.ending;
            }
        }
        found
    }
}

/// What a task waits in.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    in_ops: bool,
    for_an_end: bool,
}

/// The line of a node.
fn line(node: &NodeDump, waits: Waits) -> String {
    let mut text = subject(node, waits);
    if let (Some(foreign), None) = (node.foreign, node.task) {
        text += " that waits for something the runtime does not know";
        text += &vain(foreign.wakes, foreign.unresponsive);
    }
    match &node.cancelled {
        Some((cause, since)) => text += &format!(", {cause}, {} ago", short(*since)),
        None if node.refused => text += ", cancelled from outside",
        None => {}
    }
    if let Some(left) = node.grace_left {
        text += &format!(", with {} of grace left", short(left));
    }
    if let Some(task) = node.task
        && task.swallowing
    {
        text += &format!(", swallows every cancel: refused {} times", task.refusals);
    }
    if let Some(deadline) = node.deadline_in {
        text += &format!(", deadline in {}", short(deadline));
    }
    match node.shield {
        Shield::Full => text += ", shielded",
        Shield::Grace => text += ", shielded for a grace period",
        Shield::None => {}
    }
    if node.dropped && !matches!(node.kind, Kind::Task(_)) {
        text += ", dropped";
    }
    if node.ending && node.task.is_none() {
        text += ", waits for the end of what was started inside";
    }
    text
}

fn subject(node: &NodeDump, waits: Waits) -> String {
    match (node.kind, node.task) {
        (Kind::Task(slot), Some(task)) => {
            let what = match (task.state, node.foreign) {
                (TaskState::Running, _) => "runs".to_owned(),
                (TaskState::Ready, _) => "is ready to run".to_owned(),
                (TaskState::Pausing, _) => "pauses".to_owned(),
                (TaskState::Waiting, Some(foreign)) => {
                    let vain = vain(foreign.wakes, foreign.unresponsive);
                    format!("waits for something the runtime does not know{vain}")
                }
                (TaskState::Waiting, None) if !waits.in_ops && waits.for_an_end => {
                    "waits for the end of what it has started".to_owned()
                }
                (TaskState::Waiting, None) => "waits".to_owned(),
            };
            format!("task {slot} {what}")
        }
        (Kind::Group, _) => format!("a group of {}{}", node.tasks, starting(node)),
        (Kind::Start, _) => "a call that waits for a start".to_owned(),
        (Kind::Root, _) => "all of it".to_owned(),
        (Kind::Task(slot), None) => format!("task {slot} that has ended"),
        _ if node.tasks + node.starting > 0 => {
            let tasks = counted(node.tasks as usize, "task");
            format!("a scope with {tasks}{}", starting(node))
        }
        _ => "a scope".to_owned(),
    }
}

fn starting(node: &NodeDump) -> String {
    match node.starting {
        0 => String::new(),
        count => format!(" and {count} that may come"),
    }
}

fn vain(wakes: u32, unresponsive: bool) -> String {
    match (wakes, unresponsive) {
        (0, _) => String::new(),
        (wakes, false) => format!(", woken in vain {}", counted(wakes as usize, "time")),
        (wakes, true) => format!(
            ", unresponsive: woken in vain {}, and left alone",
            counted(wakes as usize, "time")
        ),
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn short(time: Duration) -> String {
    format!("{time:.1?}")
}

//! A dump as JSON.
//!
//! The tree is a list, in which each node names the one above it: trees may be deeper than readers of
//! JSON let values lie within each other. All that is written is objects of numbers, words and lists,
//! so a few lines do for a library.

use std::fmt::Write;
use std::time::Duration;

use super::dump::{CoreDump, NodeDump, ScopeDump, TaskState, WaitDump};
use crate::scope::tree::{Kind, Shield};

impl ScopeDump {
    /// Returns the same as JSON, on one line.
    ///
    /// `{"cores": [..]}`, in order. Every key is always there, with `null` where there is nothing to
    /// say; times are nanoseconds at the moment of the look. Of a core:
    ///
    /// | key | |
    /// |---|---|
    /// | `core` | its place in the runtime |
    /// | `silent` | why it said nothing, in words; then there are no further keys |
    /// | `tasks`, `ready` | tasks that live; of these, such as stand in the run queue |
    /// | `kernel_ops`, `orphans` | ops in the kernel; of these, such as were given up |
    /// | `timers` | timers that are armed |
    /// | `nodes` | the tree, each node before those below it |
    ///
    /// Of a node:
    ///
    /// | key | |
    /// |---|---|
    /// | `parent` | the place in `nodes` of the node above; `null` for the root |
    /// | `kind` | `root`, `scope`, `group` or `task` |
    /// | `task` | a task's number on its core |
    /// | `state` | a living task's: `running`, `ready`, `waiting`, or `pausing`: made to, for asking too often |
    /// | `refusals` | how often a task was refused in a cancelled scope, once that is counted |
    /// | `swallowing` | whether it has to pause before each further one |
    /// | `refused` | whether its ops are refused: it was cancelled, itself or from outside |
    /// | `cancelled`, `cancelled_ns` | why it was cancelled itself, in words, and how long ago |
    /// | `grace_left_ns` | until the grace of that cancel is over |
    /// | `deadline_in_ns` | until its own deadline; 0 if it has passed unnoticed |
    /// | `shield` | `none`, `grace` or `full` |
    /// | `tasks`, `starting` | tasks directly below; calls of `start` that may add one |
    /// | `dropped` | whether its owner is gone, and only the kernel holds it |
    /// | `ending` | whether it waits for the end of what was started inside |
    /// | `foreign` | whether it waits for something the runtime does not know |
    /// | `foreign_wakes`, `unresponsive` | how often it was woken in vain then; whether it is left alone |
    /// | `waits` | `[{"for", "since_ns", "told"}]`: what for, how long, whether it was told of a cancel |
    /// | `orphans` | ops given up here that the kernel has not ended, in words |
    pub fn to_json(&self) -> String {
        let cores = self.cores.iter().map(|(core, answer)| match answer {
            Ok(dump) => object(|o| {
                o.number("core", *core);
                o.words("silent", None);
                core_fields(o, dump);
            }),
            Err(silence) => object(|o| {
                o.number("core", *core);
                o.words("silent", Some(&silence.to_string()));
            }),
        });
        object(|o| o.raw("cores", &list(cores)))
    }
}

fn core_fields(o: &mut Object, dump: &CoreDump) {
    o.number("tasks", dump.tasks);
    o.number("ready", dump.ready);
    o.number("kernel_ops", dump.in_kernel);
    o.number("orphans", dump.orphans);
    o.number("timers", dump.timers);
    o.raw("nodes", &list(dump.nodes.iter().map(node)));
}

fn node(node: &NodeDump) -> String {
    object(|o| {
        o.raw("parent", &or_null(node.parent));
        let (kind, slot) = match node.kind {
            Kind::Root => ("root", None),
            Kind::Scope | Kind::Daemons | Kind::Start => ("scope", None),
            Kind::Group => ("group", None),
            Kind::Task(slot) => ("task", Some(slot)),
        };
        o.words("kind", Some(kind));
        o.raw("task", &or_null(slot));
        o.words("state", node.task.map(|task| state(task.state)));
        o.number("refusals", node.task.map_or(0, |task| task.refusals));
        o.raw(
            "swallowing",
            &node.task.is_some_and(|task| task.swallowing).to_string(),
        );
        o.raw("refused", &node.refused.to_string());
        let cause = node.cancelled.map(|(cause, _)| cause.to_string());
        o.words("cancelled", cause.as_deref());
        o.nanos("cancelled_ns", node.cancelled.map(|(_, since)| since));
        o.nanos("grace_left_ns", node.grace_left);
        o.nanos("deadline_in_ns", node.deadline_in);
        o.words("shield", Some(shield(node.shield)));
        o.number("tasks", node.tasks);
        o.number("starting", node.starting);
        o.raw("dropped", &node.dropped.to_string());
        o.raw("ending", &node.ending.to_string());
        o.raw("foreign", &node.foreign.is_some().to_string());
        o.number(
            "foreign_wakes",
            node.foreign.map_or(0, |foreign| foreign.wakes),
        );
        let unresponsive = node.foreign.is_some_and(|foreign| foreign.unresponsive);
        o.raw("unresponsive", &unresponsive.to_string());
        o.raw("waits", &list(node.waits.iter().map(wait)));
        o.raw("orphans", &list(node.orphans.iter().map(|op| quoted(op))));
    })
}

fn wait(wait: &WaitDump) -> String {
    object(|o| {
        o.words("for", Some(&wait.what));
        o.nanos("since_ns", Some(wait.since));
        o.raw("told", &wait.told.to_string());
    })
}

fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Running => "running",
        TaskState::Ready => "ready",
        TaskState::Pausing => "pausing",
        TaskState::Waiting => "waiting",
    }
}

fn shield(shield: Shield) -> &'static str {
    match shield {
        Shield::None => "none",
        Shield::Grace => "grace",
        Shield::Full => "full",
    }
}

/// An object that is being written.
pub(super) struct Object(String);

pub(super) fn object(fill: impl FnOnce(&mut Object)) -> String {
    let mut object = Object(String::from("{"));
    fill(&mut object);
    object.0 + "}"
}

impl Object {
    pub(super) fn raw(&mut self, key: &str, value: &str) {
        let comma = if self.0.len() > 1 { "," } else { "" };
        let _ = write!(self.0, "{comma}\"{key}\":{value}");
    }

    pub(super) fn number(&mut self, key: &str, value: impl ToString) {
        self.raw(key, &value.to_string());
    }

    pub(super) fn words(&mut self, key: &str, value: Option<&str>) {
        self.raw(key, &value.map_or_else(|| "null".to_owned(), quoted));
    }

    pub(super) fn nanos(&mut self, key: &str, value: Option<Duration>) {
        self.raw(key, &or_null(value.map(|time| time.as_nanos())));
    }
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    format!("[{}]", items.join(","))
}

fn or_null(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_json_wants_them() {
        assert_eq!(quoted("a \"b\" \\ \n ü"), "\"a \\\"b\\\" \\\\ \\u000a ü\"");
    }
}

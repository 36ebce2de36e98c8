//! Pipes whose bytes are known: what a cancelled read has not taken is there for the next.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use quoit::op::{self, SharedFd};

use super::failure::Failure;
use super::ops::{At, said, watched};
use super::plan::Here;
use super::waits::Until;
use crate::workload::Dice;

/// A pipe that a scope and what is in it read and write, one at a time: each byte is one more than
/// the byte before.
#[derive(Debug)]
pub(super) struct Pipe {
    read: SharedFd,
    write: RefCell<Option<SharedFd>>,
    reading: Cell<bool>,
    writing: Cell<bool>,
    written: Cell<u64>,
    received: Cell<u64>,
    /// A read or a write was given up, so that nobody knows what it did.
    unknown: Cell<bool>,
}

impl Pipe {
    /// Makes one; none where there are none to be had.
    pub(super) fn new(here: &Here) -> Option<Rc<Self>> {
        let (read, write) = op::pipe().ok()?;
        let pipe = Rc::new(Self {
            read,
            write: RefCell::new(Some(write)),
            reading: Cell::new(false),
            writing: Cell::new(false),
            written: Cell::new(0),
            received: Cell::new(0),
            unknown: Cell::new(false),
        });
        if here.plan.is_over() {
            pipe.close();
        } else {
            here.shelf.borrow_mut().pipes.push(Rc::clone(&pipe));
        }
        Some(pipe)
    }

    pub(super) fn close(&self) {
        let writer = self.write.take();
        drop(writer);
    }

    /// Whether no op has a share of it.
    pub(super) fn is_out_of_use(&self) -> bool {
        let write = self.write.borrow();
        self.read.is_unique() && write.as_ref().is_none_or(SharedFd::is_unique)
    }
}

/// Turns a flag on while an op runs, and the pipe unknown if that is given up.
struct Use<'a> {
    flag: &'a Cell<bool>,
    pipe: &'a Pipe,
    ended: bool,
}

impl<'a> Use<'a> {
    fn begin(flag: &'a Cell<bool>, pipe: &'a Pipe) -> Option<Self> {
        (!flag.replace(true)).then_some(Self {
            flag,
            pipe,
            ended: false,
        })
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.flag.set(false);
        if !self.ended {
            self.pipe.unknown.set(true);
        }
    }
}

/// Reads some bytes. A read that was cancelled has taken none.
pub(super) async fn read(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let Some(pipe) = &at.pipe else { return Ok(()) };
    let Some(mut usage) = Use::begin(&pipe.reading, pipe) else {
        return Ok(());
    };
    let room = 1 + dice.roll(8) as usize;
    let bytes = watched(at, "read", Until::Unseen, async {
        let (count, mut bytes) = op::read(&pipe.read, vec![0; room]).await;
        bytes.truncate(said(at, count)?);
        Ok(bytes)
    })
    .await;
    usage.ended = true;
    for byte in bytes? {
        let expected = pipe.received.get();
        pipe.received.set(expected + 1);
        if byte != expected as u8 && !pipe.unknown.get() {
            let text = format!("a pipe gave the byte {byte} in the place of {expected}");
            at.plan().with(|model| model.violated(text));
        }
    }
    Ok(())
}

/// Writes some bytes. A write that was cancelled has written none.
pub(super) async fn write(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let Some(pipe) = &at.pipe else { return Ok(()) };
    let Some(writer) = pipe.write.borrow().clone() else {
        return Ok(());
    };
    let Some(mut usage) = Use::begin(&pipe.writing, pipe) else {
        return Ok(());
    };
    let first = pipe.written.get();
    let bytes: Vec<u8> = (first..=first + dice.roll(8)).map(|at| at as u8).collect();
    let count = watched(at, "write", Until::Unseen, async {
        said(at, op::write(&writer, bytes).await.0)
    })
    .await;
    usage.ended = true;
    pipe.written.set(first + count? as u64);
    Ok(())
}

//! Pipes: how much they hold, what is written whole, what an end hears when the other is gone.

use quoit::op::{self, SharedFd};
use std::fmt::Debug;
use tests::{Dice, bytes};

use crate::compare::{Place, Script, Steps, all_hold, comes_to, comes_to_plainly};
use crate::outcome::{Outcome, Record, settle, within};

/// Steps on a pipe.
#[derive(Debug, Clone)]
pub(crate) struct Pipe(pub(crate) Vec<Step>);

/// An end of the pipe.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Reads,
    Writes,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Write(End, usize),
    Read(End, usize),
    ReadAt(End, usize),
    WriteAt(End, usize),
    Receive(End),
    Sync(End),
    Poll(End, i16),
    Close(End),
    Drop(End),
}

impl Steps for Pipe {
    fn steps(&mut self) -> &mut Vec<impl Debug> {
        &mut self.0
    }
}

impl Script for Pipe {
    async fn run(&self, place: &Place) -> Record {
        let (reads, writes) = op::pipe().expect("a pipe");
        let mut ends = [Some(reads), Some(writes)];
        let mut record = Record::new();
        for (number, step) in self.0.iter().enumerate() {
            record.push(within(place.patience, step.take(number, &mut ends)).await);
            settle().await;
        }
        record
    }
}

impl Step {
    async fn take(self, number: usize, ends: &mut [Option<SharedFd>; 2]) -> Outcome {
        let place = &mut ends[self.end() as usize];
        if let Self::Close(_) | Self::Drop(_) = self {
            return match (place.take(), self) {
                (None, _) => Outcome::Nothing,
                (Some(end), Self::Close(_)) => Outcome::done(op::close(end).await),
                (Some(_), _) => Outcome::Done,
            };
        }
        let Some(end) = place else {
            return Outcome::Nothing;
        };
        let made = |count| bytes(count, number as u64);
        let room = |count| vec![0; count];
        match self {
            Self::Write(_, count) => Outcome::counted(op::write(end, made(count)).await.0),
            Self::WriteAt(_, count) => Outcome::counted(op::write_at(end, made(count), 7).await.0),
            Self::Read(_, count) => Outcome::read(op::read(end, room(count)).await),
            Self::ReadAt(_, count) => Outcome::read(op::read_at(end, room(count), 7).await),
            Self::Receive(_) => Outcome::read(op::receive_into(end, room(10)).await),
            Self::Sync(_) => Outcome::done(quoit::fs::File::from(end.clone()).sync_all().await),
            Self::Poll(_, events) => {
                let ready = op::poll(end, events as u32).await;
                ready.map(|ready| Outcome::Count(ready.into())).into()
            }
            Self::Close(_) | Self::Drop(_) => unreachable!("see above"),
        }
    }

    fn end(self) -> End {
        match self {
            Self::Write(end, _)
            | Self::Read(end, _)
            | Self::ReadAt(end, _)
            | Self::WriteAt(end, _)
            | Self::Receive(end)
            | Self::Sync(end)
            | Self::Poll(end, _)
            | Self::Close(end)
            | Self::Drop(end) => end,
        }
    }
}

/// About pages, what is written whole, and what a pipe holds.
const SIZES: [usize; 12] = [
    0, 1, 100, 1000, 3000, 4095, 4096, 4097, 9000, 40_000, 65_536, 70_000,
];

fn script(dice: &mut Dice) -> Pipe {
    let length = 3 + dice.below(14);
    Pipe((0..length).map(|_| step(dice)).collect())
}

fn step(dice: &mut Dice) -> Step {
    let count = dice.one_of(&SIZES);
    let either = dice.one_of(&[End::Reads, End::Writes]);
    match dice.below(24) {
        0..9 => Step::Write(End::Writes, count),
        9..15 => Step::Read(End::Reads, count),
        15 => Step::ReadAt(either, count),
        16 => Step::WriteAt(either, count),
        17..20 => Step::Poll(
            either,
            dice.one_of(&[libc::POLLIN, libc::POLLOUT, libc::POLLIN | libc::POLLOUT, 0]),
        ),
        20 => dice.one_of(&[Step::Receive(either), Step::Sync(either)]),
        21 => Step::Close(either),
        22 => Step::Drop(either),
        _ => dice.one_of(&[
            Step::Read(End::Writes, count),
            Step::Write(End::Reads, count),
        ]),
    }
}

#[test]
fn a_pipe_is_as_the_kernel_has_it() {
    all_hold(200, script);
}

#[test]
fn a_pipe_without_a_reader_breaks() {
    comes_to(
        &Pipe(vec![
            Step::Drop(End::Reads),
            Step::Write(End::Writes, 10),
            Step::Write(End::Writes, 0),
        ]),
        &[vec![
            Outcome::Done,
            Outcome::Refused(libc::EPIPE),
            Outcome::Count(0),
        ]],
    );
}

#[test]
fn a_pipe_is_full_when_its_pages_are() {
    // Two of these do not go into one page, so each takes one.
    let mut steps = vec![Step::Write(End::Writes, 3000); 17];
    steps.extend([Step::Read(End::Reads, 2999), Step::Write(End::Writes, 3000)]);
    steps.extend([Step::Read(End::Reads, 1), Step::Write(End::Writes, 3000)]);
    let mut expected = vec![Outcome::Count(3000); 16];
    let first = bytes(3000, 0);
    expected.push(Outcome::Waits);
    expected.extend([Outcome::bytes(&first[..2999]), Outcome::Waits]);
    expected.extend([Outcome::bytes(&first[2999..]), Outcome::Count(3000)]);
    comes_to_plainly(&Pipe(steps), &expected);
}

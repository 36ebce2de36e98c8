//! Files and folders: what opens, what is read and written where, which paths lead where.

use quoit::fs::{File, Folder, metadata, symlink_metadata};
use quoit::op;
use quoit::time::sleep;
use std::fmt::Debug;
use std::time::Duration;
use tests::{Dice, bytes};

use crate::compare::{Place, Script, Steps, Stored, all_hold};
use crate::facts::fact;
use crate::outcome::{Outcome, Record, settle, within};
use crate::paths::{Options, PATHS, STORED};

/// Steps on a few files, of which each has a place.
#[derive(Debug, Clone)]
pub(crate) struct Files(pub(crate) Vec<Step>);

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Open(usize, &'static str, Options),
    OpenBeneath(usize, &'static str, Options),
    OpenFolder(&'static str),
    Read(usize, usize, u64),
    Write(usize, usize, u64),
    /// At the file's own position.
    ReadOn(usize, usize),
    WriteOn(usize, usize),
    Length(usize),
    Sync(usize),
    Poll(usize, i16),
    Receive(usize),
    Status(&'static str),
    LinkStatus(&'static str),
    Entries(&'static str),
    Close(usize),
}

impl Steps for Files {
    fn steps(&mut self) -> &mut Vec<impl Debug> {
        &mut self.0
    }
}

impl Script for Files {
    fn stored(&self) -> &[Stored] {
        &STORED
    }

    async fn run(&self, place: &Place) -> Record {
        let folder = Folder::open(&place.folder).await.expect("it is there");
        let mut world = World {
            place,
            folder,
            open: [const { None }; 3],
        };
        let mut record = Record::new();
        for (number, step) in self.0.iter().enumerate() {
            record.push(within(place.patience, step.take(number, &mut world)).await);
            settle().await;
        }
        record
    }
}

struct World<'a> {
    place: &'a Place,
    folder: Folder,
    open: [Option<File>; 3],
}

impl Step {
    async fn take(&self, number: usize, world: &mut World<'_>) -> Outcome {
        let made = |count| bytes(count, number as u64);
        let room = |count| vec![0; count];
        if let Some(outcome) = self.name(world).await {
            return outcome;
        }
        let place = &mut world.open[self.place()];
        let Some(file) = place.take() else {
            return Outcome::Nothing;
        };
        let outcome = match *self {
            Self::Read(_, count, at) => Outcome::read(file.read_at(room(count), at).await),
            Self::Write(_, count, at) => Outcome::counted(file.write_at(made(count), at).await.0),
            Self::ReadOn(_, count) => Outcome::read(op::read(file.fd(), room(count)).await),
            Self::WriteOn(_, count) => Outcome::counted(op::write(file.fd(), made(count)).await.0),
            Self::Length(_) => described(file.metadata()),
            Self::Sync(_) => Outcome::done(file.sync_all().await),
            Self::Poll(_, events) => {
                let ready = op::poll(file.fd(), events as u32).await;
                ready.map(|ready| Outcome::Count(ready.into())).into()
            }
            Self::Receive(_) => Outcome::read(op::receive_into(file.fd(), room(10)).await),
            Self::Close(_) => return Outcome::done(file.close().await),
            _ => unreachable!("those that name a path are done"),
        };
        *place = Some(file);
        outcome
    }

    /// Does what begins with a path.
    async fn name(&self, world: &mut World<'_>) -> Option<Outcome> {
        Some(match *self {
            Self::Open(place, path, options) => {
                let opened = options.of_the_kernel().open(world.place.path(path)).await;
                world.keep(place, opened)
            }
            Self::OpenBeneath(place, path, options) => {
                let options = options.of_the_kernel();
                let opened = world.folder.open_beneath(path, &options).await;
                world.keep(place, opened)
            }
            Self::OpenFolder(path) => Outcome::done(Folder::open(world.place.path(path)).await),
            Self::Status(path) => described(metadata(world.place.path(path)).await),
            Self::LinkStatus(path) => described(symlink_metadata(world.place.path(path)).await),
            Self::Entries(path) => {
                let entries = match Folder::open(world.place.path(path)).await {
                    Ok(folder) => folder.entries().await,
                    Err(error) => Err(error),
                };
                let said = entries.map(|entries| {
                    let say =
                        |entry: quoit::fs::Entry| format!("{:?} {:?}", entry.name, entry.kind);
                    let mut names: Vec<String> = entries.into_iter().map(say).collect();
                    // In which order, the file system says.
                    names.sort();
                    Outcome::said(names.join(", "))
                });
                said.into()
            }
            _ => return None,
        })
    }

    fn place(&self) -> usize {
        match *self {
            Self::Open(place, ..)
            | Self::OpenBeneath(place, ..)
            | Self::Read(place, ..)
            | Self::Write(place, ..)
            | Self::ReadOn(place, _)
            | Self::WriteOn(place, _)
            | Self::Length(place)
            | Self::Sync(place)
            | Self::Poll(place, _)
            | Self::Receive(place)
            | Self::Close(place) => place,
            Self::OpenFolder(_) | Self::Status(_) | Self::LinkStatus(_) | Self::Entries(_) => 0,
        }
    }
}

impl World<'_> {
    fn keep(&mut self, place: usize, opened: std::io::Result<File>) -> Outcome {
        let opened = opened.map(|file| self.open[place] = Some(file));
        Outcome::done(opened)
    }
}

/// What is the same of every file system: those of folders have sizes of their own.
fn described(status: std::io::Result<quoit::fs::Metadata>) -> Outcome {
    let said = status.map(|status| {
        let kind = status.mode() & libc::S_IFMT;
        if status.is_folder() {
            Outcome::said("folder")
        } else if kind == libc::S_IFLNK {
            Outcome::said("link")
        } else {
            Outcome::said(format!("{kind:o} of {}", status.len()))
        }
    });
    said.into()
}

fn script(dice: &mut Dice) -> Files {
    let length = 4 + dice.below(14);
    Files((0..length).map(|_| step(dice)).collect())
}

fn step(dice: &mut Dice) -> Step {
    let place = dice.below(3);
    let path = dice.one_of(&PATHS);
    let count = dice.one_of(&[0, 1, 5, 100, 5000]);
    let last = i64::MAX as u64;
    let at = dice.one_of(&[0, 1, 5, 12, 50, 4096, 10_000, last - 5, last]);
    match dice.below(24) {
        0..5 => Step::Open(place, path, Options::drawn(dice)),
        5..9 => Step::OpenBeneath(place, path, Options::drawn(dice)),
        9..12 => Step::Read(place, count, at),
        12..15 => Step::Write(place, count, at),
        15 => Step::ReadOn(place, count),
        16 => Step::WriteOn(place, count),
        17 => Step::Length(place),
        18 => Step::Status(path),
        19 => Step::LinkStatus(path),
        20 => Step::Entries(path),
        21 => Step::OpenFolder(path),
        22 => Step::Close(place),
        _ => match dice.below(3) {
            0 => Step::Sync(place),
            1 => Step::Poll(place, libc::POLLIN | libc::POLLOUT),
            _ => Step::Receive(place),
        },
    }
}

#[test]
fn files_are_as_the_kernel_has_them() {
    all_hold(300, script);
}

#[test]
fn what_is_made_or_emptied_has_changed_by_then() {
    fact(
        "looks when files have changed",
        |place| {
            Box::pin(async {
                let path = place.path("file");
                let folder = Folder::open(&place.folder).await.expect("it is there");
                let when = || async {
                    // The times of a file go on by the ticks of the kernel, 100 in a second or more.
                    sleep(Duration::from_millis(30)).await.expect("in time");
                    let file = metadata(&path).await.ok().map(|status| status.modified());
                    let folder = folder.metadata().expect("it is open").modified();
                    (file, folder)
                };
                let create = async || drop(File::create(&path).await.expect("it opens"));
                let mut before = when().await;
                let mut record = Record::new();
                for _ in 0..2 {
                    create().await;
                    let now = when().await;
                    let changed = (now.0 != before.0, now.1 != before.1);
                    record.push(Outcome::said(format!("{changed:?}")));
                    before = now;
                }
                record
            })
        },
        &[vec![
            Outcome::said("(true, true)"),
            Outcome::said("(true, false)"),
        ]],
    );
}

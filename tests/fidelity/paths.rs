//! Which paths the scripts of `files` take, what lies there, and how it is opened.

use quoit::fs::OpenOptions;
use tests::Dice;

use crate::compare::Stored;

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    extra: i32,
}

/// What lies there, and what links lead to.
pub(crate) const STORED: [Stored; 13] = [
    Stored::File("greeting", "hello, world"),
    Stored::File("empty", ""),
    Stored::Folder("folder"),
    Stored::File("folder/inner", "deep down"),
    Stored::Folder("folder/deeper"),
    Stored::Link("link", "greeting"),
    Stored::Link("folder/up", "../greeting"),
    Stored::Link("folder/out", "../../elsewhere"),
    Stored::Link("dangling", "made-by-link"),
    Stored::Link("loop", "loop"),
    Stored::Link("to-folder", "folder"),
    Stored::Link("absolute", "/greeting"),
    Stored::Link("chain", "to-folder/up"),
];

pub(crate) const PATHS: [&str; 34] = [
    "greeting",
    "empty",
    "folder",
    "folder/inner",
    "folder/deeper",
    "folder/missing",
    "link",
    "folder/up",
    "folder/out",
    "dangling",
    "loop",
    "to-folder",
    "to-folder/inner",
    "absolute",
    "chain",
    "missing",
    "missing/below",
    "greeting/below",
    "greeting/",
    "greeting/.",
    "greeting/..",
    "folder/",
    "folder/.",
    "folder/..",
    "folder/../greeting",
    "folder/../../x",
    "missing/",
    "dangling/",
    "link/",
    "to-folder/",
    ".",
    "",
    "/",
    LONG,
];

/// A name of 256 letters: one more than names may have.
const LONG: &str = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\
nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\
nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\
nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";

impl Options {
    pub(crate) fn of_the_kernel(self) -> OpenOptions {
        OpenOptions::new()
            .read(self.read)
            .write(self.write)
            .append(self.append)
            .truncate(self.truncate)
            .create(self.create)
            .create_new(self.create_new)
            .custom_flags(self.extra)
    }

    pub(crate) fn drawn(dice: &mut Dice) -> Self {
        let read = Self {
            read: true,
            ..Self::default()
        };
        let both = Self {
            write: true,
            ..read
        };
        let mut drawn = dice.one_of(&[
            read,
            read,
            Self {
                read: false,
                ..both
            },
            both,
            Self {
                create: true,
                ..both
            },
            Self {
                create: true,
                truncate: true,
                ..both
            },
            Self {
                create_new: true,
                ..both
            },
            Self {
                append: true,
                create: true,
                ..read
            },
            Self {
                truncate: true,
                ..both
            },
        ]);
        drawn.extra = match dice.below(16) {
            0 | 1 => libc::O_NOFOLLOW,
            2 | 3 => libc::O_DIRECTORY,
            4 => libc::O_DIRECTORY | libc::O_NOFOLLOW,
            5 => libc::O_TRUNC,
            6 => libc::O_CREAT,
            7 => libc::O_TMPFILE,
            8 => libc::O_PATH,
            9 => libc::O_PATH | libc::O_NOFOLLOW,
            _ => 0,
        };
        drawn
    }
}

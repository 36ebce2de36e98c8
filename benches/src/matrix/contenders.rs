//! Who takes part: programs, found by name. One that is not there is left out, and named.

use std::path::{Path, PathBuf};

use Discipline::{Echo, Http, Micro};
use Role::{Alike, Bare, Limit, Ours, Peer, WithOption};
use Takes::{All, AllBut, Only};

/// What a contender is compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// quoit.
    Ours,
    /// quoit with an option that it does not come with.
    WithOption,
    /// quoit in the form that peers come in, where what it comes as does more.
    Alike,
    /// What a ring written by hand reaches: what the others are held against.
    Limit,
    /// Written by hand as well, without a ring. Nobody writes programs that way, so it is no peer.
    Bare,
    /// Another runtime.
    Peer,
}

impl Role {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::WithOption => "with_option",
            Self::Alike => "alike",
            Self::Limit => "limit",
            Self::Bare => "bare",
            Self::Peer => "peer",
        }
    }
}

/// What a program can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discipline {
    /// It sends back what it receives.
    Echo,
    /// It answers over HTTP.
    Http,
    /// It measures parts of itself.
    Micro,
}

/// A program that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    /// How it is called in what is told.
    pub name: &'static str,
    /// What it is compared as.
    pub role: Role,
    /// Where it is.
    pub program: PathBuf,
    /// What it is told on top of what all are told.
    pub arguments: &'static [&'static str],
    /// Where it takes part.
    pub takes: Takes,
}

/// In which scenarios of its discipline a contender takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// In all.
    All,
    /// In those of these names.
    Only(&'static [&'static str]),
    /// In all but those of these names.
    AllBut(&'static [&'static str]),
}

impl Takes {
    /// Returns whether it takes part in a scenario.
    #[must_use]
    pub fn part_in(self, scenario: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(&scenario),
            Self::AllBut(names) => !names.contains(&scenario),
        }
    }
}

/// Where programs are looked for, in this order.
#[derive(Debug, Clone)]
pub struct Places(Vec<PathBuf>);

impl Places {
    /// quoit's own lie in the first folder, the others in the second, or there too.
    #[must_use]
    pub fn new(ours: PathBuf, comparators: PathBuf) -> Self {
        Self(vec![ours, comparators])
    }

    /// Returns where a program is.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let paths = self.0.iter().map(|folder| folder.join(name));
        paths.into_iter().find(|path| path.is_file())
    }

    /// Returns who takes part in a discipline, and the names of programs that are missing.
    #[must_use]
    pub fn contenders(&self, discipline: Discipline) -> (Vec<Contender>, Vec<&'static str>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for (of, name, role, program, arguments, takes) in KNOWN {
            if of != discipline {
                continue;
            }
            match self.program(program) {
                Some(program) => found.push(Contender {
                    name,
                    role,
                    program,
                    arguments,
                    takes,
                }),
                None => missing.push(program),
            }
        }
        missing.dedup();
        (found, missing)
    }
}

/// Returns where the comparators are built if nobody says otherwise.
#[must_use]
pub fn built_comparators() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("comparators/target/release")
}

type Known = (
    Discipline,
    &'static str,
    Role,
    &'static str,
    &'static [&'static str],
    Takes,
);

/// Of messages that fill a buffer of 4 KiB more than once, the limit is a ring whose buffers are larger.
const LARGE: &[&str] = &["echo-16k"];

#[rustfmt::skip]
const KNOWN: [Known; 22] = [
    (Echo, "quoit", Ours, "echo", &[], All),
    (Echo, "bare ring", Limit, "echo-bare", &[], AllBut(LARGE)),
    (Echo, "bare ring", Limit, "echo-bare", &["--incremental"], Only(LARGE)),
    (Echo, "epoll", Bare, "echo-epoll", &[], All),
    (Echo, "tokio", Peer, "echo-tokio", &[], All),
    (Echo, "tokio mt", Peer, "echo-tokio", &["--multi-thread"], All),
    (Echo, "monoio", Peer, "echo-monoio", &[], All),
    (Echo, "glommio", Peer, "echo-glommio", &[], All),
    (Echo, "compio", Peer, "echo-compio", &[], All),
    // The last one: colours go by the order, and it is seldom there.
    (Echo, "quoit, spinning", WithOption, "echo", &["--spin", "50"], Only(&["echo-c1"])),
    (Http, "quoit", Ours, "http", &[], All),
    // It knows no HTTP/2.
    (Http, "bare ring", Limit, "http-bare", &[], AllBut(&["http2"])),
    (Http, "hyper on tokio", Peer, "http-tokio", &[], All),
    (Http, "hyper on monoio", Peer, "http-monoio", &[], All),
    (Http, "hyper on compio", Peer, "http-compio", &[], All),
    // Without a server around it, whose checks and deadlines, and whose task for each request, peers have none of.
    (Http, "hyper on quoit", Alike, "hyper", &[], All),
    (Micro, "quoit", Ours, "micro", &[], All),
    (Micro, "bare ring", Limit, "micro-bare", &[], All),
    (Micro, "tokio", Peer, "micro-tokio", &[], All),
    (Micro, "monoio", Peer, "micro-monoio", &[], All),
    (Micro, "glommio", Peer, "micro-glommio", &[], All),
    (Micro, "compio", Peer, "micro-compio", &[], All),
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::matrix::html::COLOURS;
    use crate::matrix::scenarios::{Scale, all};

    #[test]
    fn programs_that_are_missing_are_named_once() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("echo"), "").expect("a file");
        let places = Places::new(folder.path().to_owned(), folder.path().join("none"));
        let (found, missing) = places.contenders(Discipline::Echo);
        let found: Vec<_> = found.iter().map(|found| (found.name, found.role)).collect();
        assert_eq!(
            found,
            [("quoit", Role::Ours), ("quoit, spinning", Role::WithOption)]
        );
        assert!(missing.contains(&"echo-bare"), "{missing:?}");
        assert_eq!(
            missing.iter().filter(|name| **name == "echo-tokio").count(),
            1
        );
    }

    #[test]
    fn a_program_may_take_part_in_two_ways() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("echo-tokio"), "").expect("a file");
        let places = Places::new(folder.path().join("none"), folder.path().to_owned());
        let (found, _) = places.contenders(Discipline::Echo);
        let names: Vec<_> = found.iter().map(|contender| contender.name).collect();
        assert_eq!(names, ["tokio", "tokio mt"]);
        assert_eq!(found[1].arguments, ["--multi-thread"]);
    }

    #[test]
    fn there_are_as_many_colours_as_contenders() {
        let mut names: Vec<_> = KNOWN.iter().map(|known| known.1).collect();
        names.sort_unstable();
        names.dedup();
        assert!(names.len() <= COLOURS.len(), "{names:?}");
    }

    #[test]
    fn each_scenario_has_one_limit_at_most_and_each_name_once() {
        for scenario in all(Scale::Full) {
            let taking: Vec<_> = KNOWN
                .iter()
                .filter(|(of, .., takes)| {
                    *of == scenario.discipline() && takes.part_in(&scenario.name)
                })
                .collect();
            let limits = taking.iter().filter(|known| known.2 == Role::Limit);
            assert!(limits.count() <= 1, "{}", scenario.name);
            let mut names: Vec<_> = taking.iter().map(|known| known.1).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), taking.len(), "{}", scenario.name);
        }
    }
}

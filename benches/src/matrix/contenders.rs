//! Who takes part: programs, found by name. One that is not there is left out, and named.

use std::path::{Path, PathBuf};

/// What a contender is compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// quoit.
    Ours,
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
        for (of, name, role, program, arguments) in KNOWN {
            if of != discipline {
                continue;
            }
            match self.program(program) {
                Some(program) => found.push(Contender {
                    name,
                    role,
                    program,
                    arguments,
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
);

const KNOWN: [Known; 16] = [
    (Discipline::Echo, "quoit", Role::Ours, "echo", &[]),
    (Discipline::Echo, "bare ring", Role::Limit, "echo-bare", &[]),
    (Discipline::Echo, "epoll", Role::Bare, "echo-epoll", &[]),
    (Discipline::Echo, "tokio", Role::Peer, "echo-tokio", &[]),
    (
        Discipline::Echo,
        "tokio mt",
        Role::Peer,
        "echo-tokio",
        &["--multi-thread"],
    ),
    (Discipline::Echo, "monoio", Role::Peer, "echo-monoio", &[]),
    (Discipline::Echo, "glommio", Role::Peer, "echo-glommio", &[]),
    (Discipline::Echo, "compio", Role::Peer, "echo-compio", &[]),
    (Discipline::Http, "quoit", Role::Ours, "http", &[]),
    (
        Discipline::Http,
        "hyper on tokio",
        Role::Peer,
        "http-tokio",
        &[],
    ),
    (Discipline::Micro, "quoit", Role::Ours, "micro", &[]),
    (
        Discipline::Micro,
        "bare ring",
        Role::Limit,
        "micro-bare",
        &[],
    ),
    (Discipline::Micro, "tokio", Role::Peer, "micro-tokio", &[]),
    (Discipline::Micro, "monoio", Role::Peer, "micro-monoio", &[]),
    (
        Discipline::Micro,
        "glommio",
        Role::Peer,
        "micro-glommio",
        &[],
    ),
    (Discipline::Micro, "compio", Role::Peer, "micro-compio", &[]),
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn programs_that_are_missing_are_named_once() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("echo"), "").expect("a file");
        let places = Places::new(folder.path().to_owned(), folder.path().join("none"));
        let (found, missing) = places.contenders(Discipline::Echo);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name, found[0].role), ("quoit", Role::Ours));
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
}

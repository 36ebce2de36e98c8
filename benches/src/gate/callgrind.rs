//! Counts what a program does, on a processor made of software: valgrind's callgrind.
//!
//! It counts instructions, which no other load changes, and who called whom how often. Two runs of one scenario, one
//! twice as long as the other, tell what a piece costs: what both do alike drops out.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a program did from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Instructions in user space.
    pub instructions: u64,
    /// Calls of functions that give memory, or more of it.
    pub allocations: u64,
    /// System calls, but for clocks.
    pub system_calls: u64,
    /// Readings of the clock: system calls for valgrind, which has no vDSO.
    pub clock_reads: u64,
}

/// Functions of the C library by which Rust's allocator asks for memory.
const ALLOCATE: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

impl Counted {
    /// Runs a program to its end and counts.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no valgrind; that the program failed, with what it said; a profile that is none.
    pub fn of(program: &Path, arguments: &[&str]) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let profile = folder.path().join("profile");
        // A scenario that waits for a thread would wait for ever here (see the module above); and valgrind holds back
        // all signals but the last one. In the foreground: what ends us from a terminal ends it as well.
        let ran = Command::new("timeout")
            .args(["--foreground", "--signal=KILL", "300", "valgrind"])
            .args([
                "--tool=callgrind",
                "--collect-systime=yes",
                "--compress-strings=no",
                "--compress-pos=no",
            ])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        if !ran.status.success() {
            return Err(io::Error::other(format!(
                "{} {} failed under valgrind, {}:\n{}",
                program.display(),
                arguments.join(" "),
                ran.status,
                String::from_utf8_lossy(&ran.stderr)
            )));
        }
        Self::read(&fs::read_to_string(profile)?)
    }

    /// Reads a profile whose names are written out.
    fn read(profile: &str) -> io::Result<Self> {
        let missing = |what| io::Error::other(format!("callgrind's profile has no {what}"));
        let mut counted = Self::default();
        let (mut events, mut totals, mut called) = (None, None, "");
        for line in profile.lines() {
            if let Some(names) = line.strip_prefix("events:") {
                events = Some(names);
            } else if let Some(numbers) = line.strip_prefix("totals:") {
                totals = Some(numbers);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = name;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let times = calls.split_whitespace().next();
                let times: u64 = times
                    .and_then(|times| times.parse().ok())
                    .ok_or_else(|| missing("number of calls"))?;
                if ALLOCATE.contains(&called) {
                    counted.allocations += times;
                } else if called == "clock_gettime" || called.starts_with("clock_gettime@") {
                    counted.clock_reads += times;
                }
            }
        }
        let events = events.ok_or_else(|| missing("line of events"))?;
        let totals = totals.ok_or_else(|| missing("line of totals"))?;
        let total = |event: &'static str| {
            let mut pairs = events.split_whitespace().zip(totals.split_whitespace());
            let number = pairs.find(|(name, _)| *name == event)?.1;
            number.parse::<u64>().ok()
        };
        counted.instructions = total("Ir").ok_or_else(|| missing("total of Ir"))?;
        let calls = total("sysCount").ok_or_else(|| missing("total of sysCount"))?;
        counted.system_calls = calls.saturating_sub(counted.clock_reads);
        Ok(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
events: Ir sysCount sysTime
fn=quoit::turn
0 12
cob=/lib/libc.so.6
cfn=malloc
calls=3 0
0 99
cfn=clock_gettime
calls=2 0
0 10 2
cfn=malloc
calls=1 0
0 33
cfn=quoit::poll
calls=50 0
0 500
totals: 1000 7 1
";

    #[test]
    fn calls_of_the_allocator_and_of_the_clock_are_told_from_others() {
        let counted = Counted::read(PROFILE).expect("it is a profile");
        let expected = Counted {
            instructions: 1000,
            allocations: 4,
            system_calls: 5,
            clock_reads: 2,
        };
        assert_eq!(counted, expected);
    }

    #[test]
    fn a_profile_that_was_cut_is_an_error() {
        let cut = PROFILE.replace("totals:", "tot");
        let error = Counted::read(&cut).expect_err("it has no totals");
        assert!(error.to_string().contains("no line of totals"), "{error}");
        let odd = PROFILE.replace("Ir", "It");
        let error = Counted::read(&odd).expect_err("it counts something else");
        assert!(error.to_string().contains("no total of Ir"), "{error}");
    }
}

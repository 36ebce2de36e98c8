//! What the kernel says about a process: its time on processors, its wake-ups, its memory.
//!
//! Read from `/proc`, so any process of the same user may be asked about. Figures of threads that have ended are
//! gone with them.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What all threads of a process have used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Time on processors, in user space and in the kernel.
    pub cpu: Duration,
    /// What of it was in user space. The kernel looks which it is at each tick of its clock, and tells hundredths of a
    /// second.
    pub user: Duration,
    /// How often a thread gave up its processor to wait. Each ends with a wake-up.
    pub switches: u64,
}

impl Usage {
    /// Reads the usage of a process.
    ///
    /// # Errors
    ///
    /// Those of `/proc`: the process may be gone.
    pub fn of(process: u32) -> io::Result<Self> {
        Self::of_threads(process).map_err(|error| of_process(process, &error))
    }

    fn of_threads(process: u32) -> io::Result<Self> {
        let mut usage = Self::default();
        let mut lives = false;
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            match Self::of_thread(&task?.path()) {
                Ok(thread) => {
                    usage.cpu += thread.cpu;
                    usage.user += thread.user;
                    usage.switches += thread.switches;
                    lives = true;
                }
                Err(error) if has_ended(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if lives {
            Ok(usage)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn of_thread(task: &Path) -> io::Result<Self> {
        let ticks = ticks(&fs::read_to_string(task.join("stat"))?)
            .ok_or_else(|| io::Error::other("stat has no times"))?;
        let cpu = on_processor(task, ticks)?;
        let status = fs::read_to_string(task.join("status"))?;
        let switches = number(&status, "voluntary_ctxt_switches:")?;
        Ok(Self {
            cpu,
            user: ticks.user * TICK,
            switches,
        })
    }

    /// Returns what was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            user: self.user.saturating_sub(before.user),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// Returns how many bytes of a process are in memory.
///
/// # Errors
///
/// Those of `/proc`: the process may be gone.
pub fn resident(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    let kibi = status.and_then(|status| number(&status, "VmRSS:"));
    Ok(kibi.map_err(|error| of_process(process, &error))? * 1024)
}

/// Says of which process something cannot be told, and whether it is gone.
fn of_process(process: u32, error: &io::Error) -> io::Error {
    let what = if error.kind() == io::ErrorKind::NotFound {
        format!("process {process} is gone")
    } else {
        format!("of process {process}: {error}")
    };
    io::Error::new(error.kind(), what)
}

/// Whether a thread has ended between its listing and its reading: its files are gone, or nobody is behind them.
fn has_ended(error: &io::Error) -> bool {
    const NO_SUCH_PROCESS: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS)
}

fn on_processor(task: &Path, ticks: Ticks) -> io::Result<Duration> {
    // Nanoseconds, where the kernel counts them.
    if let Ok(text) = fs::read_to_string(task.join("schedstat")) {
        let nanos = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok());
        return nanos
            .map(Duration::from_nanos)
            .ok_or_else(|| io::Error::other("schedstat begins with no number"));
    }
    Ok((ticks.user + ticks.system) * TICK)
}

/// Times in units of [`TICK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    user: u32,
    system: u32,
}

/// What `/proc` counts times in, on every machine.
const TICK: Duration = Duration::from_millis(10);

/// Returns the times in a line of `stat`. The name, in parentheses, may hold anything.
fn ticks(stat: &str) -> Option<Ticks> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut times = behind.split_whitespace().skip(11);
    let mut next = || times.next()?.parse().ok();
    Some(Ticks {
        user: next()?,
        system: next()?,
    })
}

/// Returns the number behind a word that begins a line.
fn number(status: &str, word: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(word));
    let first = line.and_then(|line| line.split_whitespace().next());
    first
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("the kernel says no {word}")))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 31 11 0 0 20 0 1 0 5 0 0";
        let told = Ticks {
            user: 31,
            system: 11,
        };
        assert_eq!(ticks(stat), Some(told));
    }

    #[test]
    fn a_process_that_works_uses_time_and_memory() {
        // A process of its own: figures of threads that end, as those of other tests here do, go with them.
        const COUNTS: &str = "echo; i=0; while [ $i -lt 100000000 ]; do i=$((i + 1)); done";
        let mut busy = Command::new("sh")
            .args(["-c", COUNTS])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut said = [0];
        let mut out = busy.stdout.take().expect("a pipe");
        out.read_exact(&mut said).expect("it says that it runs");
        let used = || Usage::of(busy.id()).expect("it runs");
        let before = used();
        while used().since(before).cpu.is_zero() {
            std::thread::yield_now();
        }
        assert!(resident(busy.id()).expect("it runs") > 100_000);
        busy.kill().expect("it runs");
        busy.wait().expect("it is ours");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        // Beyond the largest number that Linux gives.
        let told = "process 4294967295 is gone";
        assert_eq!(Usage::of(u32::MAX).expect_err("none").to_string(), told);
        assert_eq!(resident(u32::MAX).expect_err("none").to_string(), told);
    }
}

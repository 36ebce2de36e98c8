//! What the kernel says of this process: for tests that leave nothing behind.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Kernel;

/// Lets this process have as many descriptors as it may give itself, and returns how many those are. Shells and
/// services begin with 1024, as a rule.
pub fn allow_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    // Where a limit lies above what the kernel gives anybody, the one that there was stays.
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(_) => limit.current,
    };
    allowed.map_or(usize::MAX, |allowed| {
        usize::try_from(allowed).expect("64 bits")
    })
}

/// Returns how many descriptors are open; in a simulation, which itself looks for those that a
/// program leaves behind, none.
pub fn descriptors() -> usize {
    if Kernel::here().is_simulated() {
        return 0;
    }
    // One of them is the folder that is being read.
    fs::read_dir("/proc/self/fd").expect("/proc").count() - 1
}

/// Returns how many threads there are. One that was joined is listed for a moment more, on its way out, and does not
/// count: its `PF_EXITING` is set before a join returns.
pub fn threads() -> usize {
    const PF_EXITING: u32 = 4;
    let tasks = fs::read_dir("/proc/self/task").expect("/proc");
    let stays = |task: &fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // Behind the name, in parentheses: state, five numbers, flags. proc_pid_stat(5)
        let flags = stat
            .rsplit_once(')')
            .and_then(|(_, behind)| behind.split_whitespace().nth(6)?.parse::<u32>().ok());
        flags.is_some_and(|flags| flags & PF_EXITING == 0)
    };
    tasks
        .filter_map(Result::ok)
        .filter(|task| stays(task))
        .count()
}

/// Returns the numbers of this process's children, reaped or not, in order.
pub fn children() -> Vec<u32> {
    let me = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc") {
        let name = entry.expect("/proc").file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if stat(pid).is_some_and(|fields| fields[1] == me.to_string()) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    found
}

/// Returns whether there is such a process that runs: one that was killed and nobody has reaped does not.
pub fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

/// Returns whether there is such a process, reaped or not.
pub fn exists(pid: u32) -> bool {
    stat(pid).is_some()
}

/// Returns what the kernel says of a process, behind its name: its state, parent, group and session.
pub fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name may be anything.
    let text = String::from_utf8_lossy(&stat);
    let (_, behind) = text.rsplit_once(')')?;
    Some(behind.split_whitespace().map(str::to_owned).collect())
}

/// Returns how much memory is resident, in KiB.
pub fn resident_kib() -> u64 {
    field("/proc/self/status", "VmRSS:").expect("every process has memory")
}

/// Returns how much memory is mapped, resident or not, in KiB.
pub fn mapped_kib() -> u64 {
    field("/proc/self/status", "VmSize:").expect("every process has memory")
}

/// Returns how many context switches each thread whose name begins with `name` has made, by thread.
pub fn switches(name: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").expect("/proc") {
        let path = task.expect("/proc").path();
        // A thread that ends meanwhile is none that is waited for.
        let Ok(comm) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        if !comm.starts_with(name) {
            continue;
        }
        let status = path.join("status").display().to_string();
        let voluntary = field(&status, "voluntary_ctxt_switches:");
        let forced = field(&status, "nonvoluntary_ctxt_switches:");
        if let (Some(voluntary), Some(forced)) = (voluntary, forced) {
            found.push((comm.trim().to_owned(), voluntary + forced));
        }
    }
    found.sort();
    found
}

fn field(path: &str, name: &str) -> Option<u64> {
    let status = fs::read_to_string(path).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

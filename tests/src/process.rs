//! What the kernel says of this process: for tests that leave nothing behind.

use std::fs;

use crate::Kernel;

/// Returns how many descriptors are open; in a simulation, which itself looks for those that a
/// program leaves behind, none.
pub fn descriptors() -> usize {
    if Kernel::here().is_simulated() {
        return 0;
    }
    // One of them is the folder that is being read.
    fs::read_dir("/proc/self/fd").expect("/proc").count() - 1
}

/// Returns how many threads there are.
pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("/proc").count()
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

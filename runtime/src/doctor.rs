//! What this machine offers quoit, and what is missing: for `quoit doctor`, and for start-up logs.

use std::fmt;

use crate::config::{BuildError, Cores, processors};
use crate::driver::probe::{RingFeatures, missing_opcodes};
use crate::driver::sys;

/// What was found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// Whether io_uring may be used, and if not, why and what to do.
    pub ring: Result<(), BuildError>,
    /// What of the ring's set-up the kernel has.
    pub features: Vec<Feature>,
    /// Requests that quoit cannot do without and the kernel lacks.
    pub missing_requests: Vec<&'static str>,
    /// The processors this process may use.
    pub processors: Vec<usize>,
    /// How many bytes the process may lock; `None` if it has no limit.
    pub memlock: Option<u64>,
    /// How many descriptors the process may have.
    pub descriptors: Option<u64>,
}

/// One part of the ring's set-up.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Feature {
    /// The kernel's name for it.
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: &'static str,
    /// What it is worth.
    pub worth: &'static str,
    /// Whether it is there.
    pub available: bool,
}

/// Looks.
pub fn examine() -> Report {
    let found = RingFeatures::WANTED.available();
    let features = match &found {
        Ok(features) => features
            .described()
            .into_iter()
            .map(|(name, since, worth, available)| Feature {
                name,
                since,
                worth,
                available,
            })
            .collect(),
        Err(_) => Vec::new(),
    };
    let missing = found
        .map_err(BuildError::ring)
        .and_then(|_| missing_opcodes().map_err(BuildError::ring));
    let (ring, missing_requests) = match missing {
        Ok(missing) => (Ok(()), missing),
        Err(error) => (Err(error), Vec::new()),
    };
    Report {
        kernel: sys::kernel_release(),
        ring,
        features,
        missing_requests,
        processors: processors(&Cores::All).unwrap_or_default(),
        memlock: sys::memlock_limit().filter(|&limit| limit != libc::RLIM_INFINITY),
        descriptors: sys::descriptor_limit(),
    }
}

impl Report {
    /// Returns whether quoit runs here at all.
    pub fn is_usable(&self) -> bool {
        self.ring.is_ok() && self.missing_requests.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "kernel        {} (quoit wants 6.1 or newer)",
            self.kernel
        )?;
        writeln!(f, "processors    {:?}", self.processors)?;
        match self.descriptors {
            Some(limit) => writeln!(
                f,
                "descriptors   {limit} (ulimit -n): one per connection, and a few"
            )?,
            None => writeln!(f, "descriptors   unknown")?,
        }
        match self.memlock {
            Some(limit) => writeln!(
                f,
                "locked memory {} KiB (ulimit -l): rings of processes without privileges count",
                limit / 1024
            )?,
            None => writeln!(f, "locked memory no limit")?,
        }
        if let Err(error) = &self.ring {
            writeln!(f, "io_uring      no")?;
            return write!(f, "\nverdict: quoit cannot run here. {error}");
        }
        writeln!(f, "io_uring      yes")?;
        for feature in &self.features {
            let mark = if feature.available { "yes" } else { "no " };
            writeln!(
                f,
                "  {mark} {:<20} since {:<5} {}",
                feature.name, feature.since, feature.worth
            )?;
        }
        if !self.missing_requests.is_empty() {
            let missing = self.missing_requests.join(", ");
            return write!(
                f,
                "\nverdict: quoit cannot run here. The kernel lacks {missing}: Linux 6.1 or newer is needed"
            );
        }
        let lacking: Vec<&Feature> = self
            .features
            .iter()
            .filter(|feature| !feature.available)
            .collect();
        if lacking.is_empty() {
            return write!(f, "\nverdict: everything quoit uses is here");
        }
        write!(f, "\nverdict: quoit runs here, and does without:")?;
        for Feature {
            name, since, worth, ..
        } in lacking
        {
            write!(f, "\n  {name}: {worth} ")?;
            if numbers(&self.kernel) < numbers(since) {
                write!(f, "(Linux {since} has it)")?;
            } else {
                // Some kernels get it wrong; or something else kept it from being tried, such as a limit.
                write!(f, "(this kernel has it, and it did not work here)")?;
            }
        }
        Ok(())
    }
}

/// The first two numbers of a kernel's release.
fn numbers(release: &str) -> [u32; 2] {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    [(); 2].map(|()| {
        let number = numbers.next().and_then(|number| number.parse().ok());
        number.unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_kernel_would_bring_is_told_from_what_this_one_gets_wrong() {
        for (kernel, told) in [
            ("6.1.0-13-amd64", "(Linux 6.12 has it)"),
            ("6.8.0", "(Linux 6.12 has it)"),
            ("6.12.9", "(this kernel has it, and it did not work here)"),
            (
                "6.18.44-fc",
                "(this kernel has it, and it did not work here)",
            ),
            ("7.0-rc1", "(this kernel has it, and it did not work here)"),
        ] {
            let report = Report {
                kernel: kernel.to_owned(),
                ring: Ok(()),
                features: vec![Feature {
                    name: "incremental buffers",
                    since: "6.12",
                    worth: "large messages cost less",
                    available: false,
                }],
                missing_requests: Vec::new(),
                processors: vec![0],
                memlock: None,
                descriptors: None,
            };
            let line = format!("\n  incremental buffers: large messages cost less {told}");
            assert!(report.to_string().ends_with(&line), "{report}");
        }
    }
}

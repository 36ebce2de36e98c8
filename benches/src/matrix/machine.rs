//! Where it was measured: the processor, the kernel, the versions, the day.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A machine on a day.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What the processor calls itself.
    pub processor: String,
    /// How many processors this program may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// When the measurement began, as HTTP writes it.
    pub date: String,
    /// What was compared, by name.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    /// Looks around. What cannot be found out is left out.
    #[must_use]
    pub fn here(cores: usize) -> Self {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut versions = vec![("quoit".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        if cfg!(debug_assertions) {
            versions.push(("build".to_owned(), "debug".to_owned()));
        }
        versions.extend(said_by(
            "commit",
            "git",
            &[
                "-C",
                env!("CARGO_MANIFEST_DIR"),
                "describe",
                "--always",
                "--dirty",
                "--exclude=*",
            ],
        ));
        versions.extend(said_by("rustc", "rustc", &["--version"]));
        let locked = fs::read_to_string(ours.join("comparators/Cargo.lock")).unwrap_or_default();
        versions.extend(
            PEERS
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), locked_version(&locked, name)?))),
        );
        Self {
            processor: model(&processor)
                .unwrap_or("a processor without a name")
                .to_owned(),
            cores,
            kernel,
            date: httpdate::fmt_http_date(quoit::time::wall_clock()),
            versions,
        }
    }
}

/// Returns the name of the first processor, as x86 or 64-bit ARM kernels tell it.
fn model(processors: &str) -> Option<&str> {
    let named = ["model name", "Model", "CPU part"];
    named.iter().find_map(|field| {
        let lines = processors.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(name, _)| name.trim() == *field);
        Some(values.next()?.1.trim())
    })
}

/// Returns the version of a package in a lock file; of several the newest, which stands last.
fn locked_version(locked: &str, package: &str) -> Option<String> {
    let wanted = format!("name = \"{package}\"");
    let lines: Vec<_> = locked.lines().collect();
    let mut pairs = lines.windows(2).rev();
    let version = pairs.find(|pair| pair[0] == wanted)?[1].strip_prefix("version = \"")?;
    Some(version.trim_end_matches('"').to_owned())
}

fn said_by(name: &str, program: &str, arguments: &[&str]) -> Option<(String, String)> {
    let said = Command::new(program).args(arguments).output().ok()?;
    let line = String::from_utf8(said.stdout).ok()?;
    let line = line.trim().trim_start_matches("rustc ");
    (said.status.success() && !line.is_empty()).then(|| (name.to_owned(), line.to_owned()))
}

/// Whose versions are told.
const PEERS: [&str; 6] = ["tokio", "monoio", "glommio", "compio", "hyper", "io-uring"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_that_of_the_package_itself() {
        let locked = "[[package]]\nname = \"tokio-util\"\nversion = \"0.7.1\"\n\n[[package]]\nname = \"tokio\"\nversion = \"1.52.0\"\n";
        assert_eq!(locked_version(locked, "tokio").as_deref(), Some("1.52.0"));
        assert_eq!(locked_version(locked, "monoio"), None);
        let two = "name = \"io-uring\"\nversion = \"0.6.4\"\n\nname = \"io-uring\"\nversion = \"0.7.15\"\n";
        assert_eq!(locked_version(two, "io-uring").as_deref(), Some("0.7.15"));
    }

    #[test]
    fn the_first_processor_names_the_machine() {
        let told =
            "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\nmodel name\t: another\n";
        assert_eq!(model(told), Some("AMD EPYC"));
        assert_eq!(model("processor : 0"), None);
    }

    #[test]
    fn there_is_a_machine_here() {
        let machine = Machine::here(2);
        assert!(machine.kernel.contains('.'), "{machine:?}");
        assert!(machine.date.ends_with("GMT"), "{machine:?}");
    }
}

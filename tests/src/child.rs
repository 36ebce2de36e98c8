//! Tests that need a process of their own: they run themselves again.

use std::env;
use std::process::Command;

/// Which test a process was started for.
const STARTED_FOR: &str = "QUOIT_TEST_CHILD";

/// How a test's own process shall be.
#[derive(Debug, Clone, Default)]
pub struct Child {
    wrapper: Vec<String>,
    program: Option<std::path::PathBuf>,
}

impl Child {
    /// A plain process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a command in front, which starts what follows it: `["taskset", "-c", "0"]`.
    #[must_use]
    pub fn under<S: Into<String>>(mut self, wrapper: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Starts this copy of the test binary.
    #[must_use]
    pub fn program(mut self, program: std::path::PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// Runs `body` in such a process: `test` is the name of the calling test, with its module.
    ///
    /// # Panics
    ///
    /// If the process fails, with what it said.
    pub fn run(self, test: &str, body: impl FnOnce()) {
        if env::var(STARTED_FOR).is_ok_and(|name| name == test) {
            body();
            return;
        }
        let program = self
            .program
            .unwrap_or_else(|| env::current_exe().expect("this program has a path"));
        let mut words = self.wrapper;
        words.push(program.display().to_string());
        let output = Command::new(&words[0])
            .args(&words[1..])
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(STARTED_FOR, test)
            .output()
            .unwrap_or_else(|error| panic!("{} could not be started: {error}", words[0]));
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.status.success(),
            "the process of {test} failed ({}):\n{said}",
            output.status
        );
        assert!(said.contains("1 passed"), "{test} is not its name:\n{said}");
    }
}

/// Runs `body` in a process of its own, where no other test opens descriptors or starts threads.
///
/// # Panics
///
/// If it fails there.
pub fn in_child(test: &str, body: impl FnOnce()) {
    Child::new().run(test, body);
}

//! How a runtime shall be, and the one check of it.

use std::error::Error;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::blocking::threads::{PoolOwner, affinity_of_the_host};
use crate::driver::probe::RingFeatures;
use crate::driver::{refusal, sys};
use crate::process::guardian::Guardian;
use crate::runtime::Handle;

/// Which processors a runtime uses: a pinned thread for each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cores {
    /// All that the process may use (`taskset`, cgroup).
    All,
    /// The first so many of them.
    Count(usize),
    /// These, by the kernel's numbers.
    List(Vec<usize>),
}

/// The text names no set of processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseCoresError(String);

impl fmt::Display for ParseCoresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} names no cores: write all, or a list such as 0,2-3",
            self.0
        )
    }
}

impl Error for ParseCoresError {}

/// Reads `all`, or a list of numbers and ranges such as `0,2-3`.
impl FromStr for Cores {
    type Err = ParseCoresError;

    fn from_str(text: &str) -> Result<Self, ParseCoresError> {
        if text == "all" {
            return Ok(Self::All);
        }
        let wrong = || ParseCoresError(text.to_owned());
        let number = |part: &str| {
            part.trim()
                .parse::<usize>()
                .ok()
                .filter(|&cpu| cpu < MAX_CPU)
        };
        let mut list = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (
                number(first).ok_or_else(wrong)?,
                number(last).ok_or_else(wrong)?,
            );
            if first > last {
                return Err(wrong());
            }
            list.extend(first..=last);
        }
        Ok(Self::List(list))
    }
}

/// Who waits longer than this for the next piece of work is idle.
const LONGEST_SPIN: Duration = Duration::from_secs(1);

/// The kernel has no larger completion queue (`IORING_MAX_CQ_ENTRIES`).
const MOST_COMPLETIONS: u32 = 65_536;

/// More processors than any kernel has.
const MAX_CPU: usize = 1 << 16;

/// Says how a runtime shall be.
///
/// ```
/// use quoit::{Cores, Runtime};
///
/// Runtime::builder()
///     .cores(Cores::All)
///     .build()?
///     .run(|core| async move {
///         println!("core {core} is up");
///         Ok::<_, std::io::Error>(())
///     })?;
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    pub(crate) cores: Option<Cores>,
    submission_entries: u32,
    completion_entries: Option<u32>,
    receive_buffers: Option<(u16, u32)>,
    mailbox_capacity: usize,
    blocking_threads: usize,
    pub(crate) grace_period: Duration,
    spin_before_park: Duration,
    features: RingFeatures,
}

/// What each core needs to know.
#[derive(Debug, Clone)]
pub(crate) struct CoreConfig {
    pub(crate) submission_entries: u32,
    pub(crate) completion_entries: u32,
    pub(crate) receive_buffers: (u16, u32),
    pub(crate) mailbox_capacity: usize,
    pub(crate) spin_before_park: Duration,
    pub(crate) features: RingFeatures,
    /// The threads that all cores share; none of them is started.
    pub(crate) blocking: Arc<PoolOwner>,
    /// Who ends the children if this process is killed.
    pub(crate) guardian: Arc<Guardian>,
    /// To be filled when all cores are there.
    pub(crate) runtime: Arc<OnceLock<Handle>>,
}

/// Something of the ring's set-up that can be left out; see [`Builder::without`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingFeature {
    /// `IORING_SETUP_SUBMIT_ALL`.
    SubmitAll,
    /// `IORING_SETUP_SINGLE_ISSUER`, and with it `DEFER_TASKRUN`.
    SingleIssuer,
    /// `IORING_SETUP_DEFER_TASKRUN`, and with it `TASKRUN_FLAG`.
    DeferTaskrun,
    /// `IORING_SETUP_TASKRUN_FLAG`.
    TaskrunFlag,
    /// `IORING_SETUP_NO_SQARRAY`.
    NoSqarray,
    /// The registered descriptor of the ring.
    RegisteredRing,
    /// `IORING_ENTER_ABS_TIMER`.
    AbsoluteTimeout,
    /// `IORING_ENTER_NO_IOWAIT`.
    NoIowait,
    /// `IOU_PBUF_RING_INC`.
    IncrementalBuffers,
}

impl RingFeature {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::SubmitAll,
        Self::SingleIssuer,
        Self::DeferTaskrun,
        Self::TaskrunFlag,
        Self::NoSqarray,
        Self::RegisteredRing,
        Self::AbsoluteTimeout,
        Self::NoIowait,
        Self::IncrementalBuffers,
    ];
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            cores: None,
            submission_entries: 256,
            completion_entries: None,
            receive_buffers: None,
            mailbox_capacity: 1024,
            blocking_threads: 512,
            grace_period: Duration::from_secs(5),
            spin_before_park: Duration::ZERO,
            features: RingFeatures::WANTED,
        }
    }
}

impl Builder {
    /// Which processors to use. Default: all that the process may use; for `block_on`, the calling
    /// thread as it is, not pinned.
    #[must_use]
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = Some(cores);
        self
    }

    /// Room for requests between two entries into the kernel, per core: a power of two, 8 to
    /// 32 768. Default 256. More requests than fit wait in line, none is lost.
    #[must_use]
    pub fn submission_entries(mut self, entries: u32) -> Self {
        self.submission_entries = entries;
        self
    }

    /// Room for completions, per core: a power of two, at least the submission entries and at most
    /// 65 536. Default sixteen times the submission entries, as far as that goes, since one request may
    /// complete often. What does not fit is kept by the kernel, none is lost.
    ///
    /// The kernel also sizes by it the table in which it looks for an op that it is to cancel: a list
    /// for every 32 entries, 256 lists at most (Linux 6.18). Who cancels tens of thousands of waiting
    /// ops at once gains from 8192.
    #[must_use]
    pub fn completion_entries(mut self, entries: u32) -> Self {
        self.completion_entries = Some(entries);
        self
    }

    /// Buffers that the kernel receives into, per core: how many (a power of two, 4 to 32 768) and
    /// of how many bytes (512 to 1 MiB). Default 16 of 128 KiB where the kernel fills them piece by
    /// piece (6.12), else 256 of 8 KiB.
    #[must_use]
    pub fn receive_buffers(mut self, count: u16, size: u32) -> Self {
        self.receive_buffers = Some((count, size));
        self
    }

    /// How many closures may be on their way to a core. Default 1024. A full mailbox gives the
    /// closure back.
    #[must_use]
    pub fn mailbox_capacity(mut self, closures: usize) -> Self {
        self.mailbox_capacity = closures;
        self
    }

    /// How many threads may run [blocking jobs](crate::blocking) at a time, over all cores: 1 to
    /// 65 536. Default 512, since a job that waits for something takes a thread and little else.
    /// They are started when there is a job for them, and leave when there was none for 10 s. Jobs
    /// that find no thread stand in line.
    #[must_use]
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads;
        self
    }

    /// How long tasks may take to end when the runtime stops: they are cancelled first, and dropped
    /// after this. Default 5 s.
    #[must_use]
    pub fn grace_period(mut self, grace: Duration) -> Self {
        self.grace_period = grace;
        self
    }

    /// For how long a core with nothing to do looks on before it parks: up to a second; tens of
    /// microseconds are usual. Default zero: it parks at once.
    ///
    /// It looks at memory alone, for what the kernel and other cores write there, and nobody has to wake
    /// it: an answer that comes meanwhile is seen within a microsecond, where a parked core takes ten and
    /// more. The price is its processor's time, which is not there for others, nor is it counted as
    /// [parked](crate::metrics::CoreSnapshot::parked); so it is for cores with a processor each.
    ///
    /// A core spins while it pays: while at least half of its waits, each counting less with every one
    /// that follows, end within this time. Where they do not it tries again after 16 parks, 32, and so on,
    /// up to 4096, and goes on when a try finds something, or when its parks are that short. An idle core
    /// spins a few times more and then stays parked. The counters `spins`, `spin_hits` and `spin_nanos`
    /// tell what came of it.
    ///
    /// There is no spinning in a simulation, nor on a ring that does not tell of deferred work
    /// ([`RingFeature::TaskrunFlag`]).
    #[must_use]
    pub fn spin_before_park(mut self, limit: Duration) -> Self {
        self.spin_before_park = limit;
        self
    }

    /// Does without something that the kernel offers: to see what it is worth, or around a bug.
    /// What the kernel lacks is left out by itself.
    #[must_use]
    pub fn without(mut self, feature: RingFeature) -> Self {
        let features = &mut self.features;
        let flag = match feature {
            RingFeature::SubmitAll => &mut features.submit_all,
            RingFeature::SingleIssuer => &mut features.single_issuer,
            RingFeature::DeferTaskrun => &mut features.defer_taskrun,
            RingFeature::TaskrunFlag => &mut features.taskrun_flag,
            RingFeature::NoSqarray => &mut features.no_sqarray,
            RingFeature::RegisteredRing => &mut features.registered_ring,
            RingFeature::AbsoluteTimeout => &mut features.absolute_timeout,
            RingFeature::NoIowait => &mut features.no_iowait,
            RingFeature::IncrementalBuffers => &mut features.incremental_buffers,
        };
        *flag = false;
        self
    }

    /// Checks everything, once, and asks the kernel what it has.
    pub(crate) fn check(&self) -> Result<CoreConfig, BuildError> {
        let power = |field, value: u32, least: u32, most: u32| {
            if value.is_power_of_two() && (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(BuildError::Config {
                    field,
                    value: u64::from(value),
                    rule: format!("a power of two from {least} to {most}"),
                })
            }
        };
        power("submission_entries", self.submission_entries, 8, 32_768)?;
        let completion_entries = self
            .completion_entries
            .unwrap_or((self.submission_entries * 16).min(MOST_COMPLETIONS));
        power(
            "completion_entries",
            completion_entries,
            self.submission_entries,
            MOST_COMPLETIONS,
        )?;
        if let Some((count, size)) = self.receive_buffers {
            power("receive_buffers (count)", u32::from(count), 4, 32_768)?;
            if !(512..=1 << 20).contains(&size) {
                return Err(BuildError::Config {
                    field: "receive_buffers (size)",
                    value: u64::from(size),
                    rule: "from 512 to 1048576 bytes".to_owned(),
                });
            }
        }
        if !(1..=1 << 20).contains(&self.mailbox_capacity) {
            return Err(BuildError::Config {
                field: "mailbox_capacity",
                value: self.mailbox_capacity as u64,
                rule: "from 1 to 1048576".to_owned(),
            });
        }
        if !(1..=1 << 16).contains(&self.blocking_threads) {
            return Err(BuildError::Config {
                field: "blocking_threads",
                value: self.blocking_threads as u64,
                rule: "from 1 to 65536".to_owned(),
            });
        }
        if self.spin_before_park > LONGEST_SPIN {
            // Rounded up: what is too long by less than one is too long.
            let micros = self.spin_before_park.as_nanos().div_ceil(1000);
            return Err(BuildError::Config {
                field: "spin_before_park (microseconds)",
                value: u64::try_from(micros).unwrap_or(u64::MAX),
                rule: format!("at most {}", LONGEST_SPIN.as_micros()),
            });
        }
        let features = self.features().map_err(BuildError::ring)?;
        let default_buffers = if features.incremental_buffers {
            (16, 128 * 1024)
        } else {
            (256, 8 * 1024)
        };
        Ok(CoreConfig {
            submission_entries: self.submission_entries,
            completion_entries,
            receive_buffers: self.receive_buffers.unwrap_or(default_buffers),
            mailbox_capacity: self.mailbox_capacity,
            spin_before_park: self.spin_before_park,
            features,
            blocking: Arc::new(PoolOwner::new(self.blocking_threads)),
            guardian: Arc::default(),
            runtime: Arc::default(),
        })
    }

    /// Returns what of the wanted features there is.
    fn features(&self) -> io::Result<RingFeatures> {
        #[cfg(feature = "sim")]
        if crate::sim::is_running() {
            // The simulated kernel has them all; whether buffers are filled piece by piece it says
            // when they are registered.
            return Ok(self.features);
        }
        self.features.available()
    }

    /// Resolves the cores to processors.
    pub(crate) fn processors(&self) -> Result<Vec<usize>, BuildError> {
        processors(self.cores.as_ref().unwrap_or(&Cores::All))
    }
}

/// Resolves cores to processors, each of them one that the process may use.
pub(crate) fn processors(cores: &Cores) -> Result<Vec<usize>, BuildError> {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        let count = match cores {
            Cores::All => world.default_cores(),
            Cores::Count(count) => *count,
            Cores::List(list) => list.len(),
        };
        if count == 0 {
            return Err(BuildError::Cores("no core at all was asked for".to_owned()));
        }
        return Ok((0..count).collect());
    }
    let allowed = affinity_of_the_host().map_or_else(Vec::new, |set| set.processors());
    let chosen = match cores {
        Cores::All => allowed,
        Cores::Count(count) if *count > allowed.len() => {
            return Err(BuildError::Cores(format!(
                "{count} cores were asked for, and this process may use {}",
                allowed.len()
            )));
        }
        Cores::Count(count) => allowed[..*count].to_vec(),
        Cores::List(list) => {
            for (place, cpu) in list.iter().enumerate() {
                if !allowed.contains(cpu) {
                    return Err(BuildError::Cores(format!(
                        "core {cpu} is not among those this process may use: {allowed:?}"
                    )));
                }
                if list[..place].contains(cpu) {
                    return Err(BuildError::Cores(format!("core {cpu} is named twice")));
                }
            }
            list.clone()
        }
    };
    if chosen.is_empty() {
        return Err(BuildError::Cores("no core at all was asked for".to_owned()));
    }
    Ok(chosen)
}

/// Why a runtime could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting lies outside its limits.
    Config {
        /// Which.
        field: &'static str,
        /// What it was set to.
        value: u64,
        /// What it may be.
        rule: String,
    },
    /// The cores that were asked for are not there, or the process has as many as it may have.
    Cores(String),
    /// The kernel refused io_uring.
    Ring {
        /// What it said.
        error: io::Error,
        /// What to do about it.
        remedy: String,
    },
    /// A thread could not be started or pinned.
    Thread(io::Error),
}

impl BuildError {
    /// Explains a refusal of the kernel. One of ours, that there are too many cores, speaks for itself.
    pub(crate) fn ring(error: io::Error) -> Self {
        if error.raw_os_error().is_none() {
            return Self::Cores(error.to_string());
        }
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        let remedy = refusal::remedy(&error, disabled.as_deref(), sys::memlock_limit());
        Self::Ring { error, remedy }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { field, value, rule } => {
                write!(f, "{field} is {value}, but must be {rule}")
            }
            Self::Cores(what) => f.write_str(what),
            Self::Ring { error, remedy } => {
                write!(f, "the kernel refused io_uring ({error}): {remedy}")
            }
            Self::Thread(error) => write!(f, "a core's thread could not be started: {error}"),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Ring { error, .. } | Self::Thread(error) => Some(error),
            Self::Config { .. } | Self::Cores(_) => None,
        }
    }
}

impl From<BuildError> for io::Error {
    fn from(error: BuildError) -> Self {
        let kind = match &error {
            BuildError::Config { .. } | BuildError::Cores(_) => io::ErrorKind::InvalidInput,
            BuildError::Ring { error, .. } | BuildError::Thread(error) => error.kind(),
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!("all".parse(), Ok(Cores::All));
        assert_eq!("0".parse(), Ok(Cores::List(vec![0])));
        assert_eq!("0,2-4".parse(), Ok(Cores::List(vec![0, 2, 3, 4])));
        for wrong in ["", "x", "3-1", "1,,2", "-1", "0-99999999999", "70000"] {
            assert!(wrong.parse::<Cores>().is_err(), "{wrong:?} was read");
        }
    }

    #[test]
    fn each_setting_names_itself_and_its_limits() {
        let message = |builder: Builder| builder.check().expect_err("out of limits").to_string();
        assert_eq!(
            message(Builder::default().submission_entries(100)),
            "submission_entries is 100, but must be a power of two from 8 to 32768"
        );
        assert_eq!(
            message(Builder::default().completion_entries(128)),
            "completion_entries is 128, but must be a power of two from 256 to 65536"
        );
        assert!(message(Builder::default().completion_entries(1 << 17)).contains("to 65536"));
        assert!(message(Builder::default().receive_buffers(3, 4096)).contains("(count) is 3"));
        assert!(message(Builder::default().receive_buffers(4, 100)).contains("(size) is 100"));
        assert!(message(Builder::default().blocking_threads(0)).contains("from 1 to 65536"));
        assert!(message(Builder::default().mailbox_capacity(0)).contains("mailbox_capacity is 0"));
        let long = LONGEST_SPIN + Duration::from_nanos(1);
        assert!(message(Builder::default().spin_before_park(long)).contains("is 1000001, but"));
    }

    #[test]
    fn what_the_kernel_has_not_said_is_no_refusal_of_it() {
        let error = BuildError::ring(io::Error::other("a process has so many cores"));
        assert!(matches!(error, BuildError::Cores(_)), "{error:?}");
        assert_eq!(error.to_string(), "a process has so many cores");
        let refused = BuildError::ring(io::Error::from_raw_os_error(libc::EPERM));
        assert!(matches!(refused, BuildError::Ring { .. }), "{refused:?}");
    }

    #[test]
    fn cores_that_are_not_there_are_named() {
        let message = |cores| {
            Builder::default()
                .cores(cores)
                .processors()
                .expect_err("not there")
                .to_string()
        };
        assert!(message(Cores::List(vec![4_000])).contains("core 4000 is not among"));
        assert!(message(Cores::Count(100_000)).contains("100000 cores were asked for"));
        assert!(message(Cores::List(Vec::new())).contains("no core"));
        assert!(message(Cores::List(vec![0, 0])).contains("twice") || !allowed_has_zero());
    }

    fn allowed_has_zero() -> bool {
        processors(&Cores::All).is_ok_and(|all| all.contains(&0))
    }
}

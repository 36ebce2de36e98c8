//! Histograms over time, in the log format that HdrHistogram's tools read.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use super::snapshot::{CoreSnapshot, Latency, Snapshot};

/// Writes the histograms of snapshots to a log, as HdrHistogram's: a line for each interval, core and
/// histogram that has seen something, in nanoseconds.
///
/// Tags say which is which: `core0.poll`, `core1.op.send`; a label's spaces become dashes. The merge
/// over cores is left to the reader.
///
/// ```
/// use std::time::SystemTime;
/// use quoit::Runtime;
/// use quoit::metrics::HdrLog;
///
/// let runtime = Runtime::builder().build()?;
/// let cores = runtime.handle();
/// let mut file = Vec::new();
/// let mut log = HdrLog::begin(&mut file, SystemTime::UNIX_EPOCH, cores.snapshot())?;
/// // … once a second …
/// log.write(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1), cores.snapshot())?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct HdrLog<W> {
    to: W,
    serializer: V2DeflateSerializer,
    base: SystemTime,
    /// When the interval began that is written next, from `base`.
    at: Duration,
    before: Snapshot,
}

impl<W: Write> HdrLog<W> {
    /// Writes the head of a log whose first interval begins `now`, with this snapshot.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn begin(mut to: W, now: SystemTime, snapshot: Snapshot) -> io::Result<Self> {
        let mut serializer = V2DeflateSerializer::new();
        IntervalLogWriterBuilder::new()
            .add_comment("[Latencies of quoit, in nanoseconds]")
            .add_comment("[Histogram log format version 1.3]")
            .with_start_time(now)
            .with_base_time(now)
            .begin_log_with(&mut to, &mut serializer)?;
        writeln!(
            to,
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
        )?;
        Ok(Self {
            to,
            serializer,
            base: now,
            at: Duration::ZERO,
            before: snapshot,
        })
    }

    /// Writes what came since the last snapshot, in the interval that ends `now`. A clock that was set
    /// back makes an interval of no length.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(&mut self, now: SystemTime, snapshot: Snapshot) -> io::Result<()> {
        let at = now
            .duration_since(self.base)
            .unwrap_or(self.at)
            .max(self.at);
        let length = at - self.at;
        let mut writer =
            IntervalLogWriterBuilder::new().begin_log_with(&mut self.to, &mut self.serializer)?;
        for core in &snapshot.cores {
            let before = self.before.cores.iter().find(|old| old.core == core.core);
            for latency in &core.latencies {
                let label = latency.label.as_ref().map(|(_, value)| &**value);
                let earlier = before.and_then(|old| old.latency(&latency.name, label));
                let histogram = match earlier {
                    Some(earlier) => latency.histogram.since(earlier),
                    None => latency.histogram.clone(),
                };
                if histogram.is_empty() {
                    continue;
                }
                let tag = tag(core, latency);
                let tag = Tag::new(&tag).expect("no comma, no space and no line end");
                writer
                    .write_histogram(&histogram.to_hdr(), self.at, length, Some(tag))
                    .map_err(|error| match error {
                        IntervalLogWriterError::IoError(error) => error,
                        IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
                    })?;
            }
        }
        (self.at, self.before) = (at, snapshot);
        self.to.flush()
    }

    /// Returns the writer.
    pub fn into_inner(self) -> W {
        self.to
    }
}

fn tag(core: &CoreSnapshot, latency: &Latency) -> String {
    let mut tag = format!("core{}.{}", core.core, latency.name);
    if let Some((_, value)) = &latency.label {
        tag.push('.');
        tag.push_str(value);
    }
    tag.replace(
        |c: char| c == ',' || c.is_whitespace() || c.is_control(),
        "-",
    )
}

impl<W> fmt::Debug for HdrLog<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HdrLog")
            .field("base", &self.base)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::metrics::Recorder;

    fn snapshot(histogram: crate::metrics::Histogram) -> Snapshot {
        let latency = Latency::new("op", "How long.", histogram).label("op", "zero-copy send, x");
        let core = CoreSnapshot {
            core: 3,
            uptime: Duration::ZERO,
            parked: Duration::ZERO,
            counts: Vec::new(),
            latencies: vec![latency],
        };
        Snapshot { cores: vec![core] }
    }

    #[test]
    fn a_log_reads_back_as_what_was_recorded_in_each_interval() {
        let (recorder, reader) = Recorder::new();
        recorder.record(Duration::from_secs(1));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut log = HdrLog::begin(Vec::new(), start, snapshot(reader.read())).unwrap();
        for _ in 0..3 {
            recorder.record(Duration::from_micros(50));
        }
        log.write(after(2), snapshot(reader.read())).unwrap();
        // Nothing came: no line.
        log.write(after(3), snapshot(reader.read())).unwrap();
        recorder.record(Duration::from_millis(7));
        log.write(after(5), snapshot(reader.read())).unwrap();

        let text = log.into_inner();
        let mut intervals = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            if let LogEntry::Interval(line) = entry.unwrap() {
                let coded = base64_of(line.encoded_histogram());
                let read: Histogram<u64> = Deserializer::new().deserialize(&mut &*coded).unwrap();
                let tag = line.tag().map(|tag| tag.as_str().to_owned());
                let time = (line.start_timestamp(), line.duration());
                intervals.push((tag, time, read.len(), read.max()));
            }
        }
        let tag = Some("core3.op.zero-copy-send--x".to_owned());
        let seconds = Duration::from_secs;
        assert_eq!(intervals.len(), 2);
        assert_eq!(intervals[0].0, tag);
        assert_eq!(intervals[0].1, (seconds(0), seconds(2)));
        assert_eq!(intervals[0].2, 3);
        assert!((50_000..50_500).contains(&intervals[0].3), "{intervals:?}");
        assert_eq!(intervals[1].1, (seconds(3), seconds(2)));
        assert_eq!(intervals[1].2, 1);
    }

    /// RFC 4648: the tools write it so, and the library leaves reading it to others.
    fn base64_of(text: &str) -> Vec<u8> {
        let value = |c: u8| match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let digits: Vec<u8> = text.bytes().filter(|&c| c != b'=').map(value).collect();
        let mut bytes = Vec::new();
        for four in digits.chunks(4) {
            let bits = four
                .iter()
                .fold(0_u32, |bits, &digit| bits << 6 | u32::from(digit));
            let bits = bits << (6 * (4 - four.len()));
            bytes.extend(&bits.to_be_bytes()[1..four.len()]);
        }
        bytes
    }
}

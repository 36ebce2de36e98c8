//! A snapshot as text: for Prometheus and all who read its format, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::json::{list, object};
use super::snapshot::{CoreSnapshot, Count, CountKind, Latency, Snapshot};

/// The upper ends of the buckets that a scraper gets, in nanoseconds: 1, 2 and 5 of each decade from
/// a microsecond to ten seconds. A scraper keeps a series for each.
const BOUNDS: [u64; 22] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

impl Snapshot {
    /// Returns all of it in the text format of Prometheus, version 0.0.4.
    ///
    /// Each name begins with `quoit_`, each line has its core as a label. Counters end in `_total`;
    /// histograms are in seconds, with buckets of 1, 2 and 5 per decade from a microsecond to ten
    /// seconds, right to within 0.8 %. Histograms that have seen nothing are left out.
    pub fn to_prometheus(&self) -> String {
        let mut families = Families::default();
        for core in &self.cores {
            families.add_core(core);
        }
        families.text()
    }

    /// Returns all of it as JSON, on one line.
    ///
    /// `{"cores": [{"core", "uptime_ns", "parked_ns", "counts": [..], "latencies": [..]}]}`. A count
    /// is `{"name", "label", "kind", "value"}`, its label `null` or a word; a latency is `{"name",
    /// "label", "count", "sum_ns", "max_ns", "buckets"}`, whose buckets are pairs of the largest value
    /// in nanoseconds and how many values there are, the smallest first, and none that is empty.
    pub fn to_json(&self) -> String {
        let cores = self.cores.iter().map(|core| {
            object(|o| {
                o.number("core", core.core);
                o.nanos("uptime_ns", Some(core.uptime));
                o.nanos("parked_ns", Some(core.parked));
                o.raw("counts", &list(core.counts.iter().map(count_json)));
                o.raw("latencies", &list(core.latencies.iter().map(latency_json)));
            })
        });
        object(|o| o.raw("cores", &list(cores)))
    }
}

fn count_json(count: &Count) -> String {
    object(|o| {
        o.words("name", Some(&count.name));
        o.words("label", count.label.as_ref().map(|(_, value)| &**value));
        let kind = match count.kind {
            CountKind::Counter => "counter",
            CountKind::Gauge => "gauge",
        };
        o.words("kind", Some(kind));
        o.number("value", count.value);
    })
}

fn latency_json(latency: &Latency) -> String {
    let histogram = &latency.histogram;
    object(|o| {
        o.words("name", Some(&latency.name));
        o.words("label", latency.label.as_ref().map(|(_, value)| &**value));
        o.number("count", histogram.count());
        o.nanos("sum_ns", Some(histogram.sum()));
        o.nanos("max_ns", Some(histogram.max()));
        let pair = |bucket: super::Bucket| format!("[{},{}]", bucket.to.as_nanos(), bucket.count);
        o.raw("buckets", &list(histogram.buckets().map(pair)));
    })
}

/// What belongs together in the text, whichever core it is of: a name's lines must stand in one group.
#[derive(Default)]
struct Families<'a>(BTreeMap<String, Family<'a>>);

struct Family<'a> {
    help: &'a str,
    kind: &'static str,
    lines: String,
}

impl<'a> Families<'a> {
    fn add_core(&mut self, core: &'a CoreSnapshot) {
        self.seconds(
            "uptime_seconds",
            "How long the core has been there.",
            "gauge",
            core.uptime,
            core,
        );
        let help = "How long the core was parked, with nothing to do.";
        self.seconds("parked_seconds_total", help, "counter", core.parked, core);
        for count in &core.counts {
            let (kind, end) = match count.kind {
                CountKind::Counter => ("counter", "_total"),
                CountKind::Gauge => ("gauge", ""),
            };
            let name = format!("quoit_{}{end}", count.name);
            let labels = labels(core, count.label.as_ref(), None);
            let lines = self.lines(&name, &count.help, kind);
            let _ = writeln!(lines, "{name}{labels} {}", count.value);
        }
        for latency in &core.latencies {
            if !latency.histogram.is_empty() {
                self.add_latency(core, latency);
            }
        }
    }

    fn seconds(
        &mut self,
        name: &str,
        help: &'a str,
        kind: &'static str,
        value: Duration,
        core: &CoreSnapshot,
    ) {
        let name = format!("quoit_{name}");
        let labels = labels(core, None, None);
        let lines = self.lines(&name, help, kind);
        let _ = writeln!(lines, "{name}{labels} {}", value.as_secs_f64());
    }

    fn add_latency(&mut self, core: &CoreSnapshot, latency: &'a Latency) {
        let name = format!("quoit_{}_seconds", latency.name);
        let histogram = &latency.histogram;
        let label = latency.label.as_ref();
        let lines = self.lines(&name, &latency.help, "histogram");
        for bound in BOUNDS.map(Duration::from_nanos) {
            let labels = labels(core, label, Some(&bound.as_secs_f64().to_string()));
            let _ = writeln!(lines, "{name}_bucket{labels} {}", histogram.count_to(bound));
        }
        let count = histogram.count();
        let all = labels(core, label, Some("+Inf"));
        let _ = writeln!(lines, "{name}_bucket{all} {count}");
        let labels = labels(core, label, None);
        let sum = histogram.sum().as_secs_f64();
        let _ = writeln!(lines, "{name}_sum{labels} {sum}");
        let _ = writeln!(lines, "{name}_count{labels} {count}");
    }

    fn lines(&mut self, name: &str, help: &'a str, kind: &'static str) -> &mut String {
        let family = self.0.entry(name.to_owned()).or_insert(Family {
            help,
            kind,
            lines: String::new(),
        });
        &mut family.lines
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.0 {
            let help = family.help.trim().replace('\\', "\\\\").replace('\n', " ");
            let _ = writeln!(text, "# HELP {name} {help}");
            let _ = writeln!(text, "# TYPE {name} {}", family.kind);
            text.push_str(&family.lines);
        }
        text
    }
}

fn labels(
    core: &CoreSnapshot,
    label: Option<&(&'static str, std::borrow::Cow<'static, str>)>,
    le: Option<&str>,
) -> String {
    let mut labels = format!("{{core=\"{}\"", core.core);
    if let Some((name, value)) = label {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = write!(labels, ",{name}=\"{value}\"");
    }
    if let Some(le) = le {
        let _ = write!(labels, ",le=\"{le}\"");
    }
    labels.push('}');
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Recorder;

    fn snapshot() -> Snapshot {
        let (recorder, reader) = Recorder::new();
        recorder.record(Duration::from_micros(3));
        recorder.record(Duration::from_millis(30));
        let core = |core| CoreSnapshot {
            core,
            uptime: Duration::from_secs(10),
            parked: Duration::from_millis(2_500),
            counts: vec![
                Count::new("polls", " Polls of tasks.", CountKind::Counter, 7),
                Count::new("answers", "Answers.", CountKind::Counter, 5).label("code", "2\"x\\"),
                Count::new("tasks", "Tasks that live.", CountKind::Gauge, 3),
            ],
            latencies: vec![
                Latency::new("op", "How long.", reader.read()).label("op", "send"),
                Latency::new("empty", "Nothing.", Default::default()),
            ],
        };
        Snapshot {
            cores: vec![core(0), core(1)],
        }
    }

    #[test]
    fn the_text_has_every_name_once_with_all_its_cores_beneath() {
        let text = snapshot().to_prometheus();
        for line in [
            "# HELP quoit_polls_total Polls of tasks.",
            "# TYPE quoit_polls_total counter",
            "quoit_polls_total{core=\"0\"} 7\nquoit_polls_total{core=\"1\"} 7\n",
            "# TYPE quoit_tasks gauge\nquoit_tasks{core=\"0\"} 3\n",
            "quoit_answers_total{core=\"1\",code=\"2\\\"x\\\\\"} 5\n",
            "quoit_parked_seconds_total{core=\"0\"} 2.5\n",
            "# TYPE quoit_op_seconds histogram\n",
            "quoit_op_seconds_bucket{core=\"0\",op=\"send\",le=\"0.000002\"} 0\n",
            "quoit_op_seconds_bucket{core=\"0\",op=\"send\",le=\"0.000005\"} 1\n",
            "quoit_op_seconds_bucket{core=\"0\",op=\"send\",le=\"0.02\"} 1\n",
            "quoit_op_seconds_bucket{core=\"0\",op=\"send\",le=\"0.05\"} 2\n",
            "quoit_op_seconds_bucket{core=\"0\",op=\"send\",le=\"+Inf\"} 2\n",
            "quoit_op_seconds_sum{core=\"0\",op=\"send\"} 0.030003\n",
            "quoit_op_seconds_count{core=\"1\",op=\"send\"} 2\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE quoit_polls_total").count(), 1);
        assert!(!text.contains("empty"), "{text}");
    }

    #[test]
    fn the_json_has_all_of_it() {
        let json = snapshot().to_json();
        for part in [
            r#"{"core":0,"uptime_ns":10000000000,"parked_ns":2500000000,"counts":["#,
            r#"{"name":"answers","label":"2\"x\\","kind":"counter","value":5}"#,
            r#"{"name":"op","label":"send","count":2,"sum_ns":30003000,"max_ns":30000000,"buckets":[[3007,1],["#,
            r#"{"name":"empty","label":null,"count":0,"sum_ns":0,"max_ns":0,"buckets":[]}"#,
        ] {
            assert!(json.contains(part), "{part} is not in {json}");
        }
    }
}

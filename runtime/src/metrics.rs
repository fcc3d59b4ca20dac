//! Metrics as they are declared: name, kind, labels and meaning stand in one place, from which they are registered,
//! tested and put into the table of docs/metrics.md.
//!
//! What must always hold: a series is there as long as what it tells of, and no longer.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Metric, Registry},
};

use crate::Readiness;

/// A metric, declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name, without the `_total` that OpenMetrics gives to a counter's sample.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// Its labels, in any order.
    pub labels: &'static [&'static str],
    /// What it tells, without a full stop.
    pub help: &'static str,
}

/// What a metric's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter,
            Kind::Gauge => Self::Gauge,
            Kind::Histogram => Self::Histogram,
        }
    }
}

impl Declared {
    /// A counter.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }

    /// A histogram.
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, labels, help }
    }

    /// Registers what will hold its numbers.
    pub fn register(&self, registry: &mut Registry, metric: impl Metric) {
        registry.register(self.name, self.help, metric);
    }

    /// Begins it in a collector's output.
    pub fn begin<'a>(&self, encoder: &'a mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'a>, fmt::Error> {
        encoder.encode_descriptor(self.name, self.help, None, self.kind.into())
    }

    /// The name of its samples, as queries have it.
    pub fn sample(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }
}

const BUILD: Declared =
    Declared::gauge("herald_build_info", &["version", "commit"], "Always 1; which Herald this is");
const READY: Declared = Declared::gauge("herald_ready", &[], "1: /readyz says yes");
const WATCH_UP: Declared = Declared::gauge(
    "herald_watch_up",
    &["resource"],
    "1: has its first list and works; 0: not yet, or not now",
);
const WATCH_FAILURES: Declared = Declared::counter(
    "herald_watch_failures",
    &["resource", "reason"],
    "Failed lists and interrupted watches: away, busy, forbidden, unauthorized, no_such_kind, expired, undecodable, refused",
);

/// The metrics of both processes.
pub const PROCESS: [Declared; 4] = [BUILD, READY, WATCH_UP, WATCH_FAILURES];

/// Registers the metrics of both processes.
pub fn register(registry: &mut Registry, readiness: Readiness) {
    registry.register_collector(Box::new(Process { readiness }));
}

/// Reads what readiness knows at each scrape.
#[derive(Debug)]
struct Process {
    readiness: Readiness,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let labels = [("version", crate::VERSION), ("commit", crate::COMMIT)];
        ConstGauge::new(1_i64).encode(BUILD.begin(&mut encoder)?.encode_family(&labels)?)?;
        let ready = i64::from(self.readiness.is_ready());
        ConstGauge::new(ready).encode(READY.begin(&mut encoder)?)?;
        let watches = self.readiness.watches();
        let mut family = WATCH_UP.begin(&mut encoder)?;
        for (resource, watch) in &watches {
            let up = ConstGauge::new(i64::from(watch.up));
            up.encode(family.encode_family(&[("resource", *resource)])?)?;
        }
        let mut family = WATCH_FAILURES.begin(&mut encoder)?;
        for (resource, watch) in &watches {
            for (reason, failures) in &watch.failures {
                let labels = [("resource", *resource), ("reason", *reason)];
                ConstCounter::new(*failures).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// The declared metrics as rows of a Markdown table.
pub fn table(declared: &[Declared]) -> String {
    let mut rows = "| metric | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in declared {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!(
            "| `{}` | {} | {} | {} |\n",
            metric.sample(),
            metric.kind.word(),
            labels.join(", "),
            metric.help
        );
        rows.push_str(&row);
    }
    rows
}

/// Compares `text`, an exposition in which every metric has a sample, with what is declared; gives each difference.
pub fn differences(declared: &[Declared], text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.ends_with("# EOF\n") {
        found.push("no # EOF at the end".to_owned());
    }
    let mut kinds = BTreeMap::new();
    let mut helps = BTreeMap::new();
    let mut labels: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            if kinds.insert(name, kind).is_some() {
                found.push(format!("{name} stands there twice"));
            }
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            helps.insert(name, help.trim_end_matches('.'));
        } else if !line.starts_with('#')
            && let Some((series, _)) = line.rsplit_once(' ')
        {
            let (name, inner) = series.split_once('{').unwrap_or((series, ""));
            labels.entry(name.to_owned()).or_default().push(names(inner));
        }
    }
    for metric in declared {
        let Declared { name, kind, help, .. } = *metric;
        if kinds.remove(name) != Some(kind.word()) {
            found.push(format!("{name} is not exposed as {}", kind.word()));
        }
        if helps.get(name) != Some(&help) {
            found.push(format!("{name} says {:?} instead of {help:?}", helps.get(name)));
        }
        let sample = match kind {
            Kind::Histogram => format!("{name}_count"),
            Kind::Counter | Kind::Gauge => metric.sample(),
        };
        let mut expected: Vec<String> = metric.labels.iter().map(|&label| label.to_owned()).collect();
        expected.sort();
        match labels.get(&sample) {
            None => found.push(format!("{sample} has no sample")),
            Some(seen) if seen.iter().any(|seen| *seen != expected) => {
                found.push(format!("{sample} has the labels {seen:?} instead of {expected:?}"));
            }
            Some(_) => {}
        }
    }
    found.extend(kinds.keys().map(|name| format!("{name} is not declared")));
    found
}

/// The names of a series' labels, sorted; `inner` is what stands behind the brace.
fn names(inner: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = inner;
    while let Some((name, behind)) = rest.split_once("=\"") {
        names.push(name.trim_start_matches(',').to_owned());
        let mut escaped = false;
        let end = behind.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = end.and_then(|end| behind.get(end + 1..)).unwrap_or_default();
    }
    names.sort();
    names
}

/// What `/metrics` would say.
pub fn exposition(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, family::Family};

    use super::*;

    #[test]
    fn what_both_processes_expose_is_what_is_declared() {
        let mut registry = Registry::default();
        let readiness = Readiness::new();
        readiness.watch_fails("pods", "away");
        register(&mut registry, readiness.clone());
        let text = exposition(&registry).unwrap();
        assert_eq!(differences(&PROCESS, &text), Vec::<String>::new(), "{text}");
        assert!(text.contains("herald_watch_up{resource=\"pods\"} 0\n"), "{text}");
        readiness.watch_works("pods");
        let text = exposition(&registry).unwrap();
        assert!(text.contains("herald_watch_up{resource=\"pods\"} 1\n"), "{text}");
        assert!(
            text.contains("herald_watch_failures_total{resource=\"pods\",reason=\"away\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn every_difference_is_found() {
        const THINGS: Declared = Declared::counter("things", &["a", "b"], "Things");
        let expose = |labels: Vec<(String, String)>| {
            let mut registry = Registry::default();
            let family: Family<Vec<(String, String)>, Counter> = Family::default();
            family.get_or_create(&labels).inc();
            THINGS.register(&mut registry, family);
            exposition(&registry).unwrap()
        };
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let text = expose(vec![label("b", "x,y=\"\\"), label("a", "")]);
        assert_eq!(differences(&[THINGS], &text), Vec::<String>::new(), "{text}");
        assert!(differences(&[THINGS], &expose(vec![label("a", "")]))[0].contains("labels"));
        assert!(differences(&[], &text)[0].contains("not declared"));
        let gauge = Declared { kind: Kind::Gauge, ..THINGS };
        assert!(differences(&[gauge], &text)[0].contains("gauge"));
        let other = Declared { help: "Others", ..THINGS };
        assert!(differences(&[other], &text)[0].contains("Others"));
        let more = Declared { name: "more", ..THINGS };
        assert!(differences(&[THINGS, more], &text).iter().any(|text| text.contains("no sample")));
        assert!(differences(&[THINGS], "")[0].contains("EOF"));
    }

    #[test]
    fn the_table_names_samples_as_queries_do() {
        let table = table(&[WATCH_FAILURES]);
        assert!(
            table.contains("| `herald_watch_failures_total` | counter | `resource`, `reason` |"),
            "{table}"
        );
    }
}

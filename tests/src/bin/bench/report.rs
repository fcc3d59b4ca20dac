//! Samples and the rows made of them.

use std::{fmt, time::Duration};

/// The head of every table.
pub(crate) const HEADER: &str =
    "| what | n | min | p50 | p99 | max | beside it | ratio of p50 |\n|---|---|---|---|---|---|---|---|";

/// Durations of the same thing, measured again and again.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn push(&mut self, duration: Duration) {
        let at = self.0.partition_point(|&known| known <= duration);
        self.0.insert(at, duration);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of all do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// One row of the table, with what stands beside it.
    pub(crate) fn row(&self, what: &str, beside: Option<(&str, &Self)>) -> String {
        let (other, ratio) = match beside {
            Some((name, other)) => {
                let ratio = self.percentile(50).as_secs_f64() / other.percentile(50).as_secs_f64();
                (format!("{name}: {other}"), format!("{ratio:.2}"))
            }
            None => ("-".to_owned(), "-".to_owned()),
        };
        let [min, p50, p99, max] = [0, 50, 99, 100].map(|percent| shown(self.percentile(percent)));
        format!("| {what} | {} | {min} | {p50} | {p99} | {max} | {other} | {ratio} |", self.len())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [min, p50, p99, max] = [0, 50, 99, 100].map(|percent| shown(self.percentile(percent)));
        write!(f, "{min} / {p50} / {p99} / {max}, n = {}", self.len())
    }
}

fn shown(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    if micros < 1000.0 {
        format!("{micros:.1} us")
    } else if micros < 1e6 {
        format!("{:.1} ms", micros / 1e3)
    } else {
        format!("{:.2} s", micros / 1e6)
    }
}

/// The machine, for the reader of the table.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, {}, Linux {}\n", model.trim_start_matches(['\t', ' ', ':']), kernel.trim())
}

/// The machine's load averages over 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(", ")
}

/// Memory as people read it, from the kernel's KiB.
pub(crate) fn megabytes(kib: u32) -> String {
    format!("{:.1} MiB", f64::from(kib) / 1024.0)
}

/// A share of one.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

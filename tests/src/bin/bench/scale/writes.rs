//! What the API server was asked to write, by its own counters.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use herald_lab::Lab;

/// Without these kinds: they tick by themselves.
const TICKING: [&str; 1] = ["leases"];
const VERBS: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];
/// Between two looks at the counters, which are megabytes.
const PERIOD: Duration = Duration::from_secs(2);
/// So many looks without a change are quiet.
const QUIET: u32 = 3;
const PATIENCE: Duration = Duration::from_mins(3);

/// Requests that write, by verb, kind and outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Writes(BTreeMap<String, u64>);

impl Writes {
    /// Since the API server started.
    pub(super) fn so_far(lab: &Lab) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = lab.block_on(lab.kube().request_text(request))?;
        let mut writes = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let Some((labels, value)) = line.rsplit_once("} ") else { continue };
            let label = |name: &str| {
                let mut all = labels.split(',').filter_map(|label| label.split_once('='));
                all.find(|(found, _)| *found == name).map_or("", |(_, value)| value.trim_matches('"'))
            };
            let (verb, resource, code) = (label("verb"), label("resource"), label("code"));
            if !VERBS.contains(&verb) || TICKING.contains(&resource) {
                continue;
            }
            let kind = [resource, label("subresource")].join("/");
            let failed = if code.starts_with('2') { String::new() } else { format!(" ({code})") };
            let what = format!("{verb} {}{failed}", kind.trim_end_matches('/'));
            *writes.entry(what).or_default() += value.parse::<f64>().map_or(0, whole);
        }
        Ok(Self(writes))
    }

    /// What came after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let after = |(what, count): (&String, &u64)| {
            let more = count.saturating_sub(earlier.0.get(what).copied().unwrap_or_default());
            (more > 0).then(|| (what.clone(), more))
        };
        Self(self.0.iter().filter_map(after).collect())
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Waits until nobody has written for some seconds; gives the counters of then, and when the last change was seen.
    pub(super) fn await_quiet(lab: &Lab) -> Result<(Self, Instant)> {
        let begun = Instant::now();
        let (mut last, mut since, mut quiet) = (Self::so_far(lab)?, begun, 0);
        while quiet < QUIET {
            super::pause(PERIOD);
            let now = Self::so_far(lab)?;
            if now == last {
                quiet += 1;
                continue;
            }
            if begun.elapsed() > PATIENCE {
                bail!("still written after {PATIENCE:?}: {}", now.since(&last));
            }
            (last, since, quiet) = (now, Instant::now(), 0);
        }
        Ok((last, since))
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(|(what, count)| format!("{count} {what}")).collect();
        f.write_str(if all.is_empty() { "none" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

/// A counter, which Prometheus writes as a float.
fn whole(value: f64) -> u64 {
    let text = format!("{value:.0}");
    text.parse().unwrap_or_default()
}

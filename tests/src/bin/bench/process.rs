//! What a process uses, by the kernel's account.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Resident memory now and at its most, in KiB.
pub(crate) fn memory(pid: i32) -> Result<[u32; 2]> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        let value = found.with_context(|| format!("process {pid} has no {name}"))?;
        anyhow::Ok(value.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
    };
    Ok([field("VmRSS")?, field("VmHWM")?])
}

/// What all its threads have run so far, those that live.
pub(crate) fn cpu_time(pid: i32) -> Result<Duration> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

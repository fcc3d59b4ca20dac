//! The machine-wide sysctls that a kubelet sets, put back by the reaper (`scratch.rs`).
//!
//! They are not part of any namespace. Each cluster writes down what they were before the first of the clusters that run
//! side by side; a line is the file's path, a blank and the value.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::scratch;

const SET_BY_KUBELET: [&str; 6] = [
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/keys/root_maxbytes",
];

/// Writes down for the reaper what is to be put back when lab directory `dir` goes.
pub(crate) fn save(dir: &Path) -> Result<()> {
    let mut others = scratch::other_labs(dir).into_iter();
    let known = others.find_map(|other| fs::read_to_string(other.join(scratch::SYSCTLS)).ok());
    // The others run on what a kubelet has set already: what was before is known to them alone.
    let text = known.map_or_else(read, Ok)?;
    fs::write(dir.join(scratch::SYSCTLS), text)?;
    Ok(())
}

fn read() -> Result<String> {
    let mut text = String::new();
    for file in SET_BY_KUBELET {
        let value = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
        writeln!(text, "{file} {}", value.trim())?;
    }
    Ok(text)
}

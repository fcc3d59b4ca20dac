//! Ten thousand Services: how long until all have their addresses, what the API server is asked for, how much memory it
//! takes, and what a restart and an edit cost.
//!
//! 100 pools, each for ten of 1,000 namespaces; 1,000 Node objects that nobody stands behind, and one node with a speaker
//! that holds every address. No controller manager and no kube-proxy, so that every write is counted to somebody. The bare
//! writes are measured before and after Herald's, in the same lab: other work on the machine shows in both.

mod clock;
mod crowd;
mod stages;
mod writes;

use std::time::{Duration, Instant};

use anyhow::Result;
use herald_lab::{Lab, Plan};

use crate::{process, report::megabytes};

/// What is to be measured.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// How many Services are there when the controller starts.
    pub(crate) services: u32,
    /// How many a second are created while it runs.
    pub(crate) rate: u32,
    /// For how many seconds.
    pub(crate) seconds: u32,
    /// Whether to wait until the speaker has written every holder (five a second), so that all writes are counted.
    pub(crate) until_announced: bool,
}

pub(crate) fn run(counts: &[u32], scale: Scale) -> Result<()> {
    println!("| Services | what | figure | beside it |\n|---|---|---|---|");
    for &services in counts {
        one(Scale { services, ..scale })?;
    }
    Ok(())
}

fn one(scale: Scale) -> Result<()> {
    let lab = Plan::nodes(1).without_herald().with_api_only().start()?;
    lab.apply_manifests()?;
    crowd::surroundings(&lab)?;
    lab.start_controller()?;
    lab.start_speakers()?;
    stages::idle(&lab)?;
    let bare = stages::crowd_without_controller(&lab, scale.services)?;
    stages::all_pending(&lab, scale, bare)?;
    stages::restart(&lab, scale.services)?;
    stages::live(&lab, scale)?;
    stages::edits(&lab, scale.services)
}

/// Does nothing for so long. A thread that waited for another may be woken once too often.
fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// One row of the table.
fn row(services: u32, what: &str, figure: &str, beside: &str) {
    println!("| {services} | {what} | {figure} | {beside} |");
}

/// The memory of both programs, as two rows.
fn memory_rows(lab: &Lab, services: u32, when: &str) -> Result<()> {
    let controller = lab.controller(|controller| process::memory(controller.pid()))?;
    let [rss, peak] = controller.map(megabytes);
    row(services, &format!("controller's memory, {when}"), &format!("RSS {rss}"), &format!("most {peak}"));
    for node in lab.nodes() {
        if let Ok(speaker) = node.speaker(|speaker| process::memory(speaker.pid())) {
            let [rss, peak] = speaker.map(megabytes);
            row(
                services,
                &format!("speaker's memory, {when}"),
                &format!("RSS {rss}"),
                &format!("most {peak}"),
            );
        }
    }
    Ok(())
}

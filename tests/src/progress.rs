//! What a lab tells the person who waits for it: one line per step, with the time since it began.

use std::{
    io::{Write as _, stderr},
    time::Instant,
};

/// Lines on standard error with the seconds since the start. Cheap to clone; clones share the start.
#[derive(Clone, Debug)]
pub struct Progress {
    start: Instant,
    quiet: bool,
}

impl Progress {
    /// Starts the clock.
    pub fn new() -> Self {
        Self { start: Instant::now(), quiet: false }
    }

    /// Says nothing at all.
    pub fn quiet() -> Self {
        Self { start: Instant::now(), quiet: true }
    }

    /// One step, done or about to begin.
    pub fn say(&self, step: &str) {
        if !self.quiet {
            // Nobody reading is no reason to stop.
            let _ = writeln!(stderr(), "[{:7.2} s] {step}", self.start.elapsed().as_secs_f64());
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

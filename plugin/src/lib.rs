//! The kubectl plugin `kubectl herald`.
//!
//! It owns two things: moving a cluster over from another load balancer (`import`), and saying why a Service has its
//! address or none (`explain`). What must always hold: whatever it says about addresses is what the controller would
//! do, because it asks the controller's own code (`herald_controller::objects` reads, `herald_ipam` decides); and it
//! writes nothing but what `--apply` and `--take-over` ask for by name.
//!
//! Decisions are plain functions from data to data (`import::plan`, `explain::explanation`); what asks the cluster
//! stands beside them and decides nothing.

pub mod cli;
pub mod cluster;
pub mod explain;
pub mod import;
pub mod judge;
mod table;

use std::{io::Write as _, process::ExitCode};

use crate::cli::{Cli, Command, Import};

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The cluster did not answer, a right is missing, or a write failed.
    Failed,
    /// Wrong flags or input.
    BadInput,
    /// The report names problems; nothing was applied.
    Problems,
    /// Applied, but not every Service was taken over, or one changed its address.
    Unfinished,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::BadInput => 2,
            Exit::Problems => 3,
            Exit::Unfinished => 4,
        })
    }
}

/// Why the command could not go on.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// The cluster, or a write to it.
    pub fn cluster(text: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, text: text.into() }
    }

    /// What the user gave.
    pub fn input(text: impl Into<String>) -> Self {
        Self { exit: Exit::BadInput, text: text.into() }
    }
}

/// Runs the command to its end.
pub async fn run(cli: Cli) -> Exit {
    let done = match &cli.command {
        Command::Import(Import::Metallb(flags)) => import::run(&cli.cluster, flags).await,
        Command::Explain(flags) => explain::run(&cli.cluster, flags).await,
    };
    match done {
        Ok(exit) => exit,
        Err(failure) => {
            tell(&format!("error: {failure}"));
            failure.exit
        }
    }
}

/// A line for the person at the terminal: stdout is for what other programs read.
fn tell(text: &str) {
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

/// Prints to stdout. A reader that went away (`| head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::cluster(format!("can't write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

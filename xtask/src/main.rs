//! Project chores: generating committed files and checking that they are up to date.
//!
//! `cargo xtask crds` writes what is made from the API types, `cargo xtask manifests` what is made from the chart,
//! `cargo xtask reasons` and `cargo xtask metrics` pages made from the code; with `--check` they fail where a committed
//! file differs. `cargo xtask cores` fails where a protocol or allocator core depends on tokio, kube or libc.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks on its standard streams"
)]

mod crds;
mod generated;
mod manifests;
mod metrics;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::generated::{Generated, root};

/// Project chores.
#[derive(Parser)]
enum Chore {
    /// Write the CRD manifests made from the Rust types, and the chart's schema of them.
    Crds {
        /// Write nothing; fail where a committed manifest differs.
        #[arg(long)]
        check: bool,
    },
    /// Write the plain manifests made from the chart, and the table of its values; needs helm.
    Manifests {
        /// Write nothing; fail where a committed file differs.
        #[arg(long)]
        check: bool,
    },
    /// Write docs/reasons.md, made from the reasons that the controller gives.
    Reasons {
        /// Write nothing; fail where the committed page differs.
        #[arg(long)]
        check: bool,
    },
    /// Write docs/metrics.md, made from the metrics that both programs declare.
    Metrics {
        /// Write nothing; fail where the committed page differs.
        #[arg(long)]
        check: bool,
    },
    /// Check that the sans-IO cores depend on nothing that does I/O.
    Cores,
}

/// The crates that must stay free of I/O, and what they must not depend on, however indirectly.
const CORES: [&str; 3] = ["herald-ipam", "herald-wire", "herald-l2"];
const BANNED: [&str; 5] = ["tokio", "kube", "k8s-openapi", "libc", "socket2"];

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Crds { check } => crds::run(check),
        Chore::Manifests { check } => manifests::run(check),
        Chore::Reasons { check } => reasons(check),
        Chore::Metrics { check } => metrics::run(check),
        Chore::Cores => cores(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn reasons(check: bool) -> anyhow::Result<()> {
    let page = herald_controller::reasons::catalogue::page();
    Generated::new("cargo xtask reasons", check).put("docs/reasons.md", &page)
}

fn cores() -> anyhow::Result<()> {
    for core in CORES {
        let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
            .args(["tree", "--package", core, "--edges", "normal", "--prefix", "none", "--format", "{p}"])
            .current_dir(root())
            .output()
            .context("running cargo tree")?;
        if !output.status.success() {
            bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let tree = String::from_utf8_lossy(&output.stdout);
        if let Some(found) =
            tree.lines().filter_map(|line| line.split(' ').next()).find(|name| BANNED.contains(name))
        {
            bail!(
                "{core} depends on {found}: a core takes time, frames and objects as plain data; \
                 `cargo tree -p {core} -i {found}` shows the way it came in"
            );
        }
        println!("{core}: free of {}", BANNED.join(", "));
    }
    Ok(())
}

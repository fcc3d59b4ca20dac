//! `make bench`: every figure that docs/benchmarks.md quotes, each with its rival in the same run where there is one.
#![expect(clippy::print_stdout, reason = "a command's output is what it is for")]

mod node_loss;
mod report;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Herald's benchmarks. Each prints rows of a Markdown table.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// A holder's node loses power: how long its client goes unanswered, beside keepalived
    NodeLoss {
        /// How often
        #[arg(long, default_value_t = 30)]
        runs: usize,
        /// Leave Herald out, keepalived only
        #[arg(long)]
        rival_only: bool,
    },
}

fn main() -> Result<()> {
    let benchmark = Arguments::parse().benchmark;
    println!("{}", report::machine());
    println!("{}", report::HEADER);
    match benchmark {
        Benchmark::NodeLoss { runs, rival_only } => node_loss::run(runs, rival_only),
    }
}

//! `make bench`: every figure that docs/benchmarks.md quotes, each with its rival in the same run where there is one.
#![expect(clippy::print_stdout, reason = "a command's output is what it is for")]

mod answers;
mod create;
mod loss;
mod node_loss;
mod process;
mod report;
mod scale;

use std::time::Duration;

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
    /// A holder's node loses power: how long its client goes unanswered, beside keepalived and MetalLB
    NodeLoss {
        /// How often
        #[arg(long, default_value_t = 30)]
        runs: usize,
        /// How often with MetalLB, which takes many seconds each time; 0 leaves it out
        #[arg(long, default_value_t = METALLB_RUNS)]
        metallb_runs: usize,
        /// Leave Herald out, keepalived only
        #[arg(long)]
        rival_only: bool,
    },
    /// From the creation of a Service to its address, its first answer, its first page, beside MetalLB
    Create(create::Options),
    /// ARP answers, CPU and memory with many addresses on one node, idle and under a storm
    Answers {
        /// How many addresses, rising
        #[arg(long, value_delimiter = ',', default_value = "1,1000,10000")]
        vips: Vec<u32>,
    },
    /// Moves while frames are lost and nothing dies
    Loss {
        /// For how long
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Of all frames, on every path
        #[arg(long, default_value_t = 30)]
        percent: u8,
    },
    /// Thousands of Services: time, API writes and memory of the controller and a speaker
    Scale {
        /// How many Services, each count in a lab of its own
        #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
        services: Vec<u32>,
        /// Services a second that are created while the controller runs
        #[arg(long, default_value_t = 20)]
        rate: u32,
        /// For how long
        #[arg(long, default_value_t = 20)]
        seconds: u32,
        /// Wait until every holder and every condition is written, five a second, and count these as well
        #[arg(long)]
        until_announced: bool,
    },
    /// All of them but scale, with their defaults
    All,
}

/// As many as show the shape.
const METALLB_RUNS: usize = 5;

fn main() -> Result<()> {
    let benchmark = Arguments::parse().benchmark;
    println!("{}", report::machine());
    println!("Load averages before: {}\n", report::load());
    if !matches!(benchmark, Benchmark::Scale { .. }) {
        println!("{}", report::HEADER);
    }
    let done = match benchmark {
        Benchmark::NodeLoss { runs, metallb_runs, rival_only } => {
            node_loss::run(runs, metallb_runs, rival_only)
        }
        Benchmark::Create(options) => create::run(options),
        Benchmark::Answers { vips } => answers::run(&vips),
        Benchmark::Loss { seconds, percent } => loss::run(Duration::from_secs(seconds), percent),
        Benchmark::Scale { services, rate, seconds, until_announced } => {
            scale::run(&services, scale::Scale { services: 0, rate, seconds, until_announced })
        }
        Benchmark::All => {
            for (nodes, runs) in [(3, 50), (1, 25)] {
                create::run(create::Options { runs, nodes, herald_only: false, beside: None })?;
            }
            node_loss::run(30, METALLB_RUNS, false)?;
            answers::run(&[1, 1_000, 10_000])?;
            loss::run(Duration::from_mins(10), 30)
        }
    };
    println!("\nLoad averages at the end, with the benchmark's own: {}", report::load());
    done
}

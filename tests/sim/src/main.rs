//! Runs fault classes by hand: all of them, one, or one seed with its history.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use herald_l2::Ablation;
use herald_sim::classes::{self, CLASSES, Class};
use herald_sim::figures;
use herald_sim::run::{self, Summary};
use herald_sim::trace::Detail;

/// Deterministic simulation of a LAN of speakers.
#[derive(Debug, Parser)]
struct Flags {
    /// Only this class (see --list).
    #[arg(long)]
    class: Option<String>,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds of each class.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Begin with this seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; default: one per processor.
    #[arg(long)]
    threads: Option<usize>,
    /// Print the history of the one seed; `--trace frames`: with every frame.
    #[arg(long, requires = "seed", value_enum, num_args = 0..=1, default_missing_value = "events")]
    trace: Option<History>,
    /// Take a rule out.
    #[arg(long, value_enum)]
    without: Vec<Rule>,
    /// Measure detection instead, and print Markdown tables.
    #[arg(long)]
    figures: bool,
    /// Crashes per row of the figures.
    #[arg(long, default_value_t = 2_000)]
    crashes: u64,
    /// Modelled hours for false failovers.
    #[arg(long, default_value_t = 10)]
    hours: u64,
    /// Nodes of the largest segment measured.
    #[arg(long, default_value_t = 1_000)]
    largest: usize,
    /// List the classes.
    #[arg(long)]
    list: bool,
}

/// What of a history is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum History {
    /// Faults, transitions, moves.
    Events,
    /// Every frame as well.
    Frames,
}

/// A rule that can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rule {
    /// Two-way proof (rules A21, A25, A26).
    Proof,
    /// Reservation for a previous boot's claims (rule A31).
    Reservation,
    /// `status.holders` as a hint at start (rules A31, A32).
    Hints,
    /// DROP and re-announcing when a split heals (rules A37 to A39).
    Drop,
    /// Quick hellos under suspicion (rules A18, A19).
    FastSuspicion,
    /// Grace for a speaker whose kernel answers (rules A23, A45).
    Grace,
    /// Kernel probes (rule A22): every machine is taken to run.
    KernelProbe,
    /// Deputies (rule A45).
    Deputies,
    /// Others' word for a kernel that answers them (rule A31).
    Vouching,
}

fn main() -> Result<ExitCode> {
    let flags = Flags::parse();
    let mut out = io::stdout().lock();
    let picked: Vec<&Class> = match &flags.class {
        Some(name) => vec![classes::find(name).with_context(|| format!("no class {name:?}: see --list"))?],
        None => CLASSES.iter().collect(),
    };
    if flags.list {
        for class in picked {
            writeln!(out, "{:<14} {}", class.name, class.about)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if flags.figures {
        let size = figures::Size { crashes: flags.crashes, hours: flags.hours, largest: flags.largest };
        figures::print(&mut out, &size, flags.threads.unwrap_or_else(herald_seeds::processors))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut good = true;
    if let Some(seed) = flags.seed {
        for class in picked {
            good &= one(&mut out, class, seed, &flags)?;
        }
    } else {
        writeln!(
            out,
            "| class | seeds | failed | moves | held twice | answered by two | taken over | gap | stale | deputies' answers | first failed seed |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for class in picked {
            let seeds = flags.seeds.div_ceil(class.cost);
            let threads = flags.threads.unwrap_or_else(herald_seeds::processors);
            let summary = run::run_many(class, flags.from, seeds, threads, flags.ablation(), usize::MAX);
            good &= summary.failed.is_empty();
            row(&mut out, class, &summary)?;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(out: &mut impl Write, class: &Class, seed: u64, flags: &Flags) -> Result<bool> {
    let detail = match flags.trace {
        Some(History::Frames) => Detail::Frames,
        Some(History::Events) => Detail::Events,
        None => Detail::Off,
    };
    let outcome = run::run(class, seed, flags.ablation(), detail);
    Ok(outcome.print(out, class.name)?)
}

fn row(out: &mut impl Write, class: &Class, summary: &Summary) -> io::Result<()> {
    let first = summary.failed.first().map(|seed| run::replay(class, *seed)).unwrap_or_default();
    writeln!(
        out,
        "| {} | {} | {} | {} | {} ms | {} | {} ms | {} ms | {} | {} | {first} |",
        class.name,
        summary.runs,
        summary.failed.len(),
        summary.moves,
        summary.dual.as_millis(),
        summary.answered_by_two,
        summary.takeover.as_millis(),
        summary.gap.as_millis(),
        summary.stale,
        summary.deputised,
    )?;
    out.flush()
}

impl Flags {
    fn ablation(&self) -> Ablation {
        let without = |rule| self.without.contains(&rule);
        Ablation {
            no_proof: without(Rule::Proof),
            no_reservation: without(Rule::Reservation),
            no_hints: without(Rule::Hints),
            no_drop: without(Rule::Drop),
            no_fast_suspicion: without(Rule::FastSuspicion),
            no_grace: without(Rule::Grace),
            no_kernel_probe: without(Rule::KernelProbe),
            no_deputies: without(Rule::Deputies),
            no_vouching: without(Rule::Vouching),
        }
    }
}

//! Runs classes by hand: all of them, one, or one seed with its history.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use herald_controlsim::Without;
use herald_controlsim::classes::{self, CLASSES, Class};
use herald_controlsim::run::{self, Summary};

/// Deterministic simulation of controllers and an API server.
#[derive(Debug, Parser)]
struct Flags {
    /// Only this class (see --list).
    #[arg(long)]
    class: Option<String>,
    /// Only this seed, with its history.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds of each class.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// So many seeds in all, spread evenly over the classes.
    #[arg(long, conflicts_with = "seeds")]
    total: Option<u64>,
    /// Begin with this seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; default: one per processor.
    #[arg(long)]
    threads: Option<usize>,
    /// Take a guarantee of the API server away.
    #[arg(long, value_enum)]
    without: Vec<Guarantee>,
    /// Leave the history out.
    #[arg(long)]
    brief: bool,
    /// List the classes.
    #[arg(long)]
    list: bool,
}

/// A guarantee that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Guarantee {
    /// A create overwrites what exists.
    Fence,
    /// Whoever reads a Service is told that there is none.
    LiveGet,
    /// Who begins to lead is told that there is no LoadBalancerIP, as of resourceVersion 1.
    Newest,
    /// A Service that is made newer stays as it was.
    Barrier,
    /// Preconditions are ignored.
    Conditions,
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
            writeln!(out, "{:<10} {}", class.name, class.about)?;
        }
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
            "| class | seeds | failed | writes | conflicts | addresses | pending | contested | retold | first failed seed |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
        let classes = u64::try_from(picked.len()).unwrap_or(u64::MAX).max(1);
        let seeds = flags.total.map_or(flags.seeds, |total| total.div_ceil(classes));
        for class in picked {
            let threads = flags.threads.unwrap_or_else(herald_seeds::processors);
            let summary = run::run_many(class, flags.from, seeds, threads, flags.without(), usize::MAX);
            good &= summary.failed.is_empty();
            row(&mut out, class, &summary)?;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(out: &mut impl Write, class: &Class, seed: u64, flags: &Flags) -> Result<bool> {
    let outcome = run::run(class, seed, flags.without(), !flags.brief);
    Ok(outcome.print(out, class.name)?)
}

fn row(out: &mut impl Write, class: &Class, summary: &Summary) -> io::Result<()> {
    let Summary { runs, failed, first, measured } = summary;
    let replay = failed.first().map(|seed| run::replay(class, *seed)).unwrap_or_default();
    writeln!(
        out,
        "| {} | {runs} | {} | {} | {} | {} | {} | {} | {} | {replay} |",
        class.name,
        failed.len(),
        measured.writes,
        measured.conflicts,
        measured.addresses,
        measured.pending,
        measured.contested,
        measured.retold,
    )?;
    for (seed, violation) in first.iter().take(12) {
        writeln!(out, "    {seed}: {violation}")?;
    }
    out.flush()
}

impl Flags {
    fn without(&self) -> Without {
        let without = |guarantee| self.without.contains(&guarantee);
        Without {
            fence: without(Guarantee::Fence),
            live_get: without(Guarantee::LiveGet),
            newest: without(Guarantee::Newest),
            barrier: without(Guarantee::Barrier),
            conditions: without(Guarantee::Conditions),
        }
    }
}

//! Project chores: generating committed files and checking that they are up to date.
//!
//! `cargo xtask crds` writes `crds/manifests/`, `cargo xtask crds --check` fails where it differs;
//! `cargo xtask cores` fails where a protocol or allocator core depends on tokio, kube or libc.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks on its standard streams"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::Parser;
use kube::ResourceExt as _;

/// Project chores.
#[derive(Parser)]
enum Chore {
    /// Write the CRD manifests made from the Rust types.
    Crds {
        /// Write nothing; fail where a committed manifest differs.
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
        Chore::Crds { check } => crds(check),
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

fn crds(check: bool) -> anyhow::Result<()> {
    let dir = root().join("crds/manifests");
    for crd in herald_crds::all() {
        let path = dir.join(format!("{}.yaml", crd.name_any()));
        let text = format!(
            "# Made from the types in crds/src by `cargo xtask crds`; edit those.\n{}",
            serde_yaml::to_string(&crd).with_context(|| format!("serialising {}", crd.name_any()))?
        );
        if check {
            let committed =
                std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            if committed != text {
                bail!("{} is out of date: run `cargo xtask crds` and commit the result", path.display());
            }
        } else {
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    Ok(())
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

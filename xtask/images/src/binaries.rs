//! Building the two programs for images: static, optimised for size of download, the same bytes wherever they are built.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use herald_oci::Architecture;

use crate::root;

/// The programs, which are packages as well.
pub(crate) const PROGRAMS: [&str; 2] = ["herald-controller", "herald-speaker"];
/// What is built, as the version control knows it.
pub(crate) struct Source {
    /// The whole commit, with `-dirty` where files differ from it.
    pub(crate) revision: String,
    /// Seconds since 1970 at which it was committed; `SOURCE_DATE_EPOCH` where that is set.
    pub(crate) time: i64,
}

impl Source {
    /// Asks git about the workspace; a source archive without git says `HERALD_COMMIT` and `SOURCE_DATE_EPOCH` itself.
    pub(crate) fn of_workspace() -> anyhow::Result<Self> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let time = match given("SOURCE_DATE_EPOCH") {
            Some(time) => time,
            None => git(&["log", "-1", "--format=%ct"]).context(
                "set SOURCE_DATE_EPOCH (seconds since 1970) and HERALD_COMMIT: this is no git work tree",
            )?,
        };
        let revision = match given("HERALD_COMMIT") {
            Some(revision) => revision,
            None => git(&["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"])?,
        };
        let time = time
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {time:?}, not a number of seconds"))?;
        Ok(Self { revision, time })
    }

    /// When it was committed, as RFC 3339 writes it.
    pub(crate) fn timestamp(&self) -> anyhow::Result<String> {
        let time = jiff::Timestamp::from_second(self.time);
        Ok(time
            .with_context(|| format!("{} seconds after 1970 is out of the calendar", self.time))?
            .to_string())
    }

    /// As `--version` shows it.
    fn short(&self) -> String {
        let (commit, dirty) = match self.revision.split_once('-') {
            Some((commit, _)) => (commit, "-dirty"),
            None => (self.revision.as_str(), ""),
        };
        format!("{}{dirty}", commit.get(..12).unwrap_or(commit))
    }
}

/// Rust's name of a target without a C library of its own.
pub(crate) fn target(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "x86_64-unknown-linux-musl",
        Architecture::Arm64 => "aarch64-unknown-linux-musl",
    }
}

/// Builds both programs and says where they are, in the order of [`PROGRAMS`].
pub(crate) fn build(
    architecture: Architecture,
    profile: &str,
    source: &Source,
) -> anyhow::Result<Vec<PathBuf>> {
    let target = target(architecture);
    let mut cargo = cargo();
    cargo.args(["build", "--locked", "--profile", profile, "--target", target]);
    for program in PROGRAMS {
        cargo.args(["--package", program]);
    }
    cargo.envs(environment(architecture, target)?).env("HERALD_COMMIT", source.short());
    // Cargo takes these in place of a target's own flags, and the paths would be in the programs.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    println!("building {} for {target}", PROGRAMS.join(" and "));
    let status = cargo.status().context("running cargo")?;
    if !status.success() {
        bail!("cargo build for {target} failed; see above");
    }
    // Cargo's one exception: the directory of the profile `dev` is called `debug`.
    let directory = target_directory()?.join(target).join(if profile == "dev" { "debug" } else { profile });
    Ok(PROGRAMS.iter().map(|program| directory.join(program)).collect())
}

/// What makes the build independent of this machine: a C compiler and a linker of known versions, no paths.
fn environment(architecture: Architecture, target: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let root = root();
    let compilers = root.join("hack");
    let arch = match architecture {
        Architecture::Amd64 => "x86_64",
        Architecture::Arm64 => "aarch64",
    };
    let name = target.replace('-', "_");
    let mut remap = vec![format!("--remap-path-prefix={}=/herald", shown(&root)?)];
    for registry in registries()? {
        remap.push(format!("--remap-path-prefix={}=/crates", shown(&registry)?));
    }
    Ok(BTreeMap::from([
        (format!("CC_{name}"), format!("{} {arch}", shown(&compilers.join("musl-cc"))?)),
        (format!("AR_{name}"), shown(&compilers.join("musl-ar"))?.to_owned()),
        // mimalloc: no huge pages, though the kernel gives them to everybody. A speaker is far smaller than ten of them.
        // zig's clang checks for undefined behaviour where nothing is optimised, and Rust links no library for that.
        (format!("CFLAGS_{name}"), "-DMI_DEFAULT_ALLOW_THP=0 -fno-sanitize=undefined".to_owned()),
        // Rust brings musl's start files and library itself, and this linker too.
        (format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), "rust-lld".to_owned()),
        (format!("CARGO_TARGET_{}_RUSTFLAGS", name.to_uppercase()), remap.join(" ")),
    ]))
}

/// Cargo, as it was called itself, so that the toolchain is the same.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.current_dir(root());
    cargo
}

/// Where cargo builds to, whatever its configuration says.
fn target_directory() -> anyhow::Result<PathBuf> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading what cargo metadata says")?;
    let directory = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    directory.map(PathBuf::from).context("cargo metadata names no target directory")
}

/// Where cargo unpacked the crates. The directories' names differ with the registry that they were fetched from.
fn registries() -> anyhow::Result<Vec<PathBuf>> {
    let status = cargo().args(["fetch", "--quiet", "--locked"]).status().context("running cargo")?;
    ensure!(status.success(), "cargo fetch failed; see above");
    let unpacked = cargo_home()?.join("registry/src");
    let entries = fs::read_dir(&unpacked).with_context(|| format!("reading {}", unpacked.display()))?;
    let mut registries = Vec::new();
    for entry in entries {
        registries.push(entry.with_context(|| format!("reading {}", unpacked.display()))?.path());
    }
    registries.sort();
    Ok(registries)
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    match std::env::var_os("CARGO_HOME") {
        Some(home) => Ok(home.into()),
        None => {
            std::env::home_dir().map(|home| home.join(".cargo")).context("neither CARGO_HOME nor HOME is set")
        }
    }
}

/// What a command prints.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).with_context(|| format!("reading what {command:?} says"))
}

/// A path as a compiler's flag: these are split at blanks.
fn shown(path: &Path) -> anyhow::Result<&str> {
    match path.to_str() {
        Some(text) if !text.contains(char::is_whitespace) => Ok(text),
        _ => bail!("{} has a blank or is not Unicode: build images in another directory", path.display()),
    }
}

fn git(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").args(args).current_dir(root()).output().context("running git")?;
    if !output.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

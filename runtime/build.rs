//! Tells the crate which commit it is built from: `HERALD_COMMIT` from the environment, which release builds set;
//! else, in an optimised build, what git says. No time and no host, so that two builds of a commit are the same.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=HERALD_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("HERALD_COMMIT").ok().map(|text| text.trim().to_owned());
    let commit = given.filter(|text| !text.is_empty()).or_else(from_git);
    println!("cargo::rustc-env=HERALD_COMMIT={}", commit.as_deref().unwrap_or("unknown commit"));
}

/// While working on the code nobody wants everything built anew after each commit, so development builds don't ask.
fn from_git() -> Option<String> {
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return Some("development build".to_owned());
    }
    // Each movement of HEAD is appended here.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

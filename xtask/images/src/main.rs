//! `cargo image`: both programs as static binaries, their container images and their lists of ingredients, in `dist/`.
//!
//! Needs neither root nor a container daemon, but zig as its C compiler (`make image` gets it). A crate of its own beside
//! xtask, because it must not build Herald for this machine before it builds it for an image.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks on its standard streams"
)]

mod binaries;
mod graph;
mod image;
mod licences;
mod sbom;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser as _;

fn main() -> ExitCode {
    match image::run(&image::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's directory.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map_or_else(PathBuf::new, Path::to_path_buf)
}

//! kubectl-herald: see the library.

use std::process::ExitCode;

use clap::Parser as _;
use kubectl_herald::{cli::Cli, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    run(Cli::parse()).await.into()
}

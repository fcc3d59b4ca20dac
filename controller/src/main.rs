//! herald-controller: see the library.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use herald_controller::{flags::Flags, run};

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Err(error) = herald_runtime::telemetry::init(&flags.log_level) {
        Flags::command().error(ErrorKind::InvalidValue, error).exit();
    }
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", herald_runtime::telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

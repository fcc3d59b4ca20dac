//! herald-controller: see the library.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use herald_controller::{flags::Flags, run};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let log_level = match herald_runtime::telemetry::init(&flags.log) {
        Ok(log_level) => log_level,
        Err(error) => Flags::command().error(ErrorKind::InvalidValue, error).exit(),
    };
    match run(flags, log_level).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", herald_runtime::telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

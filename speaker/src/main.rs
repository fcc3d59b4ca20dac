//! herald-speaker: see the library.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use herald_speaker::{flags::Flags, start};

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Err(error) = herald_runtime::telemetry::init(&flags.log_level) {
        Flags::command().error(ErrorKind::InvalidValue, error).exit();
    }
    match start::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", herald_runtime::telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

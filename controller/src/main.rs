//! herald-controller: reads its flags and runs.

use clap::Parser as _;
use herald_controller::flags::Flags;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    herald_runtime::telemetry::init(&flags.log_level)?;
    herald_controller::run(flags).await
}

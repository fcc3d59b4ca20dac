//! Clean shutdown: SIGTERM or SIGINT cancels a token; a second signal ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
pub use tokio_util::sync::CancellationToken;

/// Exit status after a second signal: the shell's convention for "ended by SIGINT".
const FORCED: i32 = 130;

/// Starts listening for SIGTERM and SIGINT. The token is cancelled by the first; the second exits
/// with status 130, for an operator who won't wait.
///
/// Call it inside a tokio runtime, before anything that should be ended cleanly.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let name = first(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "shutting down; a second signal ends at once");
        cancel.cancel();
        let name = first(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "second signal: ending without cleaning up");
        std::process::exit(FORCED);
    });
    Ok(token)
}

async fn first(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

//! Logs on standard error: readable on a terminal, one JSON object a line otherwise.
//!
//! `RUST_LOG` wins over the flag. Both take `level` or `target=level`, comma separated.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error(
        "log filter {filter:?} from {origin} is not understood: {reason}; expected for example \"info\" or \"info,herald_l2=debug\""
    )]
    Filter {
        /// The text given.
        filter: String,
        /// The flag or variable it came from.
        origin: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// A subscriber is set already.
    #[error("logging was started twice: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts logging. `flag` is the value of `--log-level`; the variable `RUST_LOG` overrides it.
pub fn init(flag: &str) -> Result<(), TelemetryError> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let filter = match &variable {
        Some(text) => parse(text, "RUST_LOG")?,
        None => parse(flag, "--log-level")?,
    };
    let base = tracing_subscriber::registry();
    if stderr().is_terminal() {
        base.with(tracing_subscriber::fmt::layer().with_writer(stderr).with_filter(filter)).try_init()?;
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(stderr);
        base.with(layer.with_filter(filter)).try_init()?;
    }
    Ok(())
}

/// Libraries stay quiet unless they are named: kube warns again at every retry of a forbidden
/// watch, which [`crate::watch`] says once, and what HTTP and TLS say is of use only to who asks for it.
fn parse(text: &str, origin: &'static str) -> Result<Targets, TelemetryError> {
    let wrong = |reason: String| TelemetryError::Filter { filter: text.to_owned(), origin, reason };
    let asked: Targets = text.trim().parse().map_err(|error| wrong(format!("{error}")))?;
    // A lone word would be taken for a target at its most talkative; a misspelt level is likelier.
    let bare = text.split(',').map(str::trim).filter(|part| !part.contains('='));
    if let Some(word) = bare.into_iter().find(|part| part.parse::<LevelFilter>().is_err()) {
        return Err(wrong(format!("{word:?} is no level")));
    }
    let quiet = ["hyper_util", "kube_client", "kube_runtime", "rustls", "tower"]
        .into_iter()
        .filter(|library| !asked.iter().any(|(target, _)| target.starts_with(library)))
        .map(|library| (library, LevelFilter::ERROR))
        .collect::<Vec<_>>();
    Ok(asked.with_targets(quiet))
}

/// An error with its causes, each text once: some errors repeat their cause in their own text, some don't.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_are_quiet_unless_named() {
        let filter = parse("debug", "--log-level").unwrap();
        assert!(filter.would_enable("herald_l2", &Level::DEBUG));
        assert!(!filter.would_enable("kube_runtime::watcher", &Level::WARN));
        let filter = parse("info,kube_runtime=debug", "RUST_LOG").unwrap();
        assert!(filter.would_enable("kube_runtime::watcher", &Level::DEBUG));
    }

    #[test]
    fn a_bad_filter_names_the_text_and_its_origin() {
        for text in ["info,herald=loud", "herald=loud", "loud"] {
            let error = parse(text, "RUST_LOG").unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("RUST_LOG"), "{error}");
        }
    }
}

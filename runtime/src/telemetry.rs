//! Logs on standard error: readable on a terminal, one JSON object a line otherwise (docs/logs.md).
//!
//! `RUST_LOG` wins over the flag. Both take `level` or `target=level`, comma separated, and so does
//! `PUT /debug/log-level` while the process runs.

use std::{
    fmt,
    io::{IsTerminal as _, stderr},
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

/// The flags about logs, the same in both processes.
#[derive(Clone, Debug, clap::Args)]
pub struct LogFlags {
    /// What is logged: a level, or target=level pairs, comma separated, as "info,herald_l2=debug". RUST_LOG overrides it.
    #[arg(long, value_name = "FILTER", default_value = "info", global = true)]
    pub log_level: String,

    /// How it is written: auto is text on a terminal and JSON elsewhere.
    #[arg(long, value_enum, default_value_t = Format::Auto, global = true)]
    pub log_format: Format,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Why logging could not be started, or was not changed.
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
    /// The subscriber is gone.
    #[error("the log filter can't be changed: {0}")]
    Gone(String),
}

/// What is logged, changeable while the process runs. Clones share it.
#[derive(Clone)]
pub struct LogLevel {
    current: Arc<Mutex<String>>,
    apply: Arc<dyn Fn(Targets) -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.current()).finish()
    }
}

impl LogLevel {
    /// The filter as it was given last.
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs by this filter from now on.
    pub fn change(&self, filter: &str) -> Result<(), TelemetryError> {
        let targets = parse(filter, "PUT /debug/log-level")?;
        (self.apply)(targets).map_err(TelemetryError::Gone)?;
        let before = std::mem::replace(
            &mut *self.current.lock().unwrap_or_else(PoisonError::into_inner),
            filter.to_owned(),
        );
        tracing::info!(before, after = filter, "log level changed");
        Ok(())
    }

    /// One that changes no subscriber.
    #[cfg(test)]
    pub(crate) fn unconnected() -> Self {
        Self { current: Arc::new(Mutex::new("info".to_owned())), apply: Arc::new(|_| Ok(())) }
    }
}

/// Starts logging. The variable `RUST_LOG` overrides the flag.
pub fn init(flags: &LogFlags) -> Result<LogLevel, TelemetryError> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let (text, origin) = match &variable {
        Some(text) => (text, "RUST_LOG"),
        None => (&flags.log_level, "--log-level"),
    };
    let (filter, handle) = reload::Layer::new(parse(text, origin)?);
    let base = tracing_subscriber::registry();
    let readable = match flags.log_format {
        Format::Auto => stderr().is_terminal(),
        Format::Text => true,
        Format::Json => false,
    };
    if readable {
        let layer = tracing_subscriber::fmt::layer().with_ansi(stderr().is_terminal()).with_writer(stderr);
        base.with(layer.with_filter(filter)).try_init()?;
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(stderr);
        base.with(layer.with_filter(filter)).try_init()?;
    }
    let apply = move |targets| handle.reload(targets).map_err(|error| error.to_string());
    Ok(LogLevel { current: Arc::new(Mutex::new(text.clone())), apply: Arc::new(apply) })
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
    Ok(asked
        .with_targets(quiet)
        // Here kube prints answers that it can't decode, whole: one may be a Secret. Nobody may ask for that.
        .with_target("kube_client::client", LevelFilter::ERROR))
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
    fn answers_that_may_hold_secrets_are_not_logged_whatever_is_asked() {
        for text in ["trace", "kube_client=trace", "kube_client::client=trace"] {
            let filter = parse(text, "RUST_LOG").unwrap();
            assert!(!filter.would_enable("kube_client::client", &Level::WARN), "{text}");
        }
    }

    #[test]
    fn a_bad_filter_names_the_text_and_its_origin() {
        for text in ["info,herald=loud", "herald=loud", "loud"] {
            let error = parse(text, "RUST_LOG").unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("RUST_LOG"), "{error}");
        }
    }
}

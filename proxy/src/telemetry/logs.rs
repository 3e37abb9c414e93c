//! Logs: one line an event to stderr, text on a terminal, else JSON; and the line at a request's end.

mod format;

use std::io::IsTerminal as _;
use std::time::Duration;

use oilskin_config::{Log, LogFormat};
use tracing::{Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use super::{End, RequestId};
use format::{Lines, Warnings};

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The filter is not one.
    #[error("not a log filter (info, oilskin=debug, …): {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logging was begun before.
    #[error("logging was already begun")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Libraries whose lines hold paths and values of messages at some level: never shown, whatever the filter says.
const QUIET: [&str; 9] = [
    "h2",
    "hyper",
    "hyper_util",
    "http",
    // What these tell of errors is told by us, without bodies.
    "vaultrs",
    "rustify",
    "reqwest",
    "hyper_rustls",
    // AWS's, all of them: they show requests whole, and one of those is a share of W.
    "aws_",
];

fn is_quiet(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or_default();
    QUIET.iter().any(|quiet| root == *quiet || (quiet.ends_with('_') && root.starts_with(quiet)))
}

/// Begins logging to stderr. Called once, by `main`.
///
/// # Errors
/// [`LogError::Filter`] when the filter does not parse; [`LogError::Installed`] at a second call.
pub(crate) fn install(log: &Log) -> Result<(), LogError> {
    let terminal = std::io::stderr().is_terminal();
    tracing::subscriber::set_global_default(subscriber(log, terminal, std::io::stderr)?)?;
    Ok(())
}

/// Says warnings on stderr to the person who typed a command, and nothing else. Where it was done before, that stays.
pub(crate) fn install_for_a_command() {
    let Ok(filter) = EnvFilter::try_new("off,oilskin=warn") else { return };
    let said = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let said = said.log_internal_errors(false).event_format(Warnings).finish();
    let _ = tracing::subscriber::set_global_default(said);
}

/// What [`install`] installs, to any writer. Each line is one `write_all`, so lines never interleave.
///
/// # Errors
/// [`LogError::Filter`] when the filter does not parse.
pub(super) fn subscriber<W>(
    log: &Log,
    terminal: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let format = log.format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let colour = terminal && format == LogFormat::Text;
    let filter = EnvFilter::try_new(&log.filter)?;
    Ok(tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(writer)
        // Otherwise a broken stderr would panic the thread that logs.
        .log_internal_errors(false)
        .event_format(Lines { format })
        .finish()
        // A filter of its own: in the other one a deeper module would win.
        .with(filter_fn(|line| !is_quiet(line.target()))))
}

/// What is said about a request at its end. Names are the configuration's; nothing here is a value of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLine<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The method as received.
    pub method: &'a str,
    /// The route's name, `-` for none; never the path.
    pub route: &'a str,
    /// The status sent; 0 if none was.
    pub status: u16,
    /// How it ended.
    pub end: End,
    /// The cause behind the code, from a fixed set.
    pub reason: Option<&'a str>,
    /// The rule's name.
    pub rule: Option<&'a str>,
    /// The upstream's name.
    pub upstream: Option<&'a str>,
    /// Body bytes read from the app; of a refused body, until it was refused.
    pub bytes_in: u64,
    /// Body bytes to the app.
    pub bytes_out: u64,
    /// From its head to its end.
    pub elapsed: Duration,
    /// Its id.
    pub request_id: &'a RequestId,
}

impl RequestLine<'_> {
    /// Whether a request that ended so is logged: all with `access_log`, else those that are no plain success.
    pub(crate) fn wanted(end: End, access_log: bool) -> bool {
        let success = matches!(end, End::Answered(status) if status.as_u16() < 400);
        (access_log || !success) && tracing::enabled!(target: "oilskin::request", Level::WARN)
    }

    /// Writes the line: a warning where it was cut or the status is 5xx, else information.
    pub(crate) fn emit(&self) {
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "oilskin::request",
                    $level,
                    listener = self.listener,
                    method = self.method,
                    route = self.route,
                    status = self.status,
                    code = self.code(),
                    reason = self.reason,
                    rule = self.rule,
                    upstream = self.upstream,
                    bytes_in = self.bytes_in,
                    bytes_out = self.bytes_out,
                    ms = self.milliseconds(),
                    request_id = self.request_id.as_str(),
                    "request"
                )
            };
        }
        if self.status >= 500 || self.end == End::Aborted { line!(Level::WARN) } else { line!(Level::INFO) }
    }

    fn code(&self) -> Option<&'static str> {
        match self.end {
            End::Answered(_) => None,
            End::Refused(code) => Some(code.as_str()),
            End::Aborted => Some("aborted"),
        }
    }

    /// To the microsecond, so that text and JSON stay short.
    fn milliseconds(&self) -> f64 {
        (self.elapsed.as_secs_f64() * 1e6).round() / 1e3
    }
}

#[cfg(test)]
mod tests;

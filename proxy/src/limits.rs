//! Descriptors: how many connections the process may hold.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections unless configured.
const DEFAULT: usize = 10_000;

/// Descriptors that are no connection: logs, sockets, runtimes, files being read.
const RESERVED: usize = 64;

/// A connection from an app brings at most one to an upstream.
const EACH: usize = 2;

/// Raises the soft limit on open files to the hard one and says how many connections fit below it. `accepting` sockets
/// take a permit before they accept, so as many must be there.
///
/// # Errors
/// A configured number that does not fit; the default is lowered instead, and the second value says so.
pub(crate) fn connections(
    configured: Option<NonZeroUsize>,
    accepting: usize,
) -> Result<(usize, Option<String>), String> {
    if let Some(wanted) = configured.filter(|wanted| wanted.get() < accepting) {
        return Err(format!(
            "limits.connections: {wanted} are fewer than the {accepting} sockets (workers × listeners) that wait for one"
        ));
    }
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let fit = match files {
        None => usize::MAX,
        Some(files) => usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(RESERVED) / EACH,
    };
    match configured.map(NonZeroUsize::get) {
        Some(wanted) if wanted > fit => Err(format!(
            "limits.connections: {wanted} need {} open files, the hard limit allows {fit}; raise `ulimit -Hn` or lower it",
            wanted.saturating_mul(EACH).saturating_add(RESERVED)
        )),
        Some(wanted) => Ok((wanted, None)),
        None if fit < DEFAULT => Ok((
            fit.max(accepting),
            Some(format!("connections are limited to {fit} instead of {DEFAULT}: the limit on open files is low")),
        )),
        None => Ok((DEFAULT, None)),
    }
}

/// Workers unless configured: min(2, CPUs of the cgroup).
pub(crate) fn workers(configured: Option<NonZeroUsize>) -> usize {
    let available = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    configured.map_or_else(|| available().min(2), NonZeroUsize::get)
}

//! Micro-benchmarks in one process: the field engine and the rewriter, each beside what one would write instead.

mod engine;
mod rewriter;
mod samples;

/// Two ways to do the same work, to be run by turns.
pub struct Pair {
    /// What the row is called.
    pub name: &'static str,
    /// Ours must be at least so many times as fast.
    pub must: f64,
    /// What it is compared with.
    pub baseline: Box<dyn FnMut()>,
    /// Ours.
    pub ours: Box<dyn FnMut()>,
}

/// All of them.
///
/// # Errors
/// Keys that cannot be made.
pub fn pairs() -> anyhow::Result<Vec<Pair>> {
    let mut pairs = engine::pairs()?;
    pairs.extend(rewriter::pairs());
    Ok(pairs)
}

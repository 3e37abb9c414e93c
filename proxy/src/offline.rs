//! A route's rules over bodies that are at hand: the same engine, rewriter and keys, without a connection.

use std::sync::Arc;

use oilskin_config::{Config, Limits};

use crate::StartError;
use crate::engine::Engine;
use crate::fields::{self, PathValues, Rewriter};
use crate::keys::Keyrings;
use crate::rules::PhaseRules;
use crate::telemetry::Metrics;

/// The rules of one route.
pub struct Offline {
    request: PhaseRules,
    response: PhaseRules,
    limits: Limits,
    _keyrings: Arc<Keyrings>,
}

/// Which message of an exchange a body is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The app's, on an egress listener.
    Request,
    /// The upstream's.
    Response,
}

/// Why a body is not rewritten: the code and the reason that a log would give, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} ({reason})")]
pub struct OfflineError {
    code: &'static str,
    reason: &'static str,
}

impl Offline {
    /// The rules of the configuration's route number `route`, with its keys opened.
    ///
    /// # Errors
    /// As [`crate::App::check`].
    pub fn new(config: &Config, route: usize) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        let keyrings = Keyrings::open(config, &metrics)?;
        let route = config.routes.get(route).ok_or_else(|| StartError::Limits("there is no such route".to_owned()))?;
        let rules = |phase| {
            PhaseRules::build(phase, &config.limits, &keyrings, &metrics)
                .map_err(|why| crate::BuildError::Rules(route.name.clone(), why))
        };
        Ok(Self {
            request: rules(&route.request)?,
            response: rules(&route.response)?,
            limits: config.limits.clone(),
            _keyrings: keyrings,
        })
    }

    /// Rewrites one body that comes in `pieces` and appends it to `out`.
    ///
    /// # Errors
    /// What a peer would be told; `out` is without meaning then.
    pub fn rewrite<'a>(
        &self,
        phase: Phase,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), OfflineError> {
        let rules = match phase {
            Phase::Request => &self.request,
            Phase::Response => &self.response,
        };
        let told =
            |failure: crate::error::Failure| OfflineError { code: failure.code.as_str(), reason: failure.reason };
        let mut engine = Engine::new(rules, None, 0).map_err(told)?;
        let limits = fields::Limits::of(&self.limits);
        let mut rewriter = Rewriter::new(Arc::clone(engine.program()), limits, PathValues::default());
        for piece in pieces {
            engine.push(&mut rewriter, piece, out).map_err(told)?;
        }
        engine.finish(&mut rewriter, out).map_err(told)
    }
}

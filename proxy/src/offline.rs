//! A route's rules over bodies that are at hand: the same engine, rewriter and keys, without a connection.

mod asking;

use std::future::poll_fn;
use std::sync::Arc;

use oilskin_config::{Config, Limits};

use crate::StartError;
use crate::engine::{Engine, Patience};
use crate::fields::{self, PathValues, Rewriter};
use crate::keys::{self, Away, Keyrings, Reach};
use crate::rules::{Homes, PhaseRules};
use crate::telemetry::Metrics;
use asking::Asking;

/// The rules of one route.
pub struct Offline {
    request: PhaseRules,
    response: PhaseRules,
    limits: Limits,
    /// The way to Vault, where rules have keys there.
    asking: Option<Asking>,
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

/// Rules whose keys are not opened yet, their keys, and the way to these.
type Built = (Offline, Arc<Keyrings>, (Away, Reach));

impl Offline {
    /// The rules of the configuration's route number `route`, with its keys opened.
    ///
    /// # Errors
    /// As [`crate::App::check`].
    pub fn new(config: &Config, route: usize) -> Result<Self, StartError> {
        let (this, keyrings, (away, reach)) = Self::built(config, route)?;
        keys::at_once(away.during(async { keyrings.begin(&reach).await.map(|_| ()) }))??;
        Ok(this)
    }

    /// The same with keys that are refreshed, in a thread of their own, until the end of the process.
    ///
    /// # Errors
    /// As [`Offline::new`], or a thread that cannot be had.
    pub fn kept_fresh(config: &Config, route: usize) -> Result<Self, StartError> {
        let (this, keyrings, (away, reach)) = Self::built(config, route)?;
        let (begun, outcome) = std::sync::mpsc::channel();
        // Connections to providers belong to the runtime that made them, so all of it is in one.
        let keep = move || {
            keys::at_once(away.during(async move {
                match keyrings.begin(&reach).await {
                    Ok(first) => {
                        let _ = begun.send(Ok(()));
                        keyrings.keep_fresh(first).await;
                    }
                    Err(error) => drop(begun.send(Err(error))),
                }
            }))
        };
        std::thread::Builder::new().name("keys".to_owned()).spawn(keep).map_err(StartError::Thread)?;
        outcome.recv().unwrap_or(Ok(()))?;
        Ok(this)
    }

    fn built(config: &Config, route: usize) -> Result<Built, StartError> {
        let metrics = Arc::new(Metrics::new());
        let homes = Homes::new(Keyrings::new(config)?);
        let route = config.routes.get(route).ok_or_else(|| StartError::Limits("there is no such route".to_owned()))?;
        let rules = |phase| {
            PhaseRules::build(phase, &config.limits, &homes, &metrics)
                .map_err(|why| crate::BuildError::Rules(route.name.clone(), why))
        };
        let (request, response) = (rules(&route.request)?, rules(&route.response)?);
        let asking = Asking::of(&homes, config.vault.as_ref(), &metrics)?;
        let this = Self { request, response, limits: config.limits.clone(), asking };
        Ok((this, homes.keyrings, Away::open(config.vault.as_ref(), &metrics)?))
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
        let lanes = self.asking.as_ref().map(Asking::lanes);
        let engine = Engine::new(rules, None, (0, lanes), Patience::None).map_err(told)?;
        let mut document = self.document(engine);
        for piece in pieces {
            document.push(piece, out)?;
        }
        document.finish(out).map(|_| ())
    }

    fn document(&self, engine: Engine) -> Document<'_> {
        let limits = fields::Limits::of(&self.limits);
        let rewriter = Rewriter::new(Arc::clone(engine.program()), limits, PathValues::default());
        Document { engine, rewriter, asking: self.asking.as_ref() }
    }

    /// Begins with a document of data at rest: tokens of retired versions become tokens of the active one, of older contexts of the first
    /// one, and nothing else changes.
    ///
    /// # Errors
    /// Keys that are not there.
    pub(crate) fn rewrap(&self, tenant: Option<Arc<str>>) -> Result<Document<'_>, OfflineError> {
        let rules = if self.request.active() { &self.request } else { &self.response };
        let lanes = self.asking.as_ref().map(Asking::lanes);
        Engine::rewrapping(rules, tenant, lanes).map(|engine| self.document(engine)).map_err(told)
    }
}

/// One document on its way.
pub(crate) struct Document<'a> {
    engine: Engine,
    rewriter: Rewriter,
    asking: Option<&'a Asking>,
}

impl Document<'_> {
    /// Takes a piece of it and appends what may leave.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), OfflineError> {
        let mut rest = piece;
        loop {
            let taken = self.engine.push(&mut self.rewriter, rest, out).map_err(told)?;
            rest = rest.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            self.answered(out)?;
        }
    }

    /// Waits for Vault's answers, where fields wait for them.
    fn answered(&mut self, out: &mut Vec<u8>) -> Result<(), OfflineError> {
        let Some(asking) = self.asking else { return Ok(()) };
        let (engine, rewriter) = (&mut self.engine, &mut self.rewriter);
        let all = asking.during(async {
            engine.ask();
            while engine.is_asking() {
                poll_fn(|cx| engine.poll_answers(cx, rewriter, out)).await?;
            }
            Ok(())
        });
        all.map_err(told)
    }

    /// It has ended; how many of its tokens are new ones, and how many there are.
    ///
    /// # Errors
    /// It is cut short, or as [`Document::push`].
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(u64, u64), OfflineError> {
        self.engine.finish(&mut self.rewriter, out).map_err(told)?;
        self.answered(out)?;
        Ok(self.engine.renewed())
    }
}

fn told(failure: crate::error::Failure) -> OfflineError {
    OfflineError { code: failure.code.as_str(), reason: failure.reason }
}

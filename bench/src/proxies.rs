//! The proxies that are compared, each with one worker before the same origin, set up as its makers advise for keep-alive on both
//! sides and with nothing else to do.

mod envoy;
mod haproxy;
mod nginx;
pub(crate) mod oilskin;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::certificates::Tls;
use crate::load::Front;
use crate::process::{Core, Running};
pub(crate) use nginx::Origin;
use oilskin::{Alg, Settings};

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The measure.
    Nginx,
    /// The same again: what two equal proxies differ by is noise.
    NginxAgain,
    Haproxy,
    Envoy,
    /// No rule: bytes pass.
    Oilskin,
    /// Three fields encrypted, the answer scanned in vain.
    OilskinFields(Alg),
    /// Three fields encrypted, three tokens in the answer decrypted.
    OilskinRoundTrip(Alg),
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Nginx => "nginx".to_owned(),
            Self::NginxAgain => "nginx again".to_owned(),
            Self::Haproxy => "HAProxy".to_owned(),
            Self::Envoy => "Envoy".to_owned(),
            Self::Oilskin => "Oilskin".to_owned(),
            Self::OilskinFields(alg) => format!("Oilskin, 3 fields, {}", alg.shown()),
            Self::OilskinRoundTrip(alg) => format!("Oilskin, 3 fields there and back, {}", alg.shown()),
        }
    }

    /// What is asked for: the origin answers tokens on the round trip's paths.
    fn path(self) -> &'static str {
        match self {
            Self::OilskinRoundTrip(alg) => alg.path(),
            _ => "/customers",
        }
    }
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
}

impl Proxy {
    /// Starts one before `origin`, with its files in `folder`.
    pub(crate) fn start(
        kind: Kind,
        front: Front,
        tls: Option<Tls<'_>>,
        origin: &Origin,
        folder: &Path,
    ) -> Result<Self> {
        let folder = &folder.join(kind.name().replace([' ', ','], "-"));
        std::fs::create_dir_all(folder)?;
        let upstream = origin.address();
        let (running, address) = match kind {
            Kind::Nginx | Kind::NginxAgain => nginx::proxy(&kind.name(), front, tls, upstream, folder),
            Kind::Haproxy => haproxy::proxy(front, upstream, folder),
            Kind::Envoy => envoy::proxy(tls, upstream, folder),
            Kind::Oilskin => Settings::pass_through(upstream).tls(tls).start(Core::Proxy, folder),
            Kind::OilskinFields(alg) | Kind::OilskinRoundTrip(alg) => {
                Settings::fields(upstream, origin.keys(alg)).start(Core::Proxy, folder)
            }
        }
        .with_context(|| format!("{} as a proxy", kind.name()))?;
        Ok(Self { kind, running, address, path: kind.path() })
    }
}

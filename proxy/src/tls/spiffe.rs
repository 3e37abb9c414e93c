//! A SPIFFE Workload API as a source, SPIRE's agent for one: a stream over a Unix socket gives the whole state, and the whole again
//! whenever something in it changes.

use std::error::Error;
use std::sync::Arc;

use oilskin_config::Spiffe;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use spiffe::transport::{Endpoint, TransportError};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509BundleSet, X509Context, X509Svid};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::identities::Identities;
use super::material::{self, Certificate, Material, Refused, Trust};
use super::sessions::{DEADLINE, Sessions};
use crate::said::shortened;

/// Keeps what the agent issues fresh until the process ends.
pub(super) async fn watch(identities: Arc<Identities>, at: usize, spiffe: Spiffe) {
    let watch = Watch { sessions: Sessions::new(identities, at), spiffe };
    loop {
        let ended = watch.session().await;
        watch.sessions.ended(&ended).await;
    }
}

struct Watch {
    sessions: Sessions,
    spiffe: Spiffe,
}

impl Watch {
    /// Connects and takes what comes; returns why that ended.
    async fn session(&self) -> Refused {
        let endpoint = Endpoint::Unix(self.spiffe.socket.clone());
        let client = match timeout(DEADLINE, WorkloadApiClient::connect(endpoint)).await {
            Err(_) => return self.gone("nobody answers"),
            Ok(Err(error)) => return self.ended(&error),
            Ok(Ok(client)) => client,
        };
        // How long the first answer takes is the agent's affair: it may be waiting for a signature.
        let mut states = match client.stream_x509_contexts().await {
            Err(error) => return self.ended(&error),
            Ok(states) => states,
        };
        loop {
            let state = match states.next().await {
                None => return self.gone("it has closed the stream"),
                Some(Err(error)) if is_of_the_stream(&error) => return self.ended(&error),
                Some(state) => state,
            };
            match self.take(state) {
                Ok(()) => self.sessions.took(),
                Err(refused) => self.sessions.identities.refuse(self.sessions.at, &refused),
            }
        }
    }

    fn take(&self, state: Result<X509Context, WorkloadApiError>) -> Result<(), Refused> {
        let identities = &self.sessions.identities;
        let state = state.map_err(|error| {
            Refused::new("source", format!("what the agent gave cannot be used: {}", shortened(&error.to_string())))
        })?;
        identities.offer(self.sessions.at, material(&state, &self.spiffe, identities.provider())?)
    }

    fn gone(&self, what: &str) -> Refused {
        Refused::new("unreachable", format!("{}: {what}", self.spiffe.socket.display()))
    }

    fn ended(&self, error: &WorkloadApiError) -> Refused {
        match error {
            WorkloadApiError::NoIdentityIssued => self.denied("no identity issued"),
            WorkloadApiError::PermissionDenied(message) => self.denied(message),
            WorkloadApiError::Transport(TransportError::Status(status)) => {
                self.gone(&format!("{}: {}", status.code(), shortened(status.message())))
            }
            error => self.gone(&shortened(&cause(error))),
        }
    }

    fn denied(&self, message: &str) -> Refused {
        let (socket, message) = (self.spiffe.socket.display(), shortened(message));
        let text = format!(
            "{socket}: the agent issues no identity to this workload: register it (PermissionDenied: {message})"
        );
        Refused::new("denied", text)
    }
}

/// Whether an error ends the stream; others are of one state in it, and a better one may follow.
fn is_of_the_stream(error: &WorkloadApiError) -> bool {
    use WorkloadApiError::{NoIdentityIssued, PermissionDenied, Transport};
    matches!(error, NoIdentityIssued | PermissionDenied(_) | Transport(_))
}

/// The first cause: the errors about it say only that something failed.
fn cause(error: &dyn Error) -> String {
    let mut first = error;
    while let Some(source) = first.source() {
        first = source;
    }
    first.to_string()
}

fn material(state: &X509Context, spiffe: &Spiffe, provider: &CryptoProvider) -> Result<Material, Refused> {
    let svid = chosen(state, spiffe.hint.as_deref())?;
    let chain = svid.cert_chain().iter().map(|one| CertificateDer::from(one.as_bytes().to_vec())).collect();
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    let certificate = Certificate::new(chain, key.into(), provider)?;
    let trust = if spiffe.trust { Some(trust(state.bundle_set())?) } else { None };
    Ok(Material { certificate: Some(certificate), trust, crls: Vec::new() })
}

/// The identity with that hint; the first where none is wanted.
fn chosen<'s>(state: &'s X509Context, hint: Option<&str>) -> Result<&'s X509Svid, Refused> {
    let all = state.svids();
    let found = match hint {
        None => all.first(),
        Some(hint) => all.iter().find(|svid| svid.hint() == Some(hint)),
    };
    found.map(AsRef::as_ref).ok_or_else(|| {
        let hints: Vec<&str> = all.iter().filter_map(|svid| svid.hint()).collect();
        let known = if hints.is_empty() { "none".to_owned() } else { hints.join(", ") };
        Refused::new(
            "certificate",
            format!("no identity has the hint that is wanted; hints are: {}", shortened(&known)),
        )
    })
}

/// A domain without authorities stays in: its peers are refused.
fn trust(bundles: &X509BundleSet) -> Result<Trust, Refused> {
    let domain = |(name, bundle): (&spiffe::TrustDomain, &Arc<spiffe::X509Bundle>)| {
        let anchor = |one: &spiffe::Certificate| material::anchor(&CertificateDer::from(one.as_bytes()));
        let anchors = bundle.authorities().iter().map(anchor).collect::<Result<_, _>>()?;
        Ok((name.to_string(), anchors))
    };
    bundles.iter().map(domain).collect::<Result<_, _>>().map(Trust::ByDomain)
}

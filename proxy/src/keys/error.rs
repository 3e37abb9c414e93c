//! Why keys are not there, and what that means for those that are held.

use oilskin_crypto as crypto;

/// What a provider of root keys or documents did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Failed {
    /// The provider, as it is configured, without secrets.
    pub what: String,
    /// What it means.
    pub fault: Fault,
    /// What happened and what to do.
    pub why: String,
}

/// What a failure means for keys that are held, and whether it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No answer, or none that says anything of this key: it may be there in a moment.
    Unreachable,
    /// It answered that this key or keyset is not ours to have.
    Denied,
    /// It answered, and will answer the same until someone changes something.
    Wrong,
    /// The store has no such document.
    Missing,
    /// The document is another than the one that was read.
    Conflict,
    /// Someone else writes there: we do not.
    ReadOnly,
}

impl Fault {
    /// A word for metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Wrong => "refused",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::ReadOnly => "read_only",
        }
    }
}

/// Why no keys are held. No variant holds one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key library.
    #[error(transparent)]
    Crypto(#[from] crypto::Error),
    /// A provider.
    #[error(transparent)]
    Provider(#[from] Failed),
    /// Too few roots unwrapped their shares of a keyset.
    #[error("keyset {name}: {why}")]
    Roots {
        /// The keyset.
        name: String,
        /// Whether so many denied it that asking the others does not help.
        denied: bool,
        /// What each said.
        why: String,
    },
    /// What this version or this build cannot do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// What was asked for cannot be.
    #[error("{0}")]
    Settings(String),
    /// Several of them, none twice.
    #[error("{}", together(.0))]
    Several(Vec<KeyError>),
}

fn together(errors: &[KeyError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

impl KeyError {
    /// All of them as one, if there is any.
    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.pop() {
            None => Ok(()),
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(Self::Several(errors))
            }
        }
    }

    /// What it means for keys that are held.
    pub(crate) fn fault(&self) -> Fault {
        use crypto::Error::{Conflict, Exists, Io, KeyUnavailable, Missing, Random};
        match self {
            Self::Provider(failed) => failed.fault,
            Self::Roots { denied: true, .. } => Fault::Denied,
            Self::Roots { denied: false, .. } | Self::Crypto(Io(..) | KeyUnavailable(_) | Random) => Fault::Unreachable,
            Self::Crypto(Missing(_)) => Fault::Missing,
            Self::Crypto(Conflict(_) | Exists(_)) => Fault::Conflict,
            Self::Crypto(_) | Self::Unsupported(_) | Self::Settings(_) => Fault::Wrong,
            Self::Several(errors) => errors.first().map_or(Fault::Wrong, Self::fault),
        }
    }

    /// Whether one root key alone is the matter: the others do without it, where enough are left.
    pub(crate) fn is_of_one_root(&self) -> bool {
        matches!(self, Self::Crypto(crypto::Error::Root { .. }) | Self::Provider(_))
    }

    /// Whether the configuration, or what it names, must change; else the system failed, perhaps for a moment.
    pub(crate) fn is_configuration(&self) -> bool {
        match self {
            Self::Several(errors) => errors.iter().any(Self::is_configuration),
            one => matches!(one.fault(), Fault::Wrong | Fault::Missing),
        }
    }
}

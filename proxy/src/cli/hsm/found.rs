//! What a probe finds, as far as it came.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::keys::pkcs11::gcm::Iv;
use crate::keys::pkcs11::{Way, usage};

/// Everything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    /// Known to who asked, and perhaps not UTF-8.
    #[serde(skip)]
    pub(super) module: PathBuf,
    pub(super) library: String,
    pub(super) tokens: Vec<TokenFound>,
    /// None where it was not logged in.
    pub(super) tried: Option<Probed>,
    /// How the library ended the process that it ran in, or that it did not come back.
    pub(super) ended: Option<String>,
}

/// A token, as it describes itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TokenFound {
    pub(super) slot: u64,
    pub(super) label: String,
    pub(super) serial: String,
    pub(super) model: String,
    pub(super) chosen: bool,
    /// Mechanisms of AES that it lists.
    pub(super) lists: Vec<String>,
}

/// What was found behind the login; none of what the library was not there for any more.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Probed {
    pub(super) label: String,
    pub(super) object: String,
    pub(super) count: u32,
    /// What passed Oilskin's own self-test.
    pub(super) fit: Option<Fit>,
    /// Why AES-GCM did not, and why nothing did.
    pub(super) not_gcm: Option<String>,
    pub(super) not_fit: Option<String>,
    pub(super) wraps: Vec<Wrap>,
    pub(super) own_iv: Option<String>,
    pub(super) zero_iv: Option<String>,
    pub(super) latency: Vec<Timed>,
    pub(super) threads: Option<Result<f64, String>>,
    pub(super) handles: Option<String>,
}

/// How a root key can be held there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fit {
    pub(super) profile: String,
    pub(super) how: String,
    /// Who makes it.
    pub(super) iv: Option<String>,
    /// How `pkcs11-tool` says what the key is for.
    pub(super) usage: String,
    /// What to set.
    pub(super) uri: String,
}

impl Fit {
    pub(super) fn of(way: Way, uri: String) -> Self {
        let iv = match way {
            Way::Gcm(maker) => Some(maker),
            Way::Kw => None,
        };
        let how = iv.map_or_else(
            || "AES-KW (RFC 3394), which binds nothing: documents bind the keyset's name".to_owned(),
            |maker: Iv| format!("AES-GCM with bound data, the IV is {}", maker.as_str()),
        );
        Self {
            profile: way.profile().as_str().to_owned(),
            how,
            iv: iv.map(|maker| maker.as_str().to_owned()),
            usage: usage(way.profile()).to_owned(),
            uri,
        }
    }
}

/// A mechanism, and what it did.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wrap {
    pub(super) name: String,
    /// What came of it; else what the token said.
    pub(super) worked: Result<Worked, String>,
    /// What a number means there.
    pub(super) note: Option<String>,
}

/// What it is good for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Worked {
    /// What is altered does not unwrap.
    pub(super) detects: bool,
    /// It binds data that is not encrypted.
    pub(super) binds: bool,
}

/// How long a call takes: the median and the slowest but one in a hundred.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Timed {
    pub(super) call: String,
    pub(super) calls: u32,
    pub(super) middle: Duration,
    pub(super) late: Duration,
}

impl Found {
    /// Whether nothing speaks against it; without a login nobody knows.
    pub(super) fn is_good(&self) -> bool {
        self.ended.is_none() && self.tried.as_ref().is_none_or(Probed::is_fit)
    }
}

impl Probed {
    /// Whether a root key can be held there.
    pub(super) fn is_fit(&self) -> bool {
        self.fit.is_some() && matches!(self.threads, Some(Ok(_)))
    }
}

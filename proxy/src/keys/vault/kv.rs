//! `vault:MOUNT/PATH`: documents in a KV engine of version 2, each written only if it is still what was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use oilskin_config::VaultPlace;
use oilskin_crypto::document;
use serde_json::{Value, json};
use vaultrs::api::kv2::requests::{
    DestroySecretVersionsRequest, ListSecretsRequest, ReadSecretRequest, SetSecretMetadataRequest, SetSecretRequest,
    SetSecretRequestOptions,
};

use super::{Way, usual};
use crate::keys::provider::{Answer, KeyStore, Stored};
use crate::keys::{Failed, Fault};
use crate::vault::{Caller, Client, Error, Get};

/// The member of a secret that holds the document.
const MEMBER: &str = "keyset.json";

/// What KV says where the version is another than the one that was read.
const MISMATCH: &str = "check-and-set parameter did not match";

const VERSION_1: &str = "the mount is a KV engine of version 1, which cannot compare before it writes: `vault kv enable-versioning MOUNT`, or another mount";

/// Documents in secrets of one mount.
pub(in crate::keys) struct Kv {
    way: Way,
    place: VaultPlace,
    /// The mount has answered as version 2 does.
    is_known: AtomicBool,
}

impl Kv {
    pub(in crate::keys) fn new(place: &VaultPlace, shown: String, caller: Arc<Caller>) -> Self {
        Self { way: Way { caller, shown }, place: place.clone(), is_known: AtomicBool::new(false) }
    }

    fn path(&self, name: &str) -> (String, String) {
        (self.place.mount.clone(), self.place.path.of(name))
    }

    async fn read(&self, name: &str) -> Result<Stored, Failed> {
        let client = self.way.client().await?;
        let (mount, path) = self.path(name);
        let read = self.way.ask(&client, client.data(ReadSecretRequest { mount, path, version: None }), |_| None);
        let read = match read.await {
            // Version 1 has no such path, either; and it answers with none of our members where someone wrote one.
            Err(failed) if failed.fault == Fault::Missing => return self.is_version_2(&client).await.and(Err(failed)),
            read => read?,
        };
        self.is_known.store(true, Ordering::Relaxed);
        let missing = || self.way.failed(Fault::Missing, format!("the secret has no member {MEMBER}"));
        let bytes = read.data.get(MEMBER).and_then(Value::as_str).ok_or_else(missing)?.as_bytes().to_vec();
        Ok(Stored { bytes, version: read.metadata.version.to_string() })
    }

    /// Whether the mount is of version 2, where Vault says: any token that may something in a mount may ask this.
    async fn is_version_2(&self, client: &Client) -> Result<(), Failed> {
        if self.is_known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let about = client.data(Get(format!("sys/internal/ui/mounts/{}", self.place.mount))).await;
        let Ok(about) = about else { return Ok(()) };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, version) = (text(about.get("type")), text(about.pointer("/options/version")));
        match (kind.as_str(), version.as_str()) {
            ("kv", "2") => Ok(()),
            ("kv" | "generic", _) => Err(self.way.failed(Fault::Wrong, VERSION_1)),
            ("", _) => Ok(()),
            _ => Err(self.way.failed(Fault::Wrong, format!("a {kind} engine is mounted there, no KV engine"))),
        }
    }

    async fn list(&self) -> Result<Vec<String>, Failed> {
        let Some((before, behind)) = self.place.path.around() else {
            // One secret holds one keyset, whose name its document says.
            let stored = match self.read("").await {
                Err(Failed { fault: Fault::Missing, .. }) => return Ok(Vec::new()),
                stored => stored?,
            };
            return Ok(document::name(&stored.bytes).into_iter().collect());
        };
        if behind.contains('/') {
            let why = "what stands behind {keyset} has a slash in it, so keysets cannot be listed: end the path with {keyset}";
            return Err(self.way.failed(Fault::Wrong, why));
        }
        let (folder, before) = before.rsplit_once('/').unwrap_or(("", before));
        let client = self.way.client().await?;
        let asked = ListSecretsRequest { mount: self.place.mount.clone(), path: folder.to_owned() };
        let found = match self.way.ask(&client, client.data(asked), |_| None).await {
            Err(failed) if failed.fault == Fault::Missing => {
                return self.is_version_2(&client).await.map(|()| Vec::new());
            }
            found => found?.keys,
        };
        let name = |key: &String| Some(key.strip_prefix(before)?.strip_suffix(behind)?.to_owned());
        let mut names: Vec<String> = found.iter().filter_map(name).filter(|name| document::is_name(name)).collect();
        names.sort();
        Ok(names)
    }

    async fn write(&self, name: &str, before: Option<&Stored>, bytes: &[u8]) -> Result<(), Failed> {
        let client = self.way.client().await?;
        let version = match before {
            Some(before) => before.version.parse().map_err(|_| self.changed())?,
            None => self.prepare(&client, name).await?,
        };
        let text = std::str::from_utf8(bytes).map_err(|_| self.way.failed(Fault::Wrong, "a document is text"))?;
        let (mount, path) = self.path(name);
        let options = Some(SetSecretRequestOptions { cas: version });
        let asked = SetSecretRequest { mount, path, data: json!({ MEMBER: text }), options };
        self.way.ask(&client, client.data(asked), written).await.map(|_| ())
    }

    /// Makes the secret's metadata, so that nobody ever writes it without comparing; returns the version that the first document
    /// replaces: none, or a deleted one.
    async fn prepare(&self, client: &Client, name: &str) -> Result<u32, Failed> {
        self.is_version_2(client).await?;
        let current = match self.metadata(client, name).await {
            Err(failed) if failed.fault == Fault::Missing => 0,
            Err(failed) => return Err(failed),
            Ok(metadata) if metadata.is_there(metadata.current) => return Err(self.changed()),
            Ok(metadata) => metadata.current,
        };
        let (mount, path) = self.path(name);
        let asked = SetSecretMetadataRequest { mount, path, cas_required: Some(true), ..Default::default() };
        self.way.ask(client, client.done(asked), |error| error.is_denied().then_some(METADATA)).await?;
        u32::try_from(current).map_err(|_| self.changed())
    }

    async fn metadata(&self, client: &Client, name: &str) -> Result<Metadata, Failed> {
        let (mount, path) = self.path(name);
        let asked = Get(format!("{mount}/metadata/{path}"));
        let read = self.way.ask(client, client.data(asked), |error| error.is_denied().then_some(METADATA)).await?;
        let nonsense = || self.way.failed(Fault::Unreachable, "what answers is no Vault, or of another version");
        Metadata::of(&read).ok_or_else(nonsense)
    }

    async fn forget(&self, name: &str) -> Result<Vec<String>, Failed> {
        let client = self.way.client().await?;
        let mut left = vec!["snapshots and backups of Vault's storage".to_owned()];
        match self.destroy_earlier(&client, name).await {
            Ok(()) => Ok(left),
            // The document itself is written: what is left is said, not failed over.
            Err(failed) if failed.fault == Fault::Denied => {
                let (mount, path) = self.path(name);
                left.push(format!(
                    "earlier versions of {mount}/{path}: the policy lacks `read` on {mount}/metadata/{path} or `update` on \
                     {mount}/destroy/{path}; `vault kv destroy -versions=… {mount}/{path}` removes them"
                ));
                Ok(left)
            }
            Err(failed) => Err(failed),
        }
    }

    async fn destroy_earlier(&self, client: &Client, name: &str) -> Result<(), Failed> {
        let metadata = self.metadata(client, name).await?;
        let versions: Vec<u64> = metadata.kept.iter().map(|(version, _)| *version).collect();
        let versions: Vec<u64> = versions.into_iter().filter(|version| *version < metadata.current).collect();
        if versions.is_empty() {
            return Ok(());
        }
        let (mount, path) = self.path(name);
        self.way.ask(client, client.done(DestroySecretVersionsRequest { mount, path, versions }), |_| None).await
    }

    fn changed(&self) -> Failed {
        self.way.failed(Fault::Conflict, "the secret was changed by someone else")
    }
}

/// Whoever makes a keyset or destroys a version needs this, too.
const METADATA: (Fault, &str) = (
    Fault::Denied,
    "Who makes keysets or destroys versions must reach MOUNT/metadata/PATH, too (create, read, update)",
);

fn written(error: &Error) -> Option<(Fault, &'static str)> {
    if error.says(MISMATCH) {
        return Some((Fault::Conflict, ""));
    }
    if error.refused() == Some(413) || error.says("too large") {
        return Some((Fault::Wrong, "The document is larger than Vault's storage takes (raft: max_entry_size)"));
    }
    // A path that is not there at a write is a mount of another kind.
    match usual(error) {
        (Fault::Missing, _) => Some((Fault::Wrong, "Is a KV engine of version 2 mounted there?")),
        _ => None,
    }
}

/// What KV knows of a secret's versions.
struct Metadata {
    current: u64,
    /// Those whose data it still has, and whether they are marked as deleted.
    kept: Vec<(u64, bool)>,
}

impl Metadata {
    fn of(read: &Value) -> Option<Self> {
        let mut kept = Vec::new();
        for (version, about) in read.get("versions")?.as_object()? {
            if !about.get("destroyed")?.as_bool()? {
                kept.push((version.parse().ok()?, about.get("deletion_time")?.as_str() != Some("")));
            }
        }
        Some(Self { current: read.get("current_version")?.as_u64()?, kept })
    }

    fn is_there(&self, version: u64) -> bool {
        self.kept.contains(&(version, false))
    }
}

impl KeyStore for Kv {
    fn list(&self) -> Answer<'_, Vec<String>> {
        Box::pin(self.list())
    }

    fn read<'a>(&'a self, name: &'a str) -> Answer<'a, Stored> {
        Box::pin(self.read(name))
    }

    fn write<'a>(&'a self, name: &'a str, before: Option<&'a Stored>, bytes: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(self.write(name, before, bytes))
    }

    fn forget<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(self.forget(name))
    }

    fn has_login_since(&self, moment: Duration) -> bool {
        self.way.caller.vault().has_login_since(moment)
    }
}

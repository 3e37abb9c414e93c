//! `k8s:NAMESPACE/NAME`: documents in Kubernetes Secrets, each written only if it is still what was read.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Config};
use oilskin_config::KubernetesPlace;
use oilskin_crypto::document;
use tokio::sync::OnceCell;

use super::provider::{Answer, KeyStore, Stored};
use super::{Failed, Fault};
use crate::said::shortened;

/// The member of a Secret that holds the document.
pub(crate) const MEMBER: &str = "keyset.json";

/// Says which Secrets are ours, to find them by.
const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "oilskin");

/// Where `kubectl apply` keeps a copy of what was applied: of a document, too.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Secrets in one answer to a list.
const PAGE: u32 = 500;

/// Documents in Secrets of one namespace.
pub(super) struct Secrets {
    place: KubernetesPlace,
    shown: String,
    /// Made where it is first asked: its connections belong to that runtime.
    client: OnceCell<Client>,
}

impl Secrets {
    pub(super) fn new(place: &KubernetesPlace, shown: String) -> Self {
        Self { place: place.clone(), shown, client: OnceCell::new() }
    }

    async fn api(&self) -> Result<Api<Secret>, Failed> {
        let client = self.client.get_or_try_init(|| async {
            let mut config = Config::infer().await.map_err(|_| {
                let why = "no way to an API server: neither a pod's service account nor a kubeconfig was found";
                self.failed(Fault::Unreachable, why.to_owned())
            })?;
            // Attempts and deadlines are ours; its own would hide an answer behind a silence.
            config.default_retry = false;
            Client::try_from(config).map_err(|error| self.because(&error))
        });
        Ok(Api::namespaced(client.await?.clone(), &self.place.namespace))
    }

    fn failed(&self, fault: Fault, why: String) -> Failed {
        Failed { what: self.shown.clone(), fault, why }
    }

    /// What the API server's answer means for a document.
    fn because(&self, error: &kube::Error) -> Failed {
        let kube::Error::Api(status) = error else {
            // Others may hold what was sent; the kind of it is enough.
            let why = match error {
                kube::Error::SerdeError(_) => "its answer makes no sense",
                _ => "the API server cannot be reached",
            };
            return self.failed(Fault::Unreachable, why.to_owned());
        };
        let said = shortened(&status.message);
        // The API server's own words, and etcd's.
        if status.code == 413 || said.contains("Too long") || said.contains("request is too large") {
            let why = "the document is larger than a Secret may be (1 MiB): keep this keyset in another store, where `oilskin keys export` \
                       and `import` bring it";
            return self.failed(Fault::Wrong, format!("{why}; the API server says: {said}"));
        }
        match status.code {
            403 => self.failed(Fault::Denied, format!("the API server denies it: {said}")),
            404 => self.failed(Fault::Missing, "there is no such Secret".to_owned()),
            409 => self.failed(Fault::Conflict, "the Secret was changed by someone else".to_owned()),
            400 | 422 => self.failed(Fault::Wrong, format!("the API server refuses it: {said}")),
            401 => self.failed(Fault::Unreachable, format!("the API server does not know us: {said}")),
            code => self.failed(Fault::Unreachable, format!("the API server answers {code}: {said}")),
        }
    }

    async fn found(&self, name: &str) -> Result<Secret, Failed> {
        self.api().await?.get(&self.place.name.of(name)).await.map_err(|error| self.because(&error))
    }

    async fn list(&self) -> Result<Vec<String>, Failed> {
        let Some((before, behind)) = self.place.name.around() else {
            // One Secret holds one keyset, whose name its document says.
            let secret = match self.found("").await {
                Err(Failed { fault: Fault::Missing, .. }) => return Ok(Vec::new()),
                found => found?,
            };
            return Ok(stored(&secret).and_then(|stored| document::name(&stored.bytes)).into_iter().collect());
        };
        let api = self.api().await?;
        let mut params = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1)).limit(PAGE);
        let mut names = Vec::new();
        loop {
            let page = api.list_metadata(&params).await.map_err(|error| self.because(&error))?;
            let found = page.items.iter().filter_map(|item| {
                let name = item.metadata.name.as_deref()?.strip_prefix(before)?.strip_suffix(behind)?;
                document::is_name(name).then(|| name.to_owned())
            });
            names.extend(found);
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => params = params.continue_token(&more),
                None => break,
            }
        }
        names.sort();
        Ok(names)
    }

    async fn write(&self, name: &str, before: Option<&Stored>, bytes: &[u8]) -> Result<(), Failed> {
        let api = self.api().await?;
        let secret_name = self.place.name.of(name);
        let data = |mut data: BTreeMap<String, ByteString>| {
            data.insert(MEMBER.to_owned(), ByteString(bytes.to_vec()));
            Some(data)
        };
        let Some(before) = before else {
            let labels = BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())]);
            let metadata = ObjectMeta { name: Some(secret_name), labels: Some(labels), ..ObjectMeta::default() };
            let secret = Secret { metadata, data: data(BTreeMap::new()), ..Secret::default() };
            return match api.create(&PostParams::default(), &secret).await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.because(&error)),
            };
        };
        let mut secret = self.found(name).await?;
        if secret.metadata.resource_version.as_deref() != Some(before.version.as_str()) {
            return Err(self.failed(Fault::Conflict, "the Secret was changed by someone else".to_owned()));
        }
        self.is_ours(&secret)?;
        if let Some(annotations) = &mut secret.metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
        secret.data = data(secret.data.unwrap_or_default());
        // It names the version that was read, and the API server compares.
        let replaced = api.replace(&secret_name, &PostParams::default(), &secret).await;
        replaced.map(|_| ()).map_err(|error| self.because(&error))
    }

    /// A controller would put the old document back, and tokens of the new version would be lost.
    fn is_ours(&self, secret: &Secret) -> Result<(), Failed> {
        let owner = secret.metadata.owner_references.iter().flatten().next();
        match (owner, secret.immutable) {
            (Some(owner), _) => {
                let why = format!(
                    "the Secret belongs to a {}: it would put the old document back. `--out FILE` writes the new one to a file; \
                     give that to whoever makes the Secret",
                    shortened(&owner.kind)
                );
                Err(self.failed(Fault::ReadOnly, why))
            }
            (None, Some(true)) => Err(self.failed(Fault::ReadOnly, "the Secret is immutable".to_owned())),
            _ => Ok(()),
        }
    }
}

fn stored(secret: &Secret) -> Option<Stored> {
    let bytes = secret.data.as_ref()?.get(MEMBER)?.0.clone();
    Some(Stored { bytes, version: secret.metadata.resource_version.clone()? })
}

impl KeyStore for Secrets {
    fn list(&self) -> Answer<'_, Vec<String>> {
        Box::pin(self.list())
    }

    fn read<'a>(&'a self, name: &'a str) -> Answer<'a, Stored> {
        Box::pin(async move {
            let secret = self.found(name).await?;
            let missing = || self.failed(Fault::Missing, format!("the Secret has no member {MEMBER}"));
            stored(&secret).ok_or_else(missing)
        })
    }

    fn write<'a>(&'a self, name: &'a str, before: Option<&'a Stored>, bytes: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(self.write(name, before, bytes))
    }

    fn forget<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let secret = self.place.name.of(name);
            Ok(vec![
                format!("etcd's history and snapshots of the Secret {}/{secret}", self.place.namespace),
                "backups of the cluster, and manifests in Git".to_owned(),
            ])
        })
    }
}

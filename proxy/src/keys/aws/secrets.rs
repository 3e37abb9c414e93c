//! `awssm:NAME`: documents in Secrets Manager. It compares nothing when it writes, but it moves a stage only from the version that is
//! named: so a document is put under a stage of its own, and `AWSCURRENT` moved to it from the version that was read.

use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, Tag};
use oilskin_config::Named;
use oilskin_crypto::document;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::{Instant, sleep};

use super::client::{Service, until};
use crate::backoff;
use crate::keys::provider::{Answer, KeyStore, Stored};
use crate::keys::{Failed, Fault};

/// The version that readers get.
const CURRENT: &str = "AWSCURRENT";

/// The most that a secret holds, in bytes.
const LARGEST: usize = 65_536;

/// How often earlier versions are looked for while others write.
const LOOKS: usize = 3;

/// Before a write, at random up to this long: of many that want the same most then see that it was done.
const SPREAD: Duration = Duration::from_millis(200);

/// Documents in secrets.
pub(in crate::keys) struct Secrets {
    name: Named,
    service: Service<Client>,
}

impl Secrets {
    pub(in crate::keys) fn new(name: &Named, shown: String) -> Self {
        Self { name: name.clone(), service: Service::new(shown, None, |config| Client::new(config)) }
    }

    async fn read(&self, name: &str, until: Instant) -> Result<Stored, Failed> {
        let secret = self.name.of(name);
        let ask = |secrets: Client| secrets.get_secret_value().secret_id(secret).version_stage(CURRENT).send();
        let answer = self.service.call(until, ask).await?;
        let empty = || self.service.failed(Fault::Unreachable, "its answer is empty");
        let bytes = match (answer.secret_string, answer.secret_binary) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(bytes)) => bytes.into_inner(),
            (None, None) => return Err(empty()),
        };
        Ok(Stored { bytes, version: answer.version_id.ok_or_else(empty)? })
    }

    async fn list(&self) -> Result<Vec<String>, Failed> {
        let until = until();
        let Some((before, behind)) = self.name.around() else {
            // One secret holds one keyset, whose name its document says.
            return match self.read("", until).await {
                Err(Failed { fault: Fault::Missing, .. }) => Ok(Vec::new()),
                read => Ok(document::name(&read?.bytes).into_iter().collect()),
            };
        };
        let (mut names, mut more) = (Vec::new(), None);
        loop {
            let ask = |secrets: Client| {
                let call = secrets.list_secrets().max_results(100).set_next_token(more.take());
                let named = Filter::builder().key(FilterNameStringType::Name).values(before).build();
                if before.is_empty() { call } else { call.filters(named) }.send()
            };
            let page = self.service.call(until, ask).await?;
            let found = page.secret_list().iter().filter_map(|secret| {
                let name = secret.name()?.strip_prefix(before)?.strip_suffix(behind)?;
                document::is_name(name).then(|| name.to_owned())
            });
            names.extend(found);
            match page.next_token.filter(|token| !token.is_empty()) {
                Some(token) => more = Some(token),
                None => break,
            }
        }
        names.sort();
        Ok(names)
    }

    async fn write(&self, name: &str, before: Option<&Stored>, bytes: &[u8]) -> Result<(), Failed> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.service.failed(Fault::Wrong, "it is no document"))?;
        if bytes.len() > LARGEST {
            let why = "the document is larger than a secret can be (64 KiB): destroy versions that nothing needs";
            return Err(self.service.failed(Fault::Wrong, why));
        }
        match before {
            None => self.create(&self.name.of(name), text).await,
            Some(before) => self.replace(name, before, text, until()).await,
        }
    }

    async fn create(&self, secret: &str, text: &str) -> Result<(), Failed> {
        let ours = Tag::builder().key("managed-by").value("oilskin").build();
        let ask = |secrets: Client| secrets.create_secret().name(secret).secret_string(text).tags(ours).send();
        self.service.call(until(), ask).await.map(|_| ()).map_err(may_not_write)
    }

    async fn replace(&self, name: &str, before: &Stored, text: &str, until: Instant) -> Result<(), Failed> {
        sleep(SPREAD.mul_f64(backoff::share())).await;
        if self.read(name, until).await?.version != before.version {
            return Err(self.changed());
        }
        let secret = self.name.of(name);
        let token = self.token()?;
        let stage = format!("oilskin-{token}");
        let ask = |secrets: Client| {
            let put = secrets.put_secret_value().secret_id(&secret).secret_string(text);
            put.client_request_token(&token).version_stages(&stage).send()
        };
        let put = self.service.call(until, ask).await.map_err(may_not_write)?;
        let version = put.version_id.unwrap_or(token);
        let moved = self.promote(&secret, &version, &before.version, until).await;
        // Whoever won or lost; where it stays `forget` finds it.
        let _ = self.unstage(&secret, &version, &stage, until).await;
        match moved {
            // It says so with codes that have many meanings: what is current now decides.
            Err(failed) if is_unclear(&failed) => match self.read(name, until).await?.version {
                now if now == version => Ok(()),
                now if now != before.version => Err(self.changed()),
                _ => Err(failed),
            },
            moved => moved,
        }
    }

    async fn promote(&self, secret: &str, version: &str, from: &str, until: Instant) -> Result<(), Failed> {
        let ask = |secrets: Client| {
            let call = secrets.update_secret_version_stage().secret_id(secret).version_stage(CURRENT);
            call.move_to_version_id(version).remove_from_version_id(from).send()
        };
        self.service.call(until, ask).await.map(|_| ()).map_err(may_not_write)
    }

    async fn unstage(&self, secret: &str, version: &str, stage: &str, until: Instant) -> Result<(), Failed> {
        let ask = |secrets: Client| {
            let call = secrets.update_secret_version_stage().secret_id(secret).version_stage(stage);
            call.remove_from_version_id(version).send()
        };
        self.service.call(until, ask).await.map(|_| ())
    }

    async fn forget(&self, name: &str) -> Result<Vec<String>, Failed> {
        let secret = self.name.of(name);
        let earlier = match self.unstage_earlier(&secret).await {
            Ok(()) => "without a stage, they are readable by their ids until AWS deletes them".to_owned(),
            // The document itself is written: what is left is said, not failed over.
            Err(failed) if failed.fault == Fault::Denied => format!(
                "they keep their stages, and so are kept: {}. It takes secretsmanager:DescribeSecret and \
                 secretsmanager:UpdateSecretVersionStage",
                failed.why
            ),
            Err(failed) => return Err(failed),
        };
        Ok(vec![
            format!("earlier versions of the secret {secret}: {earlier}"),
            format!("replicas of {secret} in other regions, and backups"),
        ])
    }

    async fn unstage_earlier(&self, secret: &str) -> Result<(), Failed> {
        let until = until();
        for left in (0..LOOKS).rev() {
            let earlier = self.earlier(secret, until).await?;
            if earlier.is_empty() {
                break;
            }
            for (version, stage) in earlier {
                match self.unstage(secret, &version, &stage, until).await {
                    // A writer took its own stage away meanwhile: another look tells.
                    Err(failed) if is_unclear(&failed) && left > 0 => {}
                    removed => removed?,
                }
            }
        }
        Ok(())
    }

    /// Versions that are not current and can be found, each with its stage.
    async fn earlier(&self, secret: &str, until: Instant) -> Result<Vec<(String, String)>, Failed> {
        let ask = |secrets: Client| secrets.describe_secret().secret_id(secret).send();
        let described = self.service.call(until, ask).await?;
        let versions = described.version_ids_to_stages.unwrap_or_default().into_iter();
        let versions = versions.filter(|(_, stages)| !stages.iter().any(|stage| stage == CURRENT));
        Ok(versions
            .flat_map(|(version, stages)| stages.into_iter().map(move |stage| (version.clone(), stage)))
            .collect())
    }

    fn changed(&self) -> Failed {
        self.service.failed(Fault::Conflict, "the secret was changed by someone else")
    }

    /// 32 characters that no one else has.
    fn token(&self) -> Result<String, Failed> {
        let mut bytes = [0; 16];
        let random = SystemRandom::new().fill(&mut bytes);
        random.map_err(|_| self.service.failed(Fault::Unreachable, "the system gives no random bytes"))?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What is said of a stage that is elsewhere, or of a version that is gone.
fn is_unclear(failed: &Failed) -> bool {
    matches!(failed.fault, Fault::Wrong | Fault::Missing)
}

/// Who may only read is denied nothing that it holds.
fn may_not_write(failed: Failed) -> Failed {
    match failed.fault {
        Fault::Denied => Failed {
            fault: Fault::ReadOnly,
            why: format!("{}. `oilskin keys rotate --out FILE` writes the document to a file", failed.why),
            ..failed
        },
        _ => failed,
    }
}

impl KeyStore for Secrets {
    fn list(&self) -> Answer<'_, Vec<String>> {
        Box::pin(self.list())
    }

    fn read<'a>(&'a self, name: &'a str) -> Answer<'a, Stored> {
        Box::pin(self.read(name, until()))
    }

    fn write<'a>(&'a self, name: &'a str, before: Option<&'a Stored>, bytes: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(self.write(name, before, bytes))
    }

    fn forget<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(self.forget(name))
    }
}

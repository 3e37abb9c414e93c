//! Vault's or OpenBao's PKI as a source: certificates that are issued to us, and others in their place long before they end.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oilskin_config::VaultPki;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::time::sleep;
use vaultrs::api::pki::requests::{GenerateCertificateRequest, ReadCertificateRequest};
use zeroize::Zeroizing;

use super::identities::Identities;
use super::material::{self, Certificate, Material, Refused, Trust};
use super::sessions::Sessions;
use crate::vault::{Caller, Error, Vault};

/// An RSA key is made in seconds.
const DEADLINE: Duration = Duration::from_secs(15);

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(30);

const DAY: Duration = Duration::from_secs(86_400);

/// Keeps a certificate until the process ends.
pub(crate) async fn watch(identities: Arc<Identities>, at: usize, pki: VaultPki, vault: Arc<Vault>) {
    let sessions = Sessions::new(identities, at);
    let mut issued = Issued { caller: Caller::new(&vault), shown: vault.shown(), sessions, pki, held: None };
    loop {
        match issued.refresh().await {
            Ok(()) => {
                issued.sessions.took();
                sleep(issued.rest()).await;
            }
            Err(failed) => {
                issued.tell(&failed);
                issued.sessions.wait().await;
            }
        }
    }
}

/// Why nothing came of it.
enum Failed {
    Vault(Error),
    Material(Refused),
}

struct Issued {
    sessions: Sessions,
    pki: VaultPki,
    caller: Caller,
    shown: String,
    held: Option<Held>,
}

/// What serves, and when another certificate is due.
struct Held {
    material: Material,
    due: SystemTime,
}

impl Issued {
    /// How long nothing needs to be done. Short enough for a clock that was set.
    fn rest(&self) -> Duration {
        let due = self.held.as_ref().and_then(|held| held.due.duration_since(SystemTime::now()).ok());
        due.unwrap_or_default().min(self.pki.crl.unwrap_or(LOOK)).min(LOOK)
    }

    /// The lists anew where they are asked for; a new certificate where one is due.
    async fn refresh(&mut self) -> Result<(), Failed> {
        // First: with lists that cannot be read no certificate is issued in vain.
        let lists = match self.pki.crl {
            Some(_) => Some(self.lists().await?),
            None => None,
        };
        let now = SystemTime::now();
        let (mut material, due) = match self.held.as_ref().filter(|held| now < held.due) {
            Some(_) if lists.is_none() => return Ok(()),
            Some(held) => (held.material.clone(), held.due),
            None => {
                let material = self.issue().await?;
                let end = material.certificate.as_ref().map_or(now, |one| one.facts.not_after);
                self.say_life(end.duration_since(now).unwrap_or_default());
                (material, renewal(now, end))
            }
        };
        material.crls = lists.unwrap_or_default();
        self.sessions.identities.offer(self.sessions.at, material.clone()).map_err(Failed::Material)?;
        self.held = Some(Held { material, due });
        Ok(())
    }

    /// Vault shortens what it will not give, without a word.
    fn say_life(&self, given: Duration) {
        if let Some(asked) = self.pki.ttl.filter(|asked| given < *asked * 9 / 10) {
            tracing::warn!(
                target: "oilskin::tls",
                source = %self.pki,
                asked_seconds = asked.as_secs(),
                given_seconds = given.as_secs(),
                "a certificate lives shorter than was asked for: the role's or the mount's longest is shorter"
            );
        }
    }

    async fn issue(&self) -> Result<Material, Failed> {
        let client = self.caller.client().await.map_err(Failed::Vault)?;
        let pki = &self.pki;
        let given = |names: &str| (!names.is_empty()).then(|| names.to_owned());
        let wish = GenerateCertificateRequest {
            mount: pki.mount.clone(),
            role: pki.role.clone(),
            common_name: given(&pki.common_name),
            alt_names: given(&pki.alt_names),
            ip_sans: given(&pki.ip_sans),
            uri_sans: given(&pki.uri_sans),
            ttl: pki.ttl.map(|ttl| format!("{}s", ttl.as_secs())),
            ..GenerateCertificateRequest::default()
        };
        let given = self.caller.within(DEADLINE, "issue", client.data(wish)).await.map_err(Failed::Vault)?;
        let key = Zeroizing::new(given.private_key);
        let chain = given.ca_chain.unwrap_or_else(|| vec![given.issuing_ca]);
        self.material(&given.certificate, &key, &chain).map_err(Failed::Material)
    }

    fn material(&self, certificate: &str, key: &str, authorities: &[String]) -> Result<Material, Refused> {
        let authorities = authorities.join("\n");
        let mut chain = material::certificates(certificate.as_bytes())?;
        // Whoever has the root needs what lies between; the root itself is of no use to anyone.
        let above = material::certificates(authorities.as_bytes())?;
        chain.extend(above.into_iter().filter(|one| !is_self_issued(one)));
        let key = material::private_key(key.as_bytes())?;
        let certificate = Certificate::new(chain, key, self.sessions.identities.provider())?;
        let trust = self.pki.trust.then(|| Trust::from_pem(authorities.as_bytes())).transpose()?;
        Ok(Material { certificate: Some(certificate), trust, crls: Vec::new() })
    }

    async fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Failed> {
        let client = self.caller.client().await.map_err(Failed::Vault)?;
        let asked = ReadCertificateRequest { mount: self.pki.mount.clone(), serial: "crl".to_owned() };
        let given = self.caller.within(DEADLINE, "crl", client.data(asked)).await.map_err(Failed::Vault)?;
        material::crls(given.certificate.as_bytes()).map_err(Failed::Material)
    }

    fn tell(&self, failed: &Failed) {
        let Sessions { identities, at, .. } = &self.sessions;
        match failed {
            Failed::Material(refused) => identities.refuse(*at, refused),
            Failed::Vault(error) => {
                let text = format!("{} at {}: {}", self.pki.mount, self.shown, error.in_full());
                let refused = Refused::new(error.reason(), text);
                match error.is_answer() {
                    true => identities.refuse(*at, &refused),
                    false => identities.lost(*at, &refused),
                }
            }
        }
    }
}

/// Whether it names itself as its issuer: a root.
fn is_self_issued(der: &CertificateDer<'_>) -> bool {
    material::parsed(der).is_ok_and(|certificate| certificate.issuer().as_raw() == certificate.subject().as_raw())
}

/// When another is asked for: at two thirds of a certificate's life, or 30 days before its end if that is earlier and there are as
/// many; up to a tenth of its life before that, so that not all come at once.
fn renewal(from: SystemTime, to: SystemTime) -> SystemTime {
    let life = to.duration_since(from).unwrap_or_default();
    let mut after = life * 2 / 3;
    if life > 60 * DAY {
        after = after.min(life - 30 * DAY);
    }
    let spread = u64::try_from((life / 10).as_millis()).unwrap_or(u64::MAX).max(1);
    // std seeds this from the system's random source.
    let early = RandomState::new().hash_one(0) % spread;
    from + after - Duration::from_millis(early)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{DAY, renewal};

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_or_thirty_days_before_its_end_and_not_all_at_once() {
        let from = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        for (life, latest) in [
            (Duration::from_secs(60), Duration::from_secs(40)),
            (DAY, Duration::from_secs(16 * 3600)),
            (30 * DAY, 20 * DAY),
            (75 * DAY, 45 * DAY),
            (90 * DAY, 60 * DAY),
            (365 * DAY, 365 * DAY * 2 / 3),
        ] {
            let times: Vec<_> = (0..200).map(|_| renewal(from, from + life)).collect();
            assert!(times.iter().all(|at| *at <= from + latest && *at > from + latest - life / 10), "{life:?}");
            let distinct: std::collections::BTreeSet<_> = times.iter().collect();
            assert!(distinct.len() > 100, "{life:?}");
        }
    }
}

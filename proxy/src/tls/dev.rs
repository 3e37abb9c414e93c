//! An authority for development as a source: made on first use, kept in a folder. What it signs for us is made in memory.

mod authority;
mod folder;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oilskin_config::Dev;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::time::sleep;

use self::authority::{Authority, Purpose};
use self::folder::Folder;
use super::identities::Identities;
use super::material::{Certificate, Material, Refused, Trust, anchor};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority lives so long …
const AUTHORITY: Duration = DAY.saturating_mul(365);

/// … and another takes its place when it has less than this left.
const AUTHORITY_LEFT: Duration = DAY.saturating_mul(30);

/// What we serve with lives so long, and is made anew when a third of it is left.
const OURS: Duration = DAY.saturating_mul(7);

/// The client's pair, which other programs read, lives so long and is made anew at half of it: it is looked at only when ours is made.
const CLIENT: Duration = DAY.saturating_mul(30);

/// How often the clock and the folder are looked at: a machine may have slept, another process may have made an authority.
const LOOK: Duration = Duration::from_secs(60);

/// What the folder's authority signs for us; one is made where there is none.
///
/// # Errors
/// `authority`, `file`: the folder holds something else than was put there.
pub(super) fn load(dev: &Dev, provider: &CryptoProvider) -> Result<Material, Refused> {
    let folder = Folder::open(&dev.dir)?;
    let now = SystemTime::now();
    let authority = match folder.authority(provider)? {
        Some(authority) if authority.ends >= now + AUTHORITY_LEFT => authority,
        _ => {
            let made = Authority::make(now, AUTHORITY)?;
            folder.keep(&made)?;
            made
        }
    };
    folder.show(&authority)?;
    folder.keep_client(&authority, now, provider)?;
    let (certificate, key) = authority.sign(&dev.names, Purpose::Ours, now, OURS)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let certificate = Certificate::new(vec![certificate.der().clone()], key.into(), provider)?;
    let trust = if dev.trust { Some(Trust::Any(vec![anchor(&authority.certificate)?])) } else { None };
    Ok(Material { certificate: Some(certificate), trust, crls: Vec::new() })
}

/// Reads what a start would read, and makes nothing.
///
/// # Errors
/// As [`load`].
pub(super) fn check(dev: &Dev, provider: &CryptoProvider) -> Result<(), Refused> {
    match dev.dir.exists() {
        true => Folder::open(&dev.dir)?.authority(provider).map(drop),
        false => Ok(()),
    }
}

/// Says how to get in.
pub(super) fn announce(dev: &Dev) {
    let at = |file: &str| dev.dir.join(file).display().to_string();
    let (ca, client, key) = (at(folder::CA), at(folder::CLIENT), at(folder::CLIENT_KEY));
    let pair = if dev.trust { format!(" --cert {client} --key {key}") } else { String::new() };
    tracing::warn!(target: "oilskin::tls", ca, "a DEVELOPMENT authority vouches here: curl --cacert {ca}{pair}");
}

/// Keeps our certificate fresh until the process ends.
pub(super) async fn watch(identities: Arc<Identities>, at: usize, dev: Dev) {
    loop {
        sleep(LOOK).await;
        let held = identities.materials(&[at], None).and_then(|mut held| held.pop());
        let (dev, provider) = (dev.clone(), Arc::clone(identities.provider()));
        // A file system may hang.
        let looked = tokio::task::spawn_blocking(move || renewed(held.as_deref(), &dev, &provider)).await;
        let offered = match looked {
            Ok(Ok(None)) => continue,
            Ok(Ok(Some(material))) => identities.offer(at, material),
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(Refused::new("file", "reading the folder failed")),
        };
        if let Err(refused) = offered {
            identities.refuse(at, &refused);
        }
    }
}

/// The next material, where it is time for one.
fn renewed(held: Option<&Material>, dev: &Dev, provider: &CryptoProvider) -> Result<Option<Material>, Refused> {
    let facts = held.and_then(|held| held.certificate.as_ref()).map(|certificate| &certificate.facts);
    let fresh = facts.is_some_and(|facts| SystemTime::now() + OURS / 3 < facts.not_after);
    // A folder that is gone is made anew when ours is, not by each process that ran when someone removed it.
    let same = |authority: Authority| facts.is_some_and(|facts| facts.issuer == authority.name);
    if fresh && (!dev.dir.exists() || Folder::open(&dev.dir)?.authority(provider)?.is_none_or(same)) {
        return Ok(None);
    }
    load(dev, provider).map(Some)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use oilskin_config::Dev;

    use super::{DAY, OURS, load, renewed};
    use crate::tls::material::Material;

    fn issuer(material: &Material) -> &str {
        &material.certificate.as_ref().unwrap().facts.issuer
    }

    #[test]
    fn ours_is_made_anew_at_two_thirds_of_its_life_and_when_another_process_has_another_authority() {
        let folder = tempfile::tempdir().unwrap();
        let (dev, provider) =
            (Dev { dir: folder.path().join("ca"), names: Vec::new(), trust: true }, crate::tls::provider());
        let made = load(&dev, &provider).unwrap();
        let with_left = |left: Duration| {
            let mut material = made.clone();
            material.certificate.as_mut().unwrap().facts.not_after = SystemTime::now() + left;
            renewed(Some(&material), &dev, &provider).unwrap()
        };
        assert!(renewed(Some(&made), &dev, &provider).unwrap().is_none());
        assert!(with_left(OURS / 3 + DAY / 10).is_none());
        let next = with_left(OURS / 3 - DAY / 10).unwrap();
        assert!(!next.is(&made) && issuer(&next) == issuer(&made));

        std::fs::remove_dir_all(&dev.dir).unwrap();
        assert!(renewed(Some(&made), &dev, &provider).unwrap().is_none(), "it serves on");
        assert!(!dev.dir.exists());
        let other = load(&dev, &provider).unwrap();
        let next = renewed(Some(&made), &dev, &provider).unwrap().unwrap();
        assert!(issuer(&next) == issuer(&other) && issuer(&next) != issuer(&made));

        std::fs::write(dev.dir.join("authority.pem"), "half").unwrap();
        assert_eq!(renewed(Some(&next), &dev, &provider).err().unwrap().reason, "authority");
    }
}

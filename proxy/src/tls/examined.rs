//! Everything that is read of what strangers send, by itself: for the fuzz target.

use std::time::SystemTime;

use http::HeaderValue;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::forwarded;
use super::material::{self, Facts, Material, Trust};
use super::peers::Peers;

/// What the app would be told of a peer that came with these bytes as its certificate, and whether a listener lets it in that
/// knows no authority, or none but the peer itself. The bytes are read as a revocation list and as PEM files, too.
pub fn examined(bytes: &[u8]) -> (Option<HeaderValue>, bool) {
    let provider = super::provider();
    let chain = [CertificateDer::from(bytes.to_vec())];
    // What these say does not matter here, only that they say it.
    drop((
        material::certificates(bytes),
        material::private_key(bytes),
        material::crls(bytes),
        chain.each_ref().map(Facts::of),
    ));
    let lists = Material { crls: vec![CertificateRevocationListDer::from(bytes.to_vec())], ..Material::default() };
    let trust = chain.first().and_then(|one| material::anchor(one).ok()).map(|anchor| Trust::Any(vec![anchor]));
    let own = Material { trust, ..Material::default() };
    let taken = [lists, own, Material::default()].iter().any(|material| {
        let judge = Peers::new(&provider, material, &[], &[], false);
        judge.is_ok_and(|judge| judge.still_takes(&chain, SystemTime::now()))
    });
    (chain.first().and_then(|leaf| forwarded::value(leaf, Some(leaf))), taken)
}

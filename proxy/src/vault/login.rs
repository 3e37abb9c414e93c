//! How a token is come by.

use std::path::Path;
use std::time::Duration;

use oilskin_config::{Secreted, VaultLogin};
use vaultrs::api::AuthInfo;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::token::requests::LookupTokenSelfRequest;
use zeroize::Zeroizing;

use super::error::Error;
use super::token::{Lease, Token};
use super::{Caller, Vault};
use crate::tls;

/// Longest secret in a file, in bytes: a batch token has about a thousand.
const MAX_SECRET: usize = 64 << 10;

/// A login or what concerns it.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

impl Vault {
    /// Whether tokens are made for us, and so are ours to give back.
    pub(super) fn logs_in(&self) -> bool {
        !matches!(self.settings.login, VaultLogin::Token(_))
    }

    /// The file that holds the token itself.
    pub(super) fn token_file(&self) -> Option<&Path> {
        match &self.settings.login {
            VaultLogin::Token(Secreted::File(path)) => Some(path),
            _ => None,
        }
    }
}

/// Comes by a token.
///
/// # Errors
/// What Vault or the file system says.
pub(super) async fn login(caller: &Caller) -> Result<Token, Error> {
    match &caller.vault.settings.login {
        VaultLogin::Token(secreted) => given(caller, secreted).await,
        VaultLogin::AppRole { mount, role_id, secret_id } => {
            let secret_id = secret(secret_id)?;
            let client = caller.client_with("")?;
            let asked = LoginWithApproleRequest {
                mount: mount.clone(),
                role_id: role_id.clone(),
                secret_id: secret_id.as_str().to_owned(),
            };
            caller.counted(DEADLINE, "login", client.auth(asked)).await.and_then(token)
        }
    }
}

/// A token that is given; how long it lives is asked.
async fn given(caller: &Caller, secreted: &Secreted) -> Result<Token, Error> {
    let text = secret(secreted)?;
    let client = caller.client_with(&text)?;
    let about = caller.counted(DEADLINE, "lookup", client.data(LookupTokenSelfRequest {})).await?;
    let lease = Lease::new(about.ttl, about.renewable.unwrap_or(false));
    Ok(Token::new(text, lease))
}

/// What a login or a renewal gave.
pub(super) fn token(given: AuthInfo) -> Result<Token, Error> {
    let text = Zeroizing::new(given.client_token);
    match fits(&text) {
        true => Ok(Token::new(text, Lease::new(given.lease_duration, given.renewable))),
        false => Err(Error::settings("the token that Vault gave is none")),
    }
}

/// A header's value: the library panics at others.
fn fits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn secret(secreted: &Secreted) -> Result<Zeroizing<String>, Error> {
    let path = match secreted {
        Secreted::Here(secret) => return Ok(Zeroizing::new(secret.reveal().to_owned())),
        Secreted::File(path) => path,
    };
    let wrong = |what: &str| Error::settings(format!("{}: {what}", path.display()));
    let read = tls::read(path).map_err(|refused| Error::settings(refused.text))?;
    let read = Zeroizing::new(read);
    let text = std::str::from_utf8(&read).map_err(|_| wrong("it is no text"))?.trim();
    match fits(text) {
        true if text.len() <= MAX_SECRET => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(wrong("a secret of visible ASCII, alone, is what must stand in it")),
    }
}

//! How a token is come by.

#[cfg(feature = "aws")]
mod aws;
#[cfg(not(feature = "aws"))]
#[path = "login/no_aws.rs"]
mod aws;

use std::path::Path;
use std::time::Duration;

use oilskin_config::{Secreted, VaultLogin};
use rustify::Endpoint;
use vaultrs::api::AuthInfo;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::cert::requests::LoginRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::token::requests::LookupTokenSelfRequest;
use vaultrs::api::token::responses::LookupTokenResponse;
use zeroize::Zeroizing;

use super::error::Error;
use super::token::{Lease, Token};
use super::{Caller, Client, Vault};
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

    /// The file that holds what a login is done with, or the token itself.
    pub(super) fn secret_file(&self) -> Option<&Path> {
        match &self.settings.login {
            VaultLogin::Token(Secreted::File(path))
            | VaultLogin::AppRole { secret_id: Secreted::File(path), .. }
            | VaultLogin::Jwt { file: path, .. } => Some(path),
            _ => None,
        }
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
            let (mount, role_id) = (mount.clone(), role_id.clone());
            asked(caller, LoginWithApproleRequest { mount, role_id, secret_id: secret_id.as_str().to_owned() }).await
        }
        VaultLogin::Jwt { mount, role, file } => {
            let jwt = file_secret(file)?;
            let (mount, role) = (mount.clone(), role.clone());
            // JWT/OIDC's own login has the same form.
            asked(caller, LoginWithKubernetesRequest { mount, role, jwt: jwt.as_str().to_owned() }).await
        }
        VaultLogin::Cert { mount, role } => {
            let (mount, cert_name) = (mount.clone(), role.clone().unwrap_or_default());
            asked(caller, LoginRequest { mount, cert_name }).await
        }
        VaultLogin::Aws { mount, role, server_id } => {
            asked(caller, aws::login(mount, role.as_deref(), server_id.as_deref()).await?).await
        }
    }
}

/// The token that a login gives.
async fn asked<E: Endpoint<Response = ()>>(caller: &Caller, login: E) -> Result<Token, Error> {
    let client = caller.client_with("")?;
    caller.counted(DEADLINE, "login", client.auth(login)).await.and_then(token)
}

/// A token that is given; how long it lives is asked.
async fn given(caller: &Caller, secreted: &Secreted) -> Result<Token, Error> {
    let text = secret(secreted)?;
    let about = caller.look_up(&text).await?;
    let lease = Lease::new(about.ttl, about.renewable.unwrap_or(false));
    Ok(Token::new(text, lease).looking(true))
}

impl Caller {
    /// What Vault says of a token that asks for it itself.
    ///
    /// # Errors
    /// Vault's, or the way's to it.
    pub(super) async fn look_up(&self, text: &str) -> Result<LookupTokenResponse, Error> {
        let client = self.client_with(text)?;
        self.counted(DEADLINE, "lookup", client.data(LookupTokenSelfRequest {})).await
    }

    /// Whether the token has ended that a client asks with: Vault denies what an ended token asks for in the words in which it denies what a
    /// policy lacks. None where it does not answer, or tokens of this login may not ask.
    pub(crate) async fn has_ended(&self, client: &Client) -> Option<bool> {
        // The one that is held may be its successor: what that may, this one might.
        let may_look = self.vault.token.load().as_deref().is_some_and(Token::may_look);
        if !may_look {
            return None;
        }
        let token = client.token.as_ref()?.to_str().ok()?;
        match self.look_up(token).await {
            Ok(_) => Some(false),
            Err(error) if error.is_denied() => Some(true),
            Err(_) => None,
        }
    }
}

/// What a login or a renewal gave.
pub(super) fn token(given: AuthInfo) -> Result<Token, Error> {
    let text = Zeroizing::new(given.client_token);
    match fits(&text) {
        true => Ok(Token::new(text, Lease::new(given.lease_duration, given.renewable))),
        false => Err(Error::settings("the token that Vault gave is none")),
    }
}

/// A header's value.
fn fits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn secret(secreted: &Secreted) -> Result<Zeroizing<String>, Error> {
    match secreted {
        Secreted::Here(secret) => Ok(Zeroizing::new(secret.reveal().to_owned())),
        Secreted::File(path) => file_secret(path),
    }
}

fn file_secret(path: &Path) -> Result<Zeroizing<String>, Error> {
    let wrong = |what: &str| Error::settings(format!("{}: {what}", path.display()));
    let read = tls::read(path).map_err(|refused| Error::settings(refused.text))?;
    let read = Zeroizing::new(read);
    let text = std::str::from_utf8(&read).map_err(|_| wrong("it is no text"))?.trim();
    match fits(text) {
        true if text.len() <= MAX_SECRET => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(wrong("a secret of visible ASCII, alone, is what must stand in it")),
    }
}

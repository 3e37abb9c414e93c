//! What stands for a login by AWS in a build without it.

use vaultrs::api::auth::cert::requests::LoginRequest;

use super::Error;

/// # Errors
/// Always.
pub(super) async fn login(_: &str, _: Option<&str>, _: Option<&str>) -> Result<LoginRequest, Error> {
    Err(Error::settings("this program was built without AWS: build with the feature `aws`"))
}

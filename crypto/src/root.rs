//! Root keys: they wrap W and never leave their home.

mod file;

use std::sync::Arc;

pub use file::FileRoot;

use crate::Error;
use crate::slab::{Key, Slab};

/// What a wrapped share is bound to.
pub struct Share {
    pub(crate) aad: Vec<u8>,
}

/// A root key. Its secret operations see shares in locked memory only.
pub trait RootKey: Send + Sync {
    /// Names it in documents.
    fn id(&self) -> Vec<u8>;

    /// Its kind, as its URI begins.
    fn kind(&self) -> &'static str;

    /// Wraps a share.
    ///
    /// # Errors
    /// [`Error::Root`].
    fn wrap_share(&self, share: &Key, bound: &Share) -> Result<Vec<u8>, Error>;

    /// Unwraps it again, into the slab.
    ///
    /// # Errors
    /// [`Error::Root`].
    fn unwrap_share(&self, wrapped: &[u8], bound: &Share, slab: &Arc<Slab>) -> Result<Key, Error>;
}

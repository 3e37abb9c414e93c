//! Ciphers, field tokens, keysets, root keys and key stores of Oilskin. Knows nothing of HTTP or configuration.

mod aead;
mod base64url;
mod derive;
pub mod document;
mod error;
mod frame;
mod header;
mod index;
mod json;
mod keyset;
mod message;
mod nonce;
mod remembered;
mod root;
mod slab;
mod sodium;
mod spec;
mod store;
mod text;
mod wiped;

pub use error::{DecryptReason, Error};
pub use frame::Frame;
pub use header::{Algorithm, Cipher, PREFIX, Type};
pub use index::{Normalisers, index};
pub use keyset::{DEFAULT_MAX_USES, InUse, Keyset, KeysetHandle, State};
pub use message::{Message, Opened, looks_like_token};
pub use remembered::Remembered;
pub use root::FileRoot;
pub use slab::{DEFAULT_BYTES, Key, Slab};
pub use spec::{Bound, FieldSpec, Value};
pub use store::FileStore;
pub use wiped::Wiped;

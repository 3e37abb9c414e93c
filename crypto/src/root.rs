//! Root keys that need nothing but this crate. Those behind a network or a module are the program's.

mod file;
mod passphrase;

pub use file::FileRoot;

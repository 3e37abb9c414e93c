//! Settings of Oilskin: text (environment, YAML) to one typed [`Config`]. No tokio, no crypto, no I/O.

mod model;
mod selector;

pub use model::*;
pub use selector::{Segment, Selector, SelectorError, Step};

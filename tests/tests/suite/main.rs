//! One binary: the app in process, real sockets, real clients.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod attacks;
mod bypass;
mod command;
mod failing;
mod forwarding;
mod fuzzing;
mod json_texts;
mod nonces;
mod refusals;
mod second_readers;
mod selectors;

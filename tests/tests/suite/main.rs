//! One binary: the app in process, real sockets, real clients.

mod bypass;
mod failing;
mod forwarding;
mod refusals;

//! Requests and transfers against a simulated server.

pub(crate) mod server;
pub(crate) mod sim;

mod attributes;
mod bytes;
mod calls;
mod control;
mod crew;
mod get;
mod hostile;
mod links;
#[cfg(unix)]
mod pipe;
mod put;
mod quirks;
mod stream;
mod sync;
mod together;
#[cfg(unix)]
mod trees;
mod vanished;
mod waiting;

//! Other people's SSH, as servers and as clients.

pub(crate) mod client;
mod inetd;
pub(crate) mod scripted;
pub(crate) mod server;

//! One file for each command; what they share is how they log in, and how
//! a transfer is shown.

pub(crate) mod algorithms;
pub(crate) mod cat;
pub(crate) mod demo;
pub(crate) mod exec;
pub(crate) mod find;
#[cfg(unix)]
pub(crate) mod flows;
pub(crate) mod get;
#[cfg(unix)]
mod keys;
pub(crate) mod listen;
pub(crate) mod ln;
mod login;
pub(crate) mod ls;
pub(crate) mod mkdir;
pub(crate) mod mv;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod stat;
pub(crate) mod sync;
mod transfer;

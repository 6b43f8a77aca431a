//! One file for each command; what they share is how they log in, and how
//! a transfer is shown.

pub(crate) mod algorithms;
pub(crate) mod demo;
pub(crate) mod exec;
pub(crate) mod get;
#[cfg(unix)]
mod keys;
pub(crate) mod listen;
mod login;
pub(crate) mod ls;
pub(crate) mod put;
pub(crate) mod serve;
pub(crate) mod sync;
mod transfer;

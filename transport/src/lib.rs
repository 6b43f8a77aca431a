//! SSH transport (RFC 4253), authentication (RFC 4252) and channels (RFC 4254): client and server
//! from one code base.
//!
//! ```text
//!   bytes          packet        message         state machines               driver (tokio)
//!   ketch_wire --> packet    --> message     --> handshake, auth, mux     --> driver
//!                  seal, open    one struct      composed by connection       owns the stream,
//!                  in place      each            no socket, clock, task       routes to applications
//! ```
//!
//! Everything but [`driver`] is sans-IO: [`connection::Connection`] takes bytes and returns bytes
//! and events. The driver is thin and optional (feature `tokio`).
//!
//! **Copies of a byte that is received**: the kernel writes it to the receive arena, it is decrypted
//! there, and lent from there. **Of a byte that is sent**: it is written into its packet's slot
//! ([`room::Room`]), encrypted there, and read by the kernel from there.
#![forbid(unsafe_code)]

pub mod admission;
pub mod algorithm;
pub mod auth;
pub mod channel;
pub mod config;
pub mod connection;
pub mod crypto;
#[cfg(feature = "tokio")]
pub mod driver;
pub mod error;
pub mod event;
mod handshake;
pub mod info;
mod keeper;
pub mod message;
#[cfg(test)]
mod misbehaving_peer;
mod mux;
pub mod negotiation;
mod outbox;
pub mod packet;
#[cfg(test)]
mod pair;
pub mod profile;
pub mod room;
pub mod session;
mod strict;

//! One connection, and everything that may go on on it at a time: downloads, uploads, a byte stream,
//! calls that are given up half-way, a sink that sleeps, a server that answers nothing.
//!
//! Client and server are ketch's own and run in this process, over `tokio::io::duplex` and over a
//! socket. No test waits for a time to pass and hopes: what is asserted is what happened before what.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test owns time and tasks")]

mod cuts;
mod dropped;
mod echo;
mod mixed;
mod own_extensions;
mod random;
mod scene;
mod silent_server;
mod slow_sink;
mod wire;

/// Counts the heap where a test asks it to (`slow_sink.rs`); passes everything on otherwise.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

//! The `ketch` program, run as its users run it, against a `ketch serve` of its own.
#![cfg(unix)]

mod commands;
mod failures;
mod scene;

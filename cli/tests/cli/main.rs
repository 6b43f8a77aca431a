//! The `ketch` program, run as its users run it, against a `ketch serve` of its own.
#![cfg(unix)]

#[cfg(target_os = "linux")]
mod clock;
mod commands;
#[cfg(target_os = "linux")]
mod config;
mod failures;
#[cfg(target_os = "linux")]
mod flows;
#[cfg(target_os = "linux")]
mod ledger;
#[cfg(target_os = "linux")]
mod listen;
#[cfg(target_os = "linux")]
mod openssh;
mod paths;
#[cfg(target_os = "linux")]
mod process;
mod scene;
mod selection;
#[cfg(target_os = "linux")]
mod serve_file;
mod serve_records;
#[cfg(target_os = "linux")]
mod sync;
#[cfg(target_os = "linux")]
mod uploads;

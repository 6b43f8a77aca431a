//! Measuring whole programs: what a client spends, and what its server does.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`measure`] | wall time, processor time and peak memory of one command and its children |
//! | [`server_time`] | processor time of an sshd, sessions that lost their parent included |
//! | [`spent`] | processor time of this process and of an sshd that serves it, up to now |
//! | [`ketch_server`] | a `ketch serve` beside an sshd, for the same account |
//! | [`hot_pages`] | free memory that stays with a virtual machine, for timings that repeat |
//! | [`median`] | the middle of a few figures |
//! | [`row`] | what is measured, and what is aimed at |
//! | [`tool`] | the programs that are measured, and how each is called |
//! | [`files`] | what they copy, and whether the copies are right |
//! | [`chart`] | lines, drawn as SVG |
//! | [`link`] | a link as a model: rate, delay, buffer, loss |
//! | [`delay_proxy`] | that link between a client and a server on loopback, without TCP's part |
//! | [`relay`] | that link between two [`namespace`]s, for what TCP does on it |
//!
//! Figures are printed, never asserted: a test that depends on timing is wrong some day. The
//! programs are in `src/bin`, the criterion benches in `benches`.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod chart;
pub mod delay_proxy;
mod error;
pub mod files;
pub mod hot_pages;
pub mod ketch_server;
pub mod link;
pub mod measure;
pub mod median;
pub mod namespace;
pub mod relay;
pub mod row;
pub mod server_time;
pub mod spent;
pub mod tool;

pub use error::BenchError;

//! Measuring whole programs: what a client spends, and what its server does.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`measure`] | wall time, processor time and peak memory of one command and its children |
//! | [`server_time`] | processor time of an sshd, sessions that lost their parent included |
//! | [`hot_pages`] | free memory that stays with a virtual machine, for timings that repeat |
//! | [`median`] | the middle of a few figures |
//!
//! Figures are printed, never asserted: a test that depends on timing is wrong some day. The
//! programs are in `src/bin`, the criterion benches in `benches`.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod error;
pub mod hot_pages;
pub mod measure;
pub mod median;
pub mod server_time;

pub use error::BenchError;

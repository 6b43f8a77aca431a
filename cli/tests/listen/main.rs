//! Nothing lost, nothing doubled, nothing torn: `ketch listen --config` against a real sshd and a writer
//! that keeps a journal (rows R13 to R25 of `docs/threats.md`).
//!
//! The judge is the writer's journal against the sink; nobody asks the listener's ledger. Each test prints
//! its counts and its seed.
//!
//! | variable | what it sets |
//! | --- | --- |
//! | `KETCH_LISTEN_FILES` | new files of the large runs |
//! | `KETCH_LISTEN_KILLS` | kills, cuts and signals of each of them |
//! | `KETCH_LISTEN_SEED` | the seed |
//! | `KETCH_LISTEN_SOAK` | minutes of the long run |
//! | `KETCH_LISTEN_KEEP` | a directory: what a run that fails leaves is copied there |
//! | `KETCH_LISTEN_PROGRAM` | another `ketch` to run |
#![cfg(target_os = "linux")]
#![expect(
    clippy::disallowed_methods,
    reason = "the moments of kills are a matter of the clock"
)]

mod after;
mod alike;
mod bucket;
mod chaos;
mod daemon;
mod damage;
mod elsewhere;
mod flaps;
mod network;
#[path = "../../../listener/tests/peers/mod.rs"]
mod peers;
mod plain;
mod pre_move;
mod renamed;
mod replicas;
mod scene;
mod sinks;
mod soak;

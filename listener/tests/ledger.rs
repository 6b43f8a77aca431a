//! Ledgers: one suite that every [`Store`](ketch_listener::store::Store) has to pass, run against
//! SQLite and a real PostgreSQL; and what each of them has to survive.
#![cfg(all(unix, feature = "flows"))]

#[cfg(target_os = "linux")]
#[path = "ledger/compact.rs"]
mod compact;
#[path = "ledger/contract.rs"]
mod contract;
#[cfg(target_os = "linux")]
#[path = "ledger/disk.rs"]
mod disk;
#[path = "ledger/portable.rs"]
mod portable;

#[cfg(feature = "postgres")]
mod peers;
#[cfg(feature = "postgres")]
#[path = "ledger/postgres.rs"]
mod postgres;
#[cfg(target_os = "linux")]
#[path = "ledger/power.rs"]
mod power;
#[path = "ledger/repair.rs"]
mod repair;
#[path = "ledger/sqlite.rs"]
mod sqlite;
#[path = "ledger/world.rs"]
mod world;

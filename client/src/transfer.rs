//! Transfers: files and trees of them, whole or not at all.
//!
//! A transfer is a plan (`plan.rs`) of files with a policy, worked off by a job that lives with the
//! requests of its channel (`get.rs`, `put.rs`). What is asked for next is decided by machines
//! without I/O: [`download`], [`upload`] and [`ranges`] for one file, [`pace`] for the bytes in
//! flight of the connection. Local files are written and read where that is quick, and on threads
//! where it is not (`disk.rs`).

pub(crate) mod chunk;
pub(crate) mod control;
pub(crate) mod crew;
pub(crate) mod disk;
pub(crate) mod download;
pub(crate) mod error;
pub(crate) mod get;
pub(crate) mod hands;
pub(crate) mod links;
pub(crate) mod local;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod outcome;
pub(crate) mod pace;
pub(crate) mod part;
pub(crate) mod plan;
pub(crate) mod put;
pub(crate) mod ranges;
pub(crate) mod rate;
pub(crate) mod report;
pub(crate) mod sink;
pub(crate) mod trial;
pub(crate) mod upload;

pub use self::{
    control::{Control, Priority},
    disk::HELD_MAX,
    download::ReadFault,
    error::{Place, TransferError},
    local::LocalAction,
    names::NameFault,
    options::{
        Durability, GetOptions, Links, Overwrite, Preserve, PutOptions, Resume, Sparse, Streams,
        Verify,
    },
    rate::RateLimit,
    report::{Failed, REPORTED_MAX, Remark, Remarkable, Report, Skipped, WhySkipped},
    sink::{Sink, Source},
    upload::SourceShrank,
};

//! The work that is measured, and what is aimed at: one row each.
//!
//! A figure is ketch's median divided by that of OpenSSH's `sftp` in the same run, unless it says
//! seconds or mebibytes.

use std::time::Duration;

use serde::Serialize;

use crate::tool::Work;

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done.
    pub work: Work,
    /// How much of it.
    pub amount: Amount,
    /// Over which path.
    pub path: PathKind,
    /// Whether the files are on a disk, and whether their content must have reached it.
    pub disk: Disk,
    /// What is aimed at.
    pub targets: &'static [Target],
}

/// How much work, by the parameter that sets it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Amount {
    /// One file of `--size`.
    Size,
    /// One file of `--far-size`.
    FarSize,
    /// One file of `--memory-size`, all zeros.
    MemorySize,
    /// `--files` files of 4 KiB.
    Files,
    /// `--far-files` files of 4 KiB.
    FarFiles,
    /// `--entries` empty files.
    Entries,
    /// One file to look at.
    One,
}

/// What lies between client and server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathKind {
    /// Nothing.
    Loopback,
    /// The delay proxy, with `--rtt`.
    Far,
    /// The delay proxy, with 100 ms.
    Farther,
}

impl PathKind {
    /// The round trip time that the proxy makes.
    #[must_use]
    pub const fn rtt(self, far: Duration) -> Duration {
        match self {
            Self::Loopback => Duration::ZERO,
            Self::Far => far,
            Self::Farther => Duration::from_millis(100),
        }
    }
}

/// Where the files are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disk {
    /// In memory, `--dir`.
    No,
    /// On a disk, `--disk-dir`, as the system writes them.
    Yes,
    /// There, and written before the command ends.
    Durable,
}

/// A bound on a figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Target {
    /// Of what.
    pub figure: Figure,
    /// What it may be at most.
    pub at_most: f64,
    /// What is tried for.
    pub stretch: Option<f64>,
}

/// What a target speaks of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Time, ours by `sftp`'s.
    Wall,
    /// Processor time of the client, ours by `sftp`'s.
    ClientCpu,
    /// Processor time of the server, under us by that under `sftp`.
    ServerCpu,
    /// Time in seconds.
    WallSeconds,
    /// Peak memory in MiB.
    MemoryMib,
}

const fn target(figure: Figure, at_most: f64, stretch: f64) -> Target {
    Target {
        figure,
        at_most,
        stretch: Some(stretch),
    }
}

const fn bound(figure: Figure, at_most: f64) -> Target {
    Target {
        figure,
        at_most,
        stretch: None,
    }
}

const fn row(name: &'static str, work: Work, amount: Amount, targets: &'static [Target]) -> Row {
    Row {
        name,
        work,
        amount,
        path: PathKind::Loopback,
        disk: Disk::No,
        targets,
    }
}

const fn far(row: Row) -> Row {
    Row {
        path: PathKind::Far,
        ..row
    }
}

const fn farther(row: Row) -> Row {
    Row {
        path: PathKind::Farther,
        ..row
    }
}

const fn on(disk: Disk, row: Row) -> Row {
    Row { disk, ..row }
}

use Amount::{Entries, FarFiles, FarSize, Files, MemorySize, One, Size};
use Figure::{ClientCpu, MemoryMib, ServerCpu, Wall, WallSeconds};
use Work::{Get, GetMany, List, Put, PutMany, Stat};

/// The rows that are measured unless others are asked for.
pub const TABLE: &[Row] = &[
    row(
        "down",
        Get,
        Size,
        &[
            target(Wall, 0.62, 0.42),
            target(ClientCpu, 0.50, 0.40),
            target(ServerCpu, 0.80, 0.60),
        ],
    ),
    row(
        "up",
        Put,
        Size,
        &[
            target(Wall, 0.62, 0.38),
            target(ClientCpu, 0.42, 0.30),
            target(ServerCpu, 0.95, 0.65),
        ],
    ),
    row(
        "small-down",
        GetMany,
        Files,
        &[target(Wall, 0.067, 0.04), target(ClientCpu, 0.06, 0.035)],
    ),
    row(
        "small-up",
        PutMany,
        Files,
        &[target(Wall, 0.083, 0.055), target(ClientCpu, 0.08, 0.04)],
    ),
    far(row(
        "far-down",
        Get,
        FarSize,
        &[target(Wall, 0.11, 0.08), bound(ClientCpu, 0.45)],
    )),
    far(row(
        "far-up",
        Put,
        FarSize,
        &[target(Wall, 0.17, 0.11), bound(ClientCpu, 0.45)],
    )),
    far(row(
        "far-small-down",
        GetMany,
        FarFiles,
        &[target(Wall, 0.0035, 0.0021), bound(WallSeconds, 0.75)],
    )),
    far(row(
        "far-small-up",
        PutMany,
        FarFiles,
        &[target(Wall, 0.005, 0.0024), bound(WallSeconds, 0.75)],
    )),
    row(
        "list",
        List,
        Entries,
        &[
            target(Wall, 0.33, 0.28),
            target(ClientCpu, 0.08, 0.045),
            bound(MemoryMib, 24.0),
        ],
    ),
    far(row(
        "far-list",
        List,
        Entries,
        &[target(WallSeconds, 0.8, 0.6)],
    )),
    row(
        "connect",
        Stat,
        One,
        &[target(Wall, 0.2, 0.13), bound(ClientCpu, 0.1)],
    ),
    far(row(
        "far-connect",
        Stat,
        One,
        &[target(Wall, 0.2, 0.16), bound(ClientCpu, 0.1)],
    )),
];

/// Rows that take long, or a disk: by their names alone.
pub const MORE: &[Row] = &[
    row("memory-down", Get, MemorySize, &[bound(MemoryMib, 24.0)]),
    row("memory-up", Put, MemorySize, &[bound(MemoryMib, 24.0)]),
    farther(row(
        "far-memory-down",
        Get,
        MemorySize,
        &[bound(MemoryMib, 96.0)],
    )),
    farther(row(
        "far-memory-up",
        Put,
        MemorySize,
        &[bound(MemoryMib, 96.0)],
    )),
    on(Disk::Yes, row("disk-down", Get, Size, &[])),
    on(Disk::Yes, row("disk-up", Put, Size, &[])),
    on(Disk::Durable, row("durable-down", Get, Size, &[])),
    on(Disk::Durable, row("durable-up", Put, Size, &[])),
];

impl Row {
    /// The row of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = TABLE.iter().chain(MORE);
        all.find(|row| row.name == name).copied()
    }
}

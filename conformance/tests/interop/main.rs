//! Other people's SSH against ours: every algorithm in both roles, round trips, audits, and the
//! attacks of a man in the middle. `scripts/setup-peers` installs the peers; one that is missing
//! fails the tests.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test owns time and tasks")]

mod agent;
mod audit;
mod flights;
mod material;
mod matrix;
mod offer;
mod ours;
mod peers;
mod report;
mod round_trips;
mod subject;
mod tamper;
mod terrapin;

use std::sync::Arc;

use material::Material;
use matrix::{Cell, Column};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matrix_of_all_algorithms_and_peers() {
    let material = Arc::new(Material::make().await);
    let only = std::env::var("KETCH_INTEROP_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| name.contains(only));
    let (mut servers, mut clients) = (JoinSet::new(), JoinSet::new());
    for (at, kind) in peers::server::Kind::ALL.into_iter().enumerate() {
        if wanted(&format!("server {}", kind.name())) {
            let material = Arc::clone(&material);
            servers.spawn(async move {
                let column = matrix::with_server(kind, material).await;
                (
                    at,
                    column.map_err(|error| format!("{}: {error}", kind.name())),
                )
            });
        }
    }
    for (at, kind) in peers::client::Kind::ALL.into_iter().enumerate() {
        if wanted(&format!("client {}", kind.name())) {
            let material = Arc::clone(&material);
            clients.spawn(async move {
                let column = matrix::with_client(kind, material).await;
                (
                    at,
                    column.map_err(|error| format!("{}: {error}", kind.name())),
                )
            });
        }
    }
    let mut servers = in_order(servers.join_all().await);
    let mut clients = in_order(clients.join_all().await);
    let mut failures = Vec::new();
    for (role, columns) in [("server", &mut servers), ("client", &mut clients)] {
        for column in columns {
            match column {
                Err(error) => failures.push(format!("a peer as {role}: {error}")),
                Ok(column) => failures.extend(failed(role, column)),
            }
        }
    }
    let keep = |columns: Vec<Result<Column, String>>| -> Vec<Column> {
        columns.into_iter().flatten().collect()
    };
    let document = report::document(&keep(servers), &keep(clients));
    assert!(
        failures.is_empty(),
        "{} cells fail:\n{}\n",
        failures.len(),
        failures.join("\n")
    );
    if only.is_none() {
        report::settle("docs/interop.md", &document).unwrap();
    } else {
        println!("{document}");
    }
}

fn in_order(mut columns: Vec<(usize, Result<Column, String>)>) -> Vec<Result<Column, String>> {
    columns.sort_by_key(|(at, _)| *at);
    columns.into_iter().map(|(_, column)| column).collect()
}

fn failed(role: &str, column: &Column) -> Vec<String> {
    let failed = column
        .cells
        .iter()
        .filter_map(|(subject, cell)| match cell {
            Cell::Fails(why) => Some(format!(
                "{} as {role}, {} {}: {why}",
                column.name,
                subject.category(),
                subject.name()
            )),
            Cell::Works | Cell::Blank(_) | Cell::Ours(_) => None,
        });
    failed.collect()
}

//! Detection over a directory of this machine: several directories at a time, on blocking threads.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use ketch_client::{Attrs, RemotePath};
use tokio::task::JoinSet;

use super::{Local, beneath};
use crate::detect::{Answer, ListError, Lister, Plan};
use crate::listing::{ENTRIES_MAX, Listing};

/// Directories that are listed at the same time.
const LISTED_AT_ONCE: usize = 8;

impl Lister for Local {
    fn list<'a>(&'a self, plan: &'a mut dyn Plan) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tasks = JoinSet::new();
            let mut under_way = HashMap::new();
            loop {
                while tasks.len() < LISTED_AT_ONCE
                    && let Some(directory) = plan.next()
                {
                    let (root, path) = (Arc::clone(&self.root), directory.clone());
                    let task = tasks.spawn_blocking(move || -> Result<Listing, ListError> {
                        let mut listing = Listing::new(ENTRIES_MAX);
                        beneath::list(&root, &path, &mut listing)?;
                        Ok(listing.finish())
                    });
                    under_way.insert(task.id(), directory);
                }
                let (task, result) = match tasks.join_next_with_id().await {
                    None => return,
                    Some(Ok(done)) => done,
                    Some(Err(error)) => (error.id(), Err(io::Error::other(error).into())),
                };
                if let Some(directory) = under_way.remove(&task) {
                    plan.listed(directory, result);
                }
            }
        })
    }

    fn look<'a>(&'a self, paths: &'a [RemotePath]) -> Answer<'a, Vec<Result<Attrs, ListError>>> {
        let (root, asked) = (Arc::clone(&self.root), paths.to_vec());
        Box::pin(async move {
            let looks = tokio::task::spawn_blocking(move || {
                let look = |path| beneath::look(&root, path).map_err(ListError::from);
                asked.iter().map(look).collect()
            });
            looks.await.unwrap_or_else(|error| {
                let failed = ListError::from(io::Error::other(error));
                paths.iter().map(|_| Err(failed.clone())).collect()
            })
        })
    }
}

//! What a worker knows of its own claim: until when it surely holds, and whom to ask afterwards.
//!
//! A claim that was taken or renewed less than half a lease ago holds, whatever happens elsewhere:
//! nobody takes it before it ran out. Where one process has the ledger to itself that spares it the
//! question; where several share it, it is asked each time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::shared::{millis, now};
use crate::sink::fence::StillOurs;
use crate::sink::{Answer, SinkError};
use crate::store::{ClaimId, Store, StoreError};

/// One claim, as its worker sees it.
#[derive(Debug)]
pub(super) struct Hold {
    store: Arc<dyn Store>,
    claim: ClaimId,
    lease: Duration,
    is_shared: bool,
    since: Mutex<Since>,
}

/// A moment by both clocks: one of them stands still while the machine sleeps, and the other may be
/// set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    steady: Instant,
    wall: u64,
}

impl Since {
    pub(super) fn now() -> Self {
        Self {
            steady: now(),
            wall: millis(),
        }
    }

    /// Whether less than `span` has gone by, by both clocks.
    fn is_within(self, span: Duration) -> bool {
        let wall = millis().checked_sub(self.wall).map(Duration::from_millis);
        self.steady.elapsed() < span && wall.is_some_and(|wall| wall < span)
    }
}

impl Hold {
    /// The claim was taken at `since` or a little later.
    pub(super) fn new(
        store: Arc<dyn Store>,
        claim: ClaimId,
        lease: Duration,
        is_shared: bool,
        since: Since,
    ) -> Self {
        Self {
            store,
            claim,
            lease,
            is_shared,
            since: Mutex::new(since),
        }
    }

    /// It was renewed at `since` or a little later.
    pub(super) fn renewed(&self, since: Since) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_fresh(&self) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_within(self.lease / 2)
    }

    async fn asked(&self) -> Result<(), StoreError> {
        if !self.is_shared && self.is_fresh() {
            return Ok(());
        }
        let since = Since::now();
        let ids = std::slice::from_ref(&self.claim);
        if self.store.renew(ids, self.lease).await?.is_empty() {
            self.renewed(since);
            Ok(())
        } else {
            Err(StoreError::Lost)
        }
    }
}

impl StillOurs for Hold {
    fn still_ours(&self) -> Answer<'_, ()> {
        Box::pin(async { self.asked().await.map_err(SinkError::Fenced) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::item::{Change, FlowName};
    use crate::snapshot::Facts;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{ClaimAsk, Order, Record};
    use ketch_client::FileType;

    /// A claim that another took meanwhile does not hold, however sure its worker was.
    #[tokio::test]
    async fn a_claim_that_another_took_does_not_hold() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(dir.path().join("ledger")).expect("a ledger");
        let store: Arc<dyn Store> = Arc::new(store);
        let flow = FlowName::new("in").expect("a name");
        let scan = store.begin_scan(&flow, 0).await.expect("a scan").scan;
        let facts = Facts {
            kind: FileType::Regular,
            size: Some(1),
            mtime: None,
        };
        let changes = [Change::Present {
            path: "a".into(),
            facts,
            sha256: None,
        }];
        let record = Record {
            scan,
            lease: None,
            changes: &changes,
            removals: false,
            renames: false,
        };
        store.record(&flow, record).await.expect("recorded");
        let ask = |owner, lease| ClaimAsk {
            owner,
            lease,
            order: Order::Any,
            max: 1,
        };
        // The first is held up beyond its lease, which is none at all; the second takes it over.
        let first = store.claim(&flow, ask("a", Duration::ZERO)).await;
        let first = first.expect("claimed").remove(0).id;
        let second = store.claim(&flow, ask("b", Duration::from_secs(60))).await;
        let second = second.expect("claimed").remove(0).id;
        for is_shared in [false, true] {
            let hold = |claim: &ClaimId| {
                let lease = Duration::ZERO;
                Hold::new(
                    Arc::clone(&store),
                    claim.clone(),
                    lease,
                    is_shared,
                    Since::now(),
                )
            };
            let held = hold(&first).still_ours().await;
            assert!(matches!(held, Err(SinkError::Fenced(StoreError::Lost))));
            let long = Hold {
                lease: Duration::from_secs(60),
                ..hold(&second)
            };
            long.still_ours().await.expect("it has it");
        }
    }
}

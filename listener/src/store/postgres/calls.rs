//! The calls of a ledger that are more than one statement: each is a transaction that locks rows, asks
//! the machine (`store/row.rs`) what becomes of them, and writes that.

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::Transaction;
use ketch_client::RemotePath;

use super::Shared;
use super::rows::{Locked, commit, number, start};
use crate::flow::item::{Change, FlowName};
use crate::store::encoding::column;
use crate::store::row::record::Ground;
use crate::store::row::{Entry, Step, millis};
use crate::store::{
    BATCH_MAX, Claim, ClaimAsk, ClaimId, End, Order, Record, Recorded, Row, ScanStart, StoreError,
};

impl Shared {
    /// Changes the row that `claim` has.
    pub(super) async fn step(
        &self,
        claim: &ClaimId,
        step: impl FnOnce(&mut Entry),
    ) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let mut entry = self.held(&t, claim).await?;
        let before = entry.clone();
        step(&mut entry);
        if entry != before {
            let row = (entry.path.as_bytes().to_vec(), Some(entry));
            self.write(&t, &claim.flow, vec![row]).await?;
        }
        commit(t).await
    }

    /// Locks the row that `claim` has.
    async fn held(&self, t: &Transaction<'_>, claim: &ClaimId) -> Result<Entry, StoreError> {
        let path = claim.path.as_bytes().to_vec();
        let locked = self.lock(t, &claim.flow, &[path]).await?;
        let entry = locked.into_values().flatten().next();
        let entry = entry.ok_or(StoreError::Lost)?;
        entry.fence(claim)?;
        Ok(entry)
    }

    pub(super) async fn record(
        &self,
        flow: &FlowName,
        record: Record<'_>,
    ) -> Result<Recorded, StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        if let Some((name, owner)) = record.lease {
            // Shared: nobody takes the lease over before this has ended.
            let sql = "SELECT 1 FROM @.leases WHERE name = $1 AND owner = $2 AND until > $now \
                 FOR SHARE";
            let held = self
                .query(&t, sql, &[&name, &owner], "check its lease")
                .await?;
            if held.is_empty() {
                return Err(StoreError::Lost);
            }
        }
        let mut paths: Vec<Vec<u8>> = Vec::new();
        for change in record.changes {
            paths.push(change.path().as_bytes().to_vec());
            if let Change::Renamed { from, .. } = change {
                paths.push(from.as_bytes().to_vec());
            }
        }
        paths.sort_unstable();
        paths.dedup();
        let (before, damaged) = self.lock_and_look(&t, flow, &paths).await?;
        let now = self.now(&t).await?;
        // Once to count how many numbers it takes, once with them.
        let mut count = 0_u64;
        let mut after = before.clone();
        let mut recorded = run(&record, &mut after, now, &mut || {
            count = count.saturating_add(1);
            count
        });
        if count > 0 {
            let mut numbers = self.numbers(&t, count).await?.into_iter();
            after.clone_from(&before);
            recorded = run(&record, &mut after, now, &mut || {
                numbers.next().unwrap_or_default()
            });
        }
        let aside = damaged
            .into_iter()
            .filter(|path| after.get(path) != before.get(path))
            .map(|path| stands(path, &after, record.changes))
            .collect();
        let changed = after
            .into_iter()
            .filter(|(path, row)| before.get(path) != Some(row))
            .collect();
        self.write(&t, flow, changed).await?;
        commit(t).await?;
        self.tell_aside(flow, aside);
        Ok(recorded)
    }

    pub(super) async fn claim(
        &self,
        flow: &FlowName,
        ask: ClaimAsk<'_>,
    ) -> Result<Vec<Claim>, StoreError> {
        let max = i64::try_from(ask.max.min(BATCH_MAX)).unwrap_or(0);
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let (order, beyond) = match ask.order {
            Order::Any => ("", ""),
            Order::Name => ("directory, path", ">"),
            Order::Time => ("directory, changed, path", ">"),
            // The same indexes from their end.
            Order::NameDown => ("directory DESC, path DESC", "<"),
            Order::TimeDown => ("directory DESC, changed DESC, path DESC", "<"),
        };
        let now = self.now(&t).await?;
        let rows = if ask.order == Order::Any {
            let sql = "SELECT $columns FROM @.entries \
                 WHERE flow = $1 AND due IS NOT NULL AND due <= $2 \
                 ORDER BY due, sequence LIMIT $3 FOR UPDATE SKIP LOCKED";
            self.query(&t, sql, &[&flow.as_str(), &column(now), &max], "claim")
                .await?
        } else {
            // One at a time, or two would take neighbours.
            let sql = "SELECT pg_advisory_xact_lock(hashtextextended('ketch order ' || $1, 0))";
            self.query(&t, sql, &[&flow.as_str()], "claim").await?;
            // The first of each directory, by one step in the index each.
            let head = "SELECT r.directory, r.path, r.due FROM @.entries r \
                 WHERE r.flow = $1 AND r.due IS NOT NULL";
            let order = format!("ORDER BY {order} LIMIT 1");
            let sql = format!(
                "WITH RECURSIVE heads AS (({head} {order}) UNION ALL SELECT n.* FROM heads h, \
                 LATERAL ({head} AND r.directory {beyond} h.directory {order}) n) \
                 SELECT path FROM heads WHERE due <= $2 LIMIT $3"
            );
            let heads = self
                .query(&t, &sql, &[&flow.as_str(), &column(now), &max], "claim")
                .await?;
            let paths: Vec<Vec<u8>> = heads.iter().map(|row| row.get(0)).collect();
            let sql = "SELECT $columns FROM @.entries \
                 WHERE flow = $1 AND path = ANY($2) ORDER BY path FOR UPDATE";
            self.query(&t, sql, &[&flow.as_str(), &paths], "claim")
                .await?
        };
        let mut claims = Vec::with_capacity(rows.len());
        let mut taken = Vec::with_capacity(rows.len());
        let mut damaged = Vec::new();
        for row in &rows {
            let mut entry = Self::readable(flow, row);
            if entry.is_unreadable() {
                // The others go on.
                damaged.push(entry.path.into_bytes());
                continue;
            }
            // It may have been finished between the two questions.
            if !entry.is_active() || entry.due > now {
                continue;
            }
            entry.take(ask.owner, now.saturating_add(millis(ask.lease)));
            claims.push(entry.claim(flow));
            taken.push((entry.path.as_bytes().to_vec(), Some(entry)));
        }
        self.write(&t, flow, taken).await?;
        self.put_aside(&t, flow, &damaged).await?;
        commit(t).await?;
        self.tell_aside(flow, damaged);
        Ok(claims)
    }

    pub(super) async fn finish(&self, claim: &ClaimId, end: End<'_>) -> Result<(), StoreError> {
        let flow = &claim.flow;
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let entry = self.held(&t, claim).await?;
        let now = self.now(&t).await?;
        let (mut items, mut acts) = (0_u64, 0_u64);
        let mut step = entry.clone().end(
            end,
            now,
            &mut || {
                items = items.saturating_add(1);
                items
            },
            &mut || {
                acts = acts.saturating_add(1);
                acts
            },
        );
        if items > 0 || acts > 0 {
            let mut numbers = self.numbers(&t, items).await?.into_iter();
            let mut act = 0;
            if acts > 0 {
                act = self.act(&t, flow).await?;
            }
            step = entry.clone().end(
                end,
                now,
                &mut || numbers.next().unwrap_or_default(),
                &mut || act,
            );
        }
        let path = entry.path.into_bytes();
        match step {
            Step::Keep => {}
            Step::Put(entry) => self.write(&t, flow, vec![(path, Some(*entry))]).await?,
            Step::Delete => self.write(&t, flow, vec![(path, None)]).await?,
        }
        commit(t).await
    }

    /// The number of an act that takes a file away.
    async fn act(&self, t: &Transaction<'_>, flow: &FlowName) -> Result<u64, StoreError> {
        // A scan that begins waits for this to end, so it knows of every act before it.
        let sql = "SELECT pg_advisory_xact_lock_shared(hashtextextended('ketch acts ' || $1, 0))";
        self.query(t, sql, &[&flow.as_str()], "count it").await?;
        let sql = "SELECT nextval('@.acts')";
        let rows = self.query(t, sql, &[], "count it").await?;
        Ok(rows.first().map_or(0, |row| number(row.get(0))))
    }

    pub(super) async fn begin_scan(
        &self,
        flow: &FlowName,
        since: u64,
    ) -> Result<ScanStart, StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended('ketch acts ' || $1, 0))";
        self.query(&t, sql, &[&flow.as_str()], "begin a scan")
            .await?;
        let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM @.acts";
        let rows = self.query(&t, sql, &[], "begin a scan").await?;
        let scan = rows.first().map_or(0, |row| number(row.get(0)));
        let sql = "SELECT path, acted FROM @.entries WHERE flow = $1 AND acted IS NOT NULL";
        let rows = self
            .query(&t, sql, &[&flow.as_str()], "begin a scan")
            .await?;
        commit(t).await?;
        let (mut forget, mut old) = (Vec::new(), false);
        for row in &rows {
            if row.get::<_, i64>(1) > column(since) {
                forget.push(RemotePath::from(row.get::<_, &[u8]>(0)));
            } else {
                old = true;
            }
        }
        if old {
            let t = start(&mut connection).await?;
            let sql = "DELETE FROM @.entries \
                 WHERE flow = $1 AND acted IS NOT NULL AND acted <= $2";
            self.query(&t, sql, &[&flow.as_str(), &column(since)], "tidy up")
                .await?;
            commit(t).await?;
        }
        Ok(ScanStart { scan, forget })
    }

    pub(super) async fn renew(
        &self,
        claims: &[ClaimId],
        lease: Duration,
    ) -> Result<Vec<ClaimId>, StoreError> {
        let mut flows: BTreeMap<&FlowName, Vec<&ClaimId>> = BTreeMap::new();
        for claim in claims {
            flows.entry(&claim.flow).or_default().push(claim);
        }
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let mut lost = Vec::new();
        for (flow, claims) in flows {
            let paths: Vec<Vec<u8>> = claims
                .iter()
                .map(|claim| claim.path.as_bytes().to_vec())
                .collect();
            let rows = self.lock(&t, flow, &paths).await?;
            let until = self.now(&t).await?.saturating_add(millis(lease));
            let mut renewed = BTreeMap::new();
            for claim in claims {
                let row = rows.get(claim.path.as_bytes()).and_then(Option::as_ref);
                match row.filter(|row| row.is_of(claim)) {
                    Some(row) => {
                        let mut row = row.clone();
                        row.due = until;
                        renewed.insert(claim.path.as_bytes().to_vec(), Some(row));
                    }
                    None => lost.push(claim.clone()),
                }
            }
            self.write(&t, flow, renewed.into_iter().collect()).await?;
        }
        commit(t).await?;
        Ok(lost)
    }

    pub(super) async fn replay(
        &self,
        flow: &FlowName,
        path: Option<&RemotePath>,
    ) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let path = path.map(RemotePath::as_bytes);
        if let Some(path) = path {
            let path = path.to_vec();
            let rows = self.lock(&t, flow, std::slice::from_ref(&path)).await?;
            let known = rows.into_values().flatten().next();
            if let Some(entry) = known.filter(Entry::may_come_again) {
                let now = self.now(&t).await?;
                let sequence = self.numbers(&t, 1).await?.into_iter().next();
                let entry = entry.again(now, sequence.unwrap_or_default());
                self.write(&t, flow, vec![(path, Some(entry))]).await?;
                commit(t).await?;
                return Ok(1);
            }
        }
        // Each has an index of its own. A row that was named is looked at whatever it says.
        let sql = "SELECT path FROM @.entries WHERE flow = $1 AND state = 6 AND $2::bytea IS NULL \
             UNION ALL SELECT path FROM @.entries WHERE flow = $1 AND state = 7 AND $2 IS NULL \
             UNION ALL SELECT path FROM @.entries WHERE flow = $1 AND path = $2 ORDER BY path";
        let rows = self
            .query(&t, sql, &[&flow.as_str(), &path], "find dead items")
            .await?;
        let paths: Vec<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
        let mut replayed = 0_u64;
        let act = self.act(&t, flow).await?;
        for part in paths.chunks(BATCH_MAX) {
            let now = self.now(&t).await?;
            let mut rows = Vec::new();
            for (path, row) in self.lock(&t, flow, part).await? {
                if let Some(mut row) = row
                    && row.replay(now, &mut || act)
                {
                    replayed = replayed.saturating_add(1);
                    rows.push((path, Some(row)));
                }
            }
            self.write(&t, flow, rows).await?;
        }
        commit(t).await?;
        Ok(replayed)
    }

    pub(super) async fn import(&self, flow: &FlowName, rows: &[Row]) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let paths: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| row.item.path.as_bytes().to_vec())
            .collect();
        let there = self.lock(&t, flow, &paths).await?;
        let mut put = BTreeMap::new();
        let mut last = 0;
        for row in rows {
            let entry = Entry::imported(row);
            let path = entry.path.as_bytes().to_vec();
            // The same part may come twice; what has gone on since stays.
            let known = there.get(&path).and_then(Option::as_ref);
            if known.is_none_or(|known| known.sequence < entry.sequence) {
                last = entry.sequence.max(last);
                put.insert(path, Some(entry));
            }
        }
        self.write(&t, flow, put.into_iter().collect()).await?;
        let sql = "SELECT setval('@.sequences', $1) FROM @.sequences \
             WHERE $1 > last_value OR NOT is_called";
        if last > 0 {
            self.query(&t, sql, &[&column(last)], "count on").await?;
        }
        commit(t).await
    }
}

/// Where the damaged row of `path` stands among the dead after all changes: a rename has taken it along.
fn stands(path: Vec<u8>, after: &Locked, changes: &[Change]) -> Vec<u8> {
    if after.get(&path).is_some_and(Option::is_some) {
        return path;
    }
    let renamed = changes.iter().find_map(|change| match change {
        Change::Renamed { from, to, .. } if from.as_bytes() == path => Some(to.as_bytes().to_vec()),
        _ => None,
    });
    renamed.unwrap_or(path)
}

/// Runs the machine over all changes.
fn run(
    record: &Record<'_>,
    rows: &mut Locked,
    now: u64,
    sequence: &mut dyn FnMut() -> u64,
) -> Recorded {
    let mut recorded = Recorded::default();
    for change in record.changes {
        let path = change.path().as_bytes();
        let from = match change {
            Change::Renamed { from, .. } => Some(from.as_bytes()),
            _ => None,
        };
        let row = rows.get(path).and_then(Option::as_ref);
        let from_row = from
            .and_then(|from| rows.get(from))
            .and_then(Option::as_ref);
        let steps = Ground {
            scan: record.scan,
            removals: record.removals,
            renames: record.renames,
            now,
            sequence,
        }
        .record(change, row, from_row, &mut recorded);
        let steps = [(from, steps.from), (Some(path), steps.row)];
        for (path, step) in steps {
            let row = match step {
                Step::Keep => continue,
                Step::Put(row) => Some(*row),
                Step::Delete => None,
            };
            if let Some(path) = path {
                rows.insert(path.to_vec(), row);
            }
        }
    }
    recorded
}

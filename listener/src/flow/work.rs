//! One claimed item, from its source into all sinks: the steps in their order, with the ledger told
//! before and after each.
//!
//! ```text
//!   pre-move ─> fetch ─> checksum ─┬─> place ─> ledger: placed ─> deliver ─> ledger: delivered ─┬─> ledger: committed ─> after-action ─> finish
//!                                  └───────────────── for each sink in turn ────────────────────┘
//! ```
//!
//! Dropping the future at any point, or killing the process, leaves rows from which the next attempt
//! goes on: it fetches again, and delivers to the recorded placements again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ketch_client::{Kind, RemotePath};

use super::events::reason;
use super::item::{Item, ItemKind};
use super::retry::is_outage;
use super::settings::After;
use super::shared::Shared;
use super::spool::Spooled;
use crate::sink::fence::Fence;
use crate::sink::name::{NUMBERS_MAX, NameFault, Names};
use crate::sink::template::Template;
use crate::sink::{Content, Parcel, Sink, SinkError};
use crate::source::SourceError;
use crate::store::{AT_SOURCE, Claim, Delivery, Placement, StoreError};

/// How work on a claim ended, for the engine to tell the ledger.
#[derive(Debug)]
pub(super) enum Ended {
    /// All is done; whether our after-action took the file away.
    Done { acted: bool },
    /// It is another version by now.
    Superseded,
    /// It is not there.
    Gone,
    /// Something about this item failed.
    Failed { reason: String, permanent: bool },
    /// Something failed that every item needs.
    Outage {
        what: String,
        reason: String,
        /// For how long it asked to be left alone.
        after: Option<Duration>,
    },
    /// The claim is another's.
    Lost,
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Lost => Self::Lost,
            // It is no fault of the file, whatever the ledger has: nothing is done with it.
            error => Self::Outage {
                what: "ledger".to_owned(),
                reason: reason(&error),
                after: None,
            },
        }
    }
}

impl From<SourceError> for Ended {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Changed { .. } => Self::Superseded,
            SourceError::Gone { .. } => Self::Gone,
            error if is_outage(error.kind()) => Self::Outage {
                what: "source".to_owned(),
                reason: reason(&error),
                after: None,
            },
            error => Self::Failed {
                reason: reason(&error),
                permanent: false,
            },
        }
    }
}

impl Ended {
    fn of_sink(sink: &dyn Sink, error: SinkError) -> Self {
        let error = match error {
            SinkError::Fenced(error) => return error.into(),
            error => error,
        };
        // What a sink does not find is its own root: a file system that is not mounted, a bucket.
        if is_outage(error.kind()) || error.kind() == Kind::NotFound {
            return Self::Outage {
                what: format!("sink {}", sink.name()),
                reason: reason(&error),
                after: error.retry_after(),
            };
        }
        Self::Failed {
            reason: format!("{}: {}", sink.name(), reason(&error)),
            permanent: matches!(error, SinkError::BadName { .. } | SinkError::Exists { .. }),
        }
    }

    fn bad_name(template: &Template, fault: NameFault) -> Self {
        Self::Failed {
            reason: format!("{} makes no name: {fault}", template.as_str()),
            permanent: true,
        }
    }
}

/// Does all that is left to do for `claim`.
pub(super) async fn work(shared: &Shared, claim: &mut Claim, fence: &Fence) -> Ended {
    match steps(shared, claim, fence).await {
        Ok(acted) => Ended::Done { acted },
        Err(ended) => ended,
    }
}

async fn steps(shared: &Shared, claim: &mut Claim, fence: &Fence) -> Result<bool, Ended> {
    let sinks = sinks_for(shared, &claim.item);
    if !claim.committed {
        let content = fetch(shared, claim, &sinks).await?;
        let content = content.as_ref().map(|(_, content)| content);
        for (index, sink) in sinks.iter().enumerate() {
            deliver(shared, claim, &**sink, content, fence).await?;
            let is_last = index + 1 == sinks.len();
            // The last one's delivery and the commit are one step where nothing comes after: the
            // end of the claim says both.
            if !(is_last && is_kept(shared, claim)) {
                shared.store.delivered(&claim.id, sink.name()).await?;
            }
        }
        if is_kept(shared, claim) {
            return Ok(false);
        }
        shared.store.committed(&claim.id).await?;
        claim.committed = true;
    }
    after(shared, claim).await?;
    Ok(true)
}

/// The sinks that this item is for, in the order of the flow.
fn sinks_for(shared: &Shared, item: &Item) -> Vec<Arc<dyn Sink>> {
    let wants = |sink: &&Arc<dyn Sink>| {
        let takes = sink.takes();
        match item.kind {
            ItemKind::Removed => takes.removals,
            ItemKind::Renamed { .. } => !takes.content,
            ItemKind::Created | ItemKind::Modified => item.has_content() || takes.directories,
        }
    };
    shared.sinks.iter().filter(wants).cloned().collect()
}

/// Whether the source's file is left alone, and has its name.
fn is_kept(shared: &Shared, claim: &Claim) -> bool {
    let is_left = matches!(shared.settings.after, After::Keep) && put_at(claim).is_none();
    !claim.item.has_content() || is_left
}

/// Where the file was put at its source, as far as the ledger knows: `None` if it has its name.
fn put_at(claim: &Claim) -> Option<RemotePath> {
    noted(claim).into_iter().next()
}

/// The places where an earlier attempt may have put the file: the last one, and the one before that if
/// nobody knows whether it left that.
fn noted(claim: &Claim) -> Vec<RemotePath> {
    let Some(delivery) = claim.deliveries.iter().find(|d| d.sink == AT_SOURCE) else {
        return Vec::new();
    };
    let Placement { name, note, .. } = &delivery.placement;
    let is_place = |place: &&Vec<u8>| !place.is_empty() && *place != claim.item.path.as_bytes();
    let places = [name, note].into_iter().filter(is_place);
    places.cloned().map(RemotePath::from).collect()
}

/// Has the ledger know where the file is about to be put, and where it is.
async fn put(
    shared: &Shared,
    claim: &mut Claim,
    to: &RemotePath,
    from: &RemotePath,
) -> Result<(), Ended> {
    let placement = Placement {
        name: to.as_bytes().to_vec(),
        length: None,
        note: match *from == claim.item.path {
            true => Vec::new(),
            false => from.as_bytes().to_vec(),
        },
    };
    let store = &shared.store;
    store.placed(&claim.id, AT_SOURCE, &placement).await?;
    claim.deliveries.retain(|d| d.sink != AT_SOURCE);
    claim.deliveries.push(Delivery {
        sink: AT_SOURCE.to_owned(),
        placement,
        done: false,
    });
    Ok(())
}

/// Has the ledger know that the file has its name, or none.
async fn put_nowhere(shared: &Shared, claim: &mut Claim) -> Result<(), Ended> {
    let path = claim.item.path.clone();
    put(shared, claim, &path, &path).await
}

/// Which of `places` has the version of `claim`, if one has.
async fn found_at(
    shared: &Shared,
    claim: &Claim,
    places: &[RemotePath],
) -> Result<Option<RemotePath>, Ended> {
    for at in places {
        if is_ours(shared, &claim.item, at).await? {
            return Ok(Some(at.clone()));
        }
    }
    Ok(None)
}

/// Where the content is: under its name, where it was put when it had been given up, or where the
/// pre-move puts it.
async fn taken(shared: &Shared, claim: &mut Claim) -> Result<RemotePath, Ended> {
    let noted = noted(claim);
    if let Some(at) = found_at(shared, claim, &noted).await? {
        if put_at(claim).as_ref() != Some(&at) {
            put(shared, claim, &at, &at).await?;
        }
        return Ok(at);
    }
    match shared.settings.pre_move.clone() {
        Some(template) => {
            // An earlier attempt took another version, and ended before it saw that.
            for at in &noted {
                give_back(shared, at, &claim.item.path).await?;
            }
            pre_move(shared, claim, &template, &noted).await
        }
        None => {
            if !noted.is_empty() {
                put_nowhere(shared, claim).await?;
            }
            Ok(claim.item.path.clone())
        }
    }
}

/// Takes the file for ourselves, by a rename that one of several consumers can do. `noted` are the
/// places where earlier attempts may have put it.
async fn pre_move(
    shared: &Shared,
    claim: &mut Claim,
    template: &Template,
    noted: &[RemotePath],
) -> Result<RemotePath, Ended> {
    let name = template.name(&claim.item, Names::Remote);
    let name = name.map_err(|fault| Ended::bad_name(template, fault))?;
    let path = claim.item.path.clone();
    for number in 0..=NUMBERS_MAX {
        let to = RemotePath::from(crate::sink::name::numbered(name.as_bytes(), number));
        put(shared, claim, &to, &path).await?;
        match shared.source.rename(&path, &to, false).await {
            Ok(()) => return Ok(to),
            // What an item left there that was given up.
            Err(error) if error.kind() == Kind::Exists => {}
            // A connection that was lost says nothing of what its server does.
            Err(error) if is_outage(error.kind()) => return Err(error.into()),
            Err(error) => {
                // A rename of an earlier attempt may have been done since. Without one, what is there
                // is another consumer's.
                if let Some(at) = found_at(shared, claim, noted).await? {
                    put(shared, claim, &at, &at).await?;
                    return Ok(at);
                }
                put_nowhere(shared, claim).await?;
                return Err(error.into());
            }
        }
    }
    put_nowhere(shared, claim).await?;
    Err(Ended::Failed {
        reason: format!("no name is free to take {path}"),
        permanent: false,
    })
}

async fn fetch(
    shared: &Shared,
    claim: &mut Claim,
    sinks: &[Arc<dyn Sink>],
) -> Result<Option<(Spooled, Content)>, Ended> {
    let is_done = |sink: &Arc<dyn Sink>| {
        let delivery = claim.deliveries.iter().find(|d| d.sink == sink.name());
        delivery.is_some_and(|delivery| delivery.done)
    };
    let is_wanted = sinks
        .iter()
        .any(|sink| sink.takes().content && !is_done(sink));
    if !claim.item.has_content() {
        return Ok(None);
    }
    if !is_wanted {
        // Where it is decides what comes after.
        let noted = noted(claim);
        if !noted.is_empty() && found_at(shared, claim, &noted).await?.is_none() {
            put_nowhere(shared, claim).await?;
        }
        return Ok(None);
    }
    let path = taken(shared, claim).await?;
    let spooled = shared.spool.file(&claim.id);
    match content(shared, claim, &path, &spooled).await {
        Ok(content) => Ok(Some((spooled, content))),
        // What we took is another version: it gets its name again, and is found by it.
        Err(Ended::Superseded) if path != claim.item.path && shared.settings.pre_move.is_some() => {
            give_back(shared, &path, &claim.item.path).await?;
            Err(Ended::Superseded)
        }
        Err(ended) => Err(ended),
    }
}

/// Fetches what is at `path`, if it is the version of `claim`.
async fn content(
    shared: &Shared,
    claim: &mut Claim,
    path: &RemotePath,
    spooled: &Spooled,
) -> Result<Content, Ended> {
    let item = &claim.item;
    let size = item.facts.size.unwrap_or(0);
    let _room = shared.room(size).await;
    shared.paced(size).await;
    let fetched = shared.source.fetch(path, item.facts, spooled.path()).await;
    if let Err(error) = fetched {
        // Others do not wait for what never came.
        if matches!(error, SourceError::Gone { .. }) {
            shared.unpaced(size);
        }
        return Err(match error.kind() {
            // Nobody else has to have any for a download.
            Kind::NoSpace => Ended::Outage {
                what: "spool".to_owned(),
                reason: format!(
                    "no space for {}: {}",
                    spooled.shown().display(),
                    reason(&error)
                ),
                after: None,
            },
            _ => error.into(),
        });
    }
    let content = spooled.content().await.map_err(|error| Ended::Outage {
        what: "spool".to_owned(),
        reason: format!("cannot read {}: {error}", spooled.shown().display()),
        after: None,
    })?;
    let differs = item.sha256.is_some_and(|sum| sum != content.sha256);
    if differs || item.facts.size.is_some_and(|size| size != content.len) {
        return Err(Ended::Superseded);
    }
    shared.counters.bytes.fetch_add(content.len, Relaxed);
    if item.sha256.is_none() {
        shared.store.fetched(&claim.id, content.sha256).await?;
        claim.item.sha256 = Some(content.sha256);
    }
    Ok(content)
}

/// Puts the item into one sink, unless it is there.
async fn deliver(
    shared: &Shared,
    claim: &mut Claim,
    sink: &dyn Sink,
    content: Option<&Content>,
    fence: &Fence,
) -> Result<(), Ended> {
    let recorded = claim.deliveries.iter().find(|d| d.sink == sink.name());
    if recorded.is_some_and(|delivery| delivery.done) {
        return Ok(());
    }
    // What was let go is placed anew.
    let is_let_go = |delivery: &&Delivery| delivery.placement == Placement::default();
    let recorded = recorded.filter(|delivery| !(sink.takes().content && is_let_go(delivery)));
    let mut again = recorded.is_some();
    let mut placement = match recorded {
        Some(delivery) => delivery.placement.clone(),
        None => choose(shared, claim, sink, None).await?,
    };
    for _ in 0..=NUMBERS_MAX {
        let parcel = Parcel {
            item: &claim.item,
            placement: &placement,
            content,
            again,
            earlier: &claim.deliveries,
            fence,
        };
        let counters = shared.counters_of(sink.name());
        if let Some(counters) = counters {
            counters.attempts.fetch_add(1, Relaxed);
        }
        // Sinks of content ask right before a file gets its name.
        let passed = match sink.takes().content {
            true => Ok(()),
            false => fence.pass().await,
        };
        let delivered = match passed {
            Ok(()) => sink.deliver(parcel).await,
            Err(error) => Err(error),
        };
        fence.done();
        if let (Err(_), Some(counters)) = (&delivered, counters) {
            counters.failures.fetch_add(1, Relaxed);
        }
        match delivered {
            Ok(()) => {
                if let Some(delivery) = claim.deliveries.iter_mut().find(|d| d.sink == sink.name())
                {
                    delivery.done = true;
                }
                return Ok(());
            }
            Err(SinkError::Taken { .. }) => {
                placement = choose(shared, claim, sink, Some(&placement)).await?;
                again = false;
            }
            Err(error) => return Err(Ended::of_sink(sink, error)),
        }
    }
    Err(Ended::Failed {
        reason: format!("{}: no name is free", sink.name()),
        permanent: false,
    })
}

/// The item will not be delivered, or not before somebody asks for it: what waits for it at sinks goes.
/// To be done while the claim holds.
///
/// The ledger forgets where it was to go first: behind a note in it, a file that does not wait any more
/// would prove that the item was delivered. So a crash in between leaves a hidden file, and no more.
pub(super) async fn let_go(shared: &Shared, claim: &mut Claim) -> Result<(), Ended> {
    let waiting = |delivery: &&mut Delivery| !delivery.done && !delivery.placement.note.is_empty();
    for delivery in claim.deliveries.iter_mut().filter(waiting) {
        let sink = shared
            .sinks
            .iter()
            .find(|sink| sink.name() == delivery.sink);
        let Some(sink) = sink.map(|sink| &**sink) else {
            continue;
        };
        let stays = |error: SinkError| match Ended::of_sink(sink, error) {
            // Nobody removes what is not allowed to be removed by asking again.
            Ended::Failed { reason, .. } => {
                tracing::warn!(sink = sink.name(), %reason, "something is left that waited");
                Ok(())
            }
            ended => Err(ended),
        };
        match sink.waits(&delivery.placement).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                stays(error)?;
                continue;
            }
        }
        let nowhere = Placement::default();
        let store = &shared.store;
        store.placed(&claim.id, sink.name(), &nowhere).await?;
        let placement = std::mem::replace(&mut delivery.placement, nowhere);
        sink.forget(&placement).await.or_else(stays)?;
    }
    Ok(())
}

/// Has the sink choose, and the ledger know it.
async fn choose(
    shared: &Shared,
    claim: &mut Claim,
    sink: &dyn Sink,
    refused: Option<&Placement>,
) -> Result<Placement, Ended> {
    let chosen = sink.place(&claim.item, refused).await;
    let placement = chosen.map_err(|error| Ended::of_sink(sink, error))?;
    shared
        .store
        .placed(&claim.id, sink.name(), &placement)
        .await?;
    claim
        .deliveries
        .retain(|delivery| delivery.sink != sink.name());
    claim.deliveries.push(Delivery {
        sink: sink.name().to_owned(),
        placement: placement.clone(),
        done: false,
    });
    Ok(placement)
}

/// What becomes of the source's file. All of it may have been done by an earlier attempt.
async fn after(shared: &Shared, claim: &Claim) -> Result<(), Ended> {
    let item = &claim.item;
    let at = put_at(claim).unwrap_or_else(|| item.path.clone());
    match &shared.settings.after {
        After::Keep => Ok(()),
        After::Delete => deleted(shared, item, &at).await,
        After::Move(template) => moved(shared, item, &at, template, false).await,
        After::MoveOver(template) => moved(shared, item, &at, template, true).await,
    }
}

/// Whether the file at `at` is what was delivered, as far as the flow tells versions apart. To be asked
/// where nobody else writes it any more.
async fn is_delivered(shared: &Shared, item: &Item, at: &RemotePath) -> Result<bool, SourceError> {
    if shared.source.look(at).await? != item.facts {
        return Ok(false);
    }
    match item.sha256.filter(|_| shared.settings.by_content) {
        Some(sum) => Ok(shared.source.sha256(at).await? == sum),
        None => Ok(true),
    }
}

/// Whether the file at `at` is the version of `item`: if not, whatever came there since is another
/// one, and stays.
async fn is_ours(shared: &Shared, item: &Item, at: &RemotePath) -> Result<bool, Ended> {
    match shared.source.look(at).await {
        Ok(facts) => Ok(facts == item.facts),
        Err(SourceError::Gone { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the source's file. A version that takes its place between a look and a removal would be
/// lost: so it is renamed first, looked at, and given back if it is another one.
async fn deleted(shared: &Shared, item: &Item, at: &RemotePath) -> Result<(), Ended> {
    let name = format!(".ketch-gone-{:016x}", item.sequence);
    let aside = match at.parent() {
        Some(directory) if directory.as_bytes() != b"." => directory.join(&name),
        _ => RemotePath::from(name.as_str()),
    };
    let remove = async |path: &RemotePath| match shared.source.remove(path).await {
        Ok(()) | Err(SourceError::Gone { .. }) => Ok(()),
        Err(error) => Err(Ended::from(error)),
    };
    if is_ours(shared, item, at).await? {
        match shared.source.rename(at, &aside, false).await {
            Ok(()) | Err(SourceError::Gone { .. }) => {}
            // An earlier attempt got as far, and the same version came again.
            Err(error) if error.kind() == Kind::Exists => remove(&aside).await?,
            // Who may remove need not be allowed to rename.
            Err(error) if matches!(error.kind(), Kind::Permission | Kind::Unsupported) => {
                return match is_delivered(shared, item, at).await {
                    Ok(true) => remove(at).await,
                    Ok(false) | Err(SourceError::Gone { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
    match is_delivered(shared, item, &aside).await {
        Ok(true) => remove(&aside).await,
        Ok(false) => give_back(shared, &aside, at).await,
        Err(SourceError::Gone { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Another version was taken away by mistake: it gets its name again, unless a third one has it.
async fn give_back(shared: &Shared, from: &RemotePath, to: &RemotePath) -> Result<(), Ended> {
    match shared.source.rename(from, to, false).await {
        Ok(()) | Err(SourceError::Gone { .. }) => Ok(()),
        Err(error) if error.kind() == Kind::Exists => {
            tracing::warn!(flow = %shared.settings.name, %from, %to, "a version is kept under another name");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Renames the source's file as `template` says; without `replace` a taken name gets a number.
async fn moved(
    shared: &Shared,
    item: &Item,
    at: &RemotePath,
    template: &Template,
    replace: bool,
) -> Result<(), Ended> {
    let name = template.name(item, Names::Remote);
    let name = name.map_err(|fault| Ended::bad_name(template, fault))?;
    if !is_ours(shared, item, at).await? {
        return Ok(());
    }
    for number in 0..=NUMBERS_MAX {
        let to = RemotePath::from(crate::sink::name::numbered(name.as_bytes(), number));
        match shared.source.rename(at, &to, replace).await {
            Ok(()) => {
                // Between the look and the rename another version may have come.
                return match is_delivered(shared, item, &to).await {
                    Ok(false) => give_back(shared, &to, at).await,
                    Ok(true) | Err(SourceError::Gone { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                };
            }
            Err(SourceError::Gone { .. }) => return Ok(()),
            Err(error) if error.kind() == Kind::Exists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Ended::Failed {
        reason: format!("no name is free for {}", item.path),
        permanent: false,
    })
}

/// Puts the source's file of an item that was given up where the flow says, and has the ledger know
/// where that is, so that it can be tried again from there.
pub(super) async fn put_aside(shared: &Shared, claim: &mut Claim) -> Result<(), Ended> {
    let Some(template) = shared.settings.failed.clone() else {
        return Ok(());
    };
    if !claim.item.has_content() {
        return Ok(());
    }
    let mut places = noted(claim);
    places.push(claim.item.path.clone());
    let Some(at) = found_at(shared, claim, &places).await? else {
        return Ok(());
    };
    let name = template.name(&claim.item, Names::Remote);
    let name = name.map_err(|fault| Ended::bad_name(&template, fault))?;
    let mut failed = Ended::Failed {
        reason: format!("no name is free for {}", claim.item.path),
        permanent: false,
    };
    for number in 0..=NUMBERS_MAX {
        let to = RemotePath::from(crate::sink::name::numbered(name.as_bytes(), number));
        put(shared, claim, &to, &at).await?;
        match shared.source.rename(&at, &to, false).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == Kind::Exists => {}
            Err(error) if is_outage(error.kind()) => return Err(error.into()),
            Err(error) => {
                failed = error.into();
                break;
            }
        }
    }
    put(shared, claim, &at, &at).await?;
    Err(failed)
}

/// How long work is held up after `failures` outages in a row.
pub(super) fn outage_pause(failures: u32, chance: u64) -> Duration {
    super::retry::pause(
        failures,
        Duration::from_millis(500),
        Duration::from_secs(60),
        chance,
    )
}

//! Client and server drivers against each other, over an in-memory stream.

#![expect(clippy::disallowed_methods, reason = "the tests of a driver own tasks")]

mod ends;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use ends::{Ends, FLOOD, WINDOW, join, join_with};
use ketch_transport::config::{ClientConfig, ServerConfig};
use ketch_transport::driver::{
    Application, Arena, ChannelIo, CloseReason, ConnectionHandle, DriverWaker, Lent, Login,
    OpenError, Place, RefuseAll, stream,
};
use ketch_transport::error::{ConnectionError, Deadline};
use ketch_transport::event::Refusal;
use ketch_transport::message::transport::DisconnectReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// The reason with which the peer said goodbye.
fn goodbye(why: &Arc<CloseReason>) -> DisconnectReason {
    match &**why {
        CloseReason::Connection(ConnectionError::Disconnected { reason, .. }) => *reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn megabytes_are_echoed_while_both_sides_exchange_keys() {
    let ends = join(64 * 1024).await;
    let (mut read, mut write) = tokio::io::split(ends.open("echo").await);
    let sent: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 251) as u8).collect();
    let expected = sent.clone();
    let (client, server) = (ends.client.clone(), ends.server.clone());
    let writer = tokio::task::spawn(async move {
        for (index, piece) in sent.chunks(10_000).enumerate() {
            match index % 40 {
                7 => client.rekey(),
                17 => server.rekey(),
                27 => {
                    client.rekey();
                    server.rekey();
                }
                _ => {}
            }
            write.write_all(piece).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    read.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(
        received == expected,
        "{} bytes of {}",
        received.len(),
        expected.len()
    );
}

#[tokio::test]
async fn ten_channels_echo_at_once_and_an_eleventh_is_refused() {
    let ends = Arc::new(join(10_000).await);
    let mut channels = Vec::new();
    for _ in 0..10 {
        channels.push(ends.open("echo").await);
    }
    let (_unused, application) = stream();
    let eleventh = ends.client.open_session("echo", WINDOW, application).await;
    assert!(is_too_many(&eleventh), "{eleventh:?}");
    let echoes = channels.into_iter().map(|mut channel| {
        tokio::task::spawn(async move {
            Ends::echoes(&mut channel, 300_000).await;
        })
    });
    for echo in echoes.collect::<Vec<_>>() {
        echo.await.unwrap();
    }
    // All of them were dropped: there is room for ten more.
    let mut again = Vec::new();
    while again.len() < 10 {
        again.extend(open_when_there_is_room(&ends.client).await);
    }
}

/// Whether one side or the other has as many channels as it allows: a server's bound is the lower one.
fn is_too_many<T>(outcome: &Result<T, OpenError>) -> bool {
    matches!(
        outcome,
        Err(OpenError::TooMany | OpenError::Refused(Refusal::Channel { reason: 4, .. }))
    )
}

/// Opens a channel, unless as many as allowed have not been closed by both sides yet.
async fn open_when_there_is_room(
    handle: &ConnectionHandle,
) -> Option<ketch_transport::driver::ChannelStream> {
    let (channel, application) = stream();
    let opened = handle.open_session("echo", WINDOW, application).await;
    if is_too_many(&opened) {
        tokio::task::yield_now().await;
        return None;
    }
    opened.unwrap();
    Some(channel)
}

#[tokio::test]
async fn a_future_that_is_dropped_leaves_no_channel_behind() {
    let ends = join(10_000).await;
    for turns in 0..100 {
        let (_channel, application) = stream();
        let mut opening = pin!(ends.client.open_session("echo", WINDOW, application));
        // Polled once, the call is on its way; some get as far as being answered.
        let answered = poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx).is_ready())).await;
        assert!(!answered);
        for _ in 0..turns % 7 {
            tokio::task::yield_now().await;
        }
    }
    let mut channels = Vec::new();
    while channels.len() < 10 {
        channels.extend(open_when_there_is_room(&ends.client).await);
    }
    for channel in &mut channels {
        Ends::echoes(channel, 1_000).await;
    }
}

#[tokio::test]
async fn a_subsystem_that_does_not_exist_is_refused_and_nothing_else_ends() {
    let ends = join(10_000).await;
    for _ in 0..30 {
        let (mut channel, application) = stream();
        let outcome = ends.client.open_session("none", WINDOW, application).await;
        match outcome {
            Err(OpenError::Refused(Refusal::Subsystem)) => {}
            // Those refused before were not all closed by both sides yet.
            outcome if is_too_many(&outcome) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
        let mut bytes = Vec::new();
        // An application that never ran has nobody to write for it.
        assert!(
            tokio::time::timeout(Duration::ZERO, channel.read_to_end(&mut bytes))
                .await
                .is_err()
        );
    }
    Ends::echoes(&mut ends.open("echo").await, 1_000).await;
}

#[tokio::test]
async fn who_does_not_read_stops_nobody_else() {
    let ends = join(4_000).await;
    // One channel that we do not read, one that the server does not.
    let _unread = ends.open("flood").await;
    let mut stuck = ends.open("asleep").await;
    let filler = tokio::task::spawn(async move { stuck.write_all(&vec![0; 4 * FLOOD]).await });
    let mut echo = ends.open("echo").await;
    Ends::echoes(&mut echo, 3_000_000).await;
    assert!(!filler.is_finished());
    ends.client.rekey();
    Ends::echoes(&mut echo, 100_000).await;
    filler.abort();
}

#[tokio::test]
async fn reading_goes_on_while_the_stream_takes_nothing() {
    // Both sides write as much as they can through a pipe that holds next to nothing: a side that
    // wrote before it read would wait for the other for ever.
    for pipe in [100, 5_000] {
        let ends = join(pipe).await;
        let channels = [ends.open("flood").await, ends.open("flood").await];
        let here = channels.map(|channel| tokio::task::spawn(ends::flood(channel)));
        for side in here {
            side.await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_last_handle_ends_a_client() {
    let ends = join(10_000).await;
    let second = ends.client.clone();
    drop(ends.client);
    let (mut channel, application) = stream();
    second
        .open_session("echo", WINDOW, application)
        .await
        .unwrap();
    Ends::echoes(&mut channel, 1_000).await;
    drop(second);
    ends.client_task.await.unwrap();
    assert_eq!(
        goodbye(&ends.server.closed().await),
        DisconnectReason::BY_APPLICATION
    );
    ends.server_task.await.unwrap();
}

#[tokio::test]
async fn a_server_stays_without_handles_and_leaves_with_its_peer() {
    let ends = join(10_000).await;
    drop(ends.server);
    let (mut channel, application) = stream();
    ends.client
        .open_session("echo", WINDOW, application)
        .await
        .unwrap();
    Ends::echoes(&mut channel, 1_000).await;
    drop(ends.client);
    ends.server_task.await.unwrap();
}

#[tokio::test]
async fn what_was_written_before_a_disconnect_arrives_before_it() {
    for pipe in [100, 1_000_000] {
        let mut ends = join(pipe).await;
        let mut channel = ends.open("collect").await;
        channel.write_all(&[5; 500_000]).await.unwrap();
        channel.flush().await.unwrap();
        ends.client.disconnect();
        assert!(matches!(
            *ends.client.closed().await,
            CloseReason::Requested
        ));
        assert_eq!(ends.collected.recv().await.unwrap(), [5; 500_000]);
        assert_eq!(
            goodbye(&ends.server.closed().await),
            DisconnectReason::BY_APPLICATION
        );
        // Whoever comes later learns why, too.
        assert!(ends.client.is_closed());
        let (_channel, application) = stream();
        let late = ends.client.open_session("echo", WINDOW, application).await;
        assert!(matches!(late, Err(OpenError::Closed(_))), "{late:?}");
        let error = channel.read_u8().await.unwrap_err();
        assert!(
            error.get_ref().is_some(),
            "not an end of the data, but a reason: {error}"
        );
    }
}

#[tokio::test]
async fn a_peer_that_vanishes_is_told_from_one_that_leaves() {
    let ends = join(10_000).await;
    let mut channel = ends.open("asleep").await;
    ends.server_task.abort();
    assert!(matches!(*ends.client.closed().await, CloseReason::Eof));
    assert_eq!(
        channel.read_u8().await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert!(channel.write_all(b"x").await.is_err());

    let mut ends = join(10_000).await;
    let mut channel = ends.open("collect").await;
    channel.write_all(b"half").await.unwrap();
    channel.flush().await.unwrap();
    let server = ends.server.clone();
    ends.client_task.abort();
    assert!(matches!(*server.closed().await, CloseReason::Eof));
    assert_eq!(ends.collected.recv().await.unwrap(), b"half");
    assert!(
        matches!(*ends.client.closed().await, CloseReason::Requested),
        "its task was dropped"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_given_up_after_ninety_seconds() {
    let (ours, theirs) = tokio::io::duplex(100_000);
    let client = Login::client(ours, ClientConfig::new("ann")).unwrap();
    let server = Login::server(theirs, ServerConfig::new([ends::host_key()])).unwrap();
    let (client, server) = tokio::join!(
        ends::log_in_client(client, "secret"),
        ends::log_in_server(server)
    );
    let _server_that_runs_no_more = server.unwrap();
    let (client, task) = client.unwrap().run(Box::new(RefuseAll));
    let began = tokio::time::Instant::now();
    tokio::task::spawn(task);
    let why = client.closed().await;
    let expected = ConnectionError::TimedOut(Deadline::Keepalive);
    assert!(
        matches!(&*why, CloseReason::Connection(error) if *error == expected),
        "{why:?}"
    );
    assert_eq!(began.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_idles_for_a_day_lives() {
    let mut server = ServerConfig::new([ends::host_key()]);
    server.common.timers.keepalive = None;
    let ends = join_with(10_000, ClientConfig::new("ann"), server).await;
    let mut channel = ends.open("echo").await;
    for _ in 0..24 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ends::echoes(&mut channel, 1_000).await;
    }
}

/// What an application of a test was told.
#[derive(Default)]
struct Seen {
    noted: Vec<(Place, Vec<u8>)>,
    checked: usize,
    drives: usize,
    waker: Option<DriverWaker>,
    deadline: Option<Instant>,
    closed: bool,
}

/// Notes where its data lies, and looks there again when the turn ends.
struct Noting {
    seen: Arc<Mutex<Seen>>,
    driven: mpsc::UnboundedSender<()>,
}

impl Application for Noting {
    fn on_open(&mut self, io: &mut ChannelIo<'_>) {
        self.seen.lock().unwrap().waker = Some(io.waker());
        io.send(&[3; 100_000]).unwrap();
    }

    fn on_data(&mut self, data: Lent<'_>, io: &mut ChannelIo<'_>) {
        self.seen
            .lock()
            .unwrap()
            .noted
            .push((data.place(), data.bytes.to_vec()));
        io.give_credit(data.bytes.len());
    }

    fn end_of_turn(&mut self, arena: &Arena, _io: &mut ChannelIo<'_>) {
        let mut seen = self.seen.lock().unwrap();
        for (place, bytes) in std::mem::take(&mut seen.noted) {
            assert_eq!(arena.bytes(place), bytes);
            seen.checked += bytes.len();
        }
    }

    fn drive(&mut self, io: &mut ChannelIo<'_>) {
        let mut seen = self.seen.lock().unwrap();
        seen.drives += 1;
        if seen.deadline.is_some_and(|at| at <= io.now()) {
            seen.deadline = None;
        }
        let _ = self.driven.send(());
    }

    fn deadline(&self) -> Option<Instant> {
        self.seen.lock().unwrap().deadline
    }

    fn on_closed(&mut self, _why: &Arc<CloseReason>) {
        self.seen.lock().unwrap().closed = true;
    }
}

/// A client's channel with [`Noting`] on it.
async fn noting(ends: &Ends, subsystem: &str) -> (Arc<Mutex<Seen>>, mpsc::UnboundedReceiver<()>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (driven, turns) = mpsc::unbounded_channel();
    let application = Box::new(Noting {
        seen: Arc::clone(&seen),
        driven,
    });
    ends.client
        .open_session(subsystem, WINDOW, application)
        .await
        .unwrap();
    (seen, turns)
}

#[tokio::test]
async fn noted_places_hold_until_the_turn_ends() {
    let ends = join(10_000).await;
    let (seen, mut turns) = noting(&ends, "echo").await;
    while seen.lock().unwrap().checked < 100_000 {
        turns.recv().await.unwrap();
    }
    drop(ends.client);
    ends.client_task.await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(
        (seen.checked, seen.noted.len(), seen.closed),
        (100_000, 0, true)
    );
}

/// Data and the end of its channel in one turn: what was noted is written before the end is told.
#[tokio::test]
async fn what_came_with_the_close_is_seen_before_it() {
    let ends = join(1_000_000).await;
    let (seen, mut turns) = noting(&ends, "parting").await;
    while !seen.lock().unwrap().closed {
        // The last turn of this channel ends with it; the next ones belong to others.
        tokio::select! {
            _ = turns.recv() => {}
            () = tokio::task::yield_now() => {}
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!((seen.checked, seen.noted.len()), (ends::PARTING, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waker_and_a_deadline_each_bring_a_turn() {
    let ends = join(100_000).await;
    let (seen, mut turns) = noting(&ends, "echo").await;
    while seen.lock().unwrap().checked < 100_000 {
        turns.recv().await.unwrap();
    }
    let quiet = Duration::from_secs(1);
    while tokio::time::timeout(quiet, turns.recv()).await.is_ok() {}
    let waker = seen.lock().unwrap().waker.clone().unwrap();
    let drives = || seen.lock().unwrap().drives;
    let before = drives();
    std::thread::spawn({
        let waker = waker.clone();
        move || waker.wake()
    })
    .join()
    .unwrap();
    turns.recv().await.unwrap();
    assert!(drives() > before);
    while tokio::time::timeout(quiet, turns.recv()).await.is_ok() {}
    // The deadline is learnt in the turn that the waker brings, and brings one of its own.
    let at = tokio::time::Instant::now() + Duration::from_secs(7);
    seen.lock().unwrap().deadline = Some(at.into_std());
    waker.wake();
    while seen.lock().unwrap().deadline.is_some() {
        turns.recv().await.unwrap();
    }
    assert!(tokio::time::Instant::now() >= at);
    assert!(tokio::time::Instant::now() < at + Duration::from_secs(1));
}

//! A man in the middle of the clear part of a connection: he reads the packets up to `NEWKEYS`, adds,
//! leaves out, repeats and swaps them, and cuts off what comes first under the new keys
//! (CVE-2023-48795, "Terrapin").

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// So long he waits for the first packet under new keys, on a busy machine too.
const FIRST: Duration = Duration::from_secs(60);
/// So long nothing may come after it before he lets the other side go on.
const QUIET: Duration = Duration::from_millis(300);
const NEWKEYS: u8 = 21;
/// Longest clear packet that he reads.
const PACKET_LEN_MAX: usize = 40_000;

/// Whose packets he changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sender {
    Client,
    Server,
}

impl Sender {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];
}

/// What he does with one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Adds a packet with this payload before the first one with that number.
    pub(crate) insert: Option<(u8, Vec<u8>)>,
    /// Leaves out the first packet with this number.
    pub(crate) leave_out: Option<u8>,
    /// Sends the first packet with this number twice.
    pub(crate) repeat: Option<u8>,
    /// Sends the first packet with this number after the one that follows it.
    pub(crate) swap: Option<u8>,
    /// Cuts off what is sent first after `NEWKEYS`.
    pub(crate) cut: bool,
}

/// Listens, and leads the first connection to `server`.
pub(crate) async fn between(server: SocketAddr, sender: Sender, plan: Plan) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        // While he waits for what he will cut off, the other side's sealed packets wait.
        let is_cut = Arc::new(watch::Sender::new(!plan.cut));
        let (from_client, from_server) = match sender {
            Sender::Client => (plan, Plan::default()),
            Sender::Server => (Plan::default(), plan),
        };
        let to_server = relay(client_in, server_out, from_client, Arc::clone(&is_cut));
        let to_client = relay(server_in, client_out, from_server, is_cut);
        // Whoever ends ends both.
        tokio::select! {
            () = to_server => {}
            () = to_client => {}
        }
    });
    addr
}

async fn relay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    plan: Plan,
    is_cut: Arc<watch::Sender<bool>>,
) {
    // An end of a stream is an end of his work, too.
    let _ = relay_all(&mut from, &mut to, plan, &is_cut).await;
}

async fn relay_all(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut plan: Plan,
    is_cut: &watch::Sender<bool>,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.push(from.read_u8().await?);
    }
    to.write_all(&line).await?;
    let mut held = None;
    loop {
        let packet = read_packet(from).await?;
        let number = packet.get(5).copied().unwrap_or_default();
        let is = |wanted: Option<u8>| wanted == Some(number);
        if is(plan.insert.as_ref().map(|(before, _)| *before)) {
            let (_, payload) = plan.insert.take().unwrap_or_default();
            to.write_all(&framed(&payload)).await?;
        }
        if is(plan.swap) {
            plan.swap = None;
            held = Some(packet);
            continue;
        }
        let times = if is(plan.leave_out) {
            plan.leave_out = None;
            0
        } else if is(plan.repeat) {
            plan.repeat = None;
            2
        } else {
            1
        };
        for _ in 0..times {
            to.write_all(&packet).await?;
        }
        if let Some(held) = held.take() {
            to.write_all(&held).await?;
        }
        if number == NEWKEYS {
            break;
        }
    }
    let mut piece = vec![0; 65_536];
    if plan.cut {
        let mut patience = FIRST;
        while let Ok(read) = timeout(patience, from.read(&mut piece)).await {
            if read? == 0 {
                break;
            }
            patience = QUIET;
        }
        is_cut.send_replace(true);
    } else {
        // Both tasks hold the sender, so it is there.
        let _ = is_cut.subscribe().wait_for(|is_cut| *is_cut).await;
    }
    loop {
        match from.read(&mut piece).await? {
            0 => return to.shutdown().await,
            len => to.write_all(&piece[..len]).await?,
        }
    }
}

async fn read_packet(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 4];
    from.read_exact(&mut packet).await?;
    let len = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > PACKET_LEN_MAX {
        return Err(std::io::Error::other("no clear packet"));
    }
    packet.resize(4 + len, 0);
    from.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

/// A clear packet (RFC 4253 §6).
fn framed(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let len = u32::try_from(1 + payload.len() + padding).unwrap();
    let mut packet = len.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

//! What strangers leave behind who connect, say something impossible and come again: nothing.
//!
//! A few thousand connections in CI; `KETCH_RECONNECTS=100000` makes as many as the table of threats
//! asks for (K15, K16), and the figure is printed.
#![cfg(target_os = "linux")]

use std::sync::Arc;

use ketch_server::{MemoryFileSystem, Server, User, generate_host_key};
use ketch_wire::Writer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const RECONNECTS: usize = 2_000;
/// What the process may grow by, whatever their number, in bytes: the allocator keeps some pages.
const GROWTH_MAX: usize = 2 << 20;

/// So often as many may come until the growth is within that.
const TURNS: usize = 4;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages = status.split(' ').nth(1).unwrap();
    pages.parse::<usize>().unwrap() * 4096
}

/// A packet in the clear (RFC 4253 §6).
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let mut bytes = Vec::new();
    let mut w = Writer::new(&mut bytes);
    w.u32(u32::try_from(payload.len() + padding + 1).unwrap());
    w.u8(u8::try_from(padding).unwrap());
    w.bytes(payload);
    w.bytes(&vec![0; padding]);
    bytes
}

/// A `KEXINIT` with these methods, the first of which is guessed.
fn kexinit(methods: &str, guesses: bool) -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([7; 16]);
    let mut w = Writer::new(&mut payload);
    w.string(methods.as_bytes());
    for list in [
        "ssh-ed25519",
        "aes256-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "",
        "",
        "none",
        "none",
        "",
        "",
    ] {
        w.string(list.as_bytes());
    }
    w.bool(guesses);
    w.u32(0);
    payload
}

/// What a stranger says behind the identification.
fn nonsense(n: usize) -> Vec<u8> {
    let strict = "curve25519-sha256,kex-strict-c-v00@openssh.com";
    match n % 5 {
        // A guess that is wrong, and nothing after it.
        0 => {
            let offer = kexinit("ecdh-sha2-nistp521,curve25519-sha256", true);
            [packet(&offer), packet(&[&[30][..], &[9; 140]].concat())].concat()
        }
        // A second offer instead of a value.
        1 => packet(&kexinit(strict, false)).repeat(2),
        // More names than anybody has, in a list that is too long.
        2 => packet(&kexinit(&"name-of-a-method,".repeat(1_500), false)),
        3 => packet(&kexinit(&"n,".repeat(400), false)),
        // A list of four gigabytes.
        _ => {
            let mut offer = kexinit(strict, false);
            offer.splice(17..21, [0xff; 4]);
            packet(&offer)
        }
    }
}

#[tokio::test]
async fn strangers_that_come_again_and_again_leave_nothing_behind() {
    let reconnects = std::env::var("KETCH_RECONNECTS").map_or(RECONNECTS, |n| n.parse().unwrap());
    let files = Arc::new(MemoryFileSystem::new());
    let server = Server::builder()
        .host_key(generate_host_key().unwrap())
        .user(User::with_file_system("anna", files).password("open sesame"))
        .build()
        .unwrap();
    let once = async |n: usize| {
        let (mut ours, theirs) = tokio::io::duplex(1 << 17);
        let stranger = async {
            let said = [b"SSH-2.0-stranger\r\n", &nonsense(n)[..]].concat();
            ours.write_all(&said).await.unwrap();
            let mut answer = Vec::new();
            if n.is_multiple_of(5) {
                // It waits for a value, so the stranger leaves when its offer has come.
                ours.read_buf(&mut answer).await.unwrap();
                drop(ours);
            } else {
                ours.read_to_end(&mut answer).await.unwrap();
            }
            answer.len()
        };
        let (served, heard) = tokio::join!(server.serve_stream(theirs, n), stranger);
        assert!(served.is_err() && heard > 0, "{n}");
    };
    for n in 0..500 {
        once(n).await;
    }
    // What the allocator keeps, it keeps once; what is left behind is left each time.
    let mut growth = 0;
    for _ in 0..TURNS {
        let before = resident();
        for n in 0..reconnects {
            once(n).await;
        }
        growth = resident().saturating_sub(before);
        println!("{reconnects} connections: {growth} bytes more");
        if growth <= GROWTH_MAX {
            return;
        }
    }
    panic!("{growth} bytes in {reconnects}, after as many before them");
}

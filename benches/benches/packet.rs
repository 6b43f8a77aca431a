//! What the SSH packet layer costs: sealing and opening, in place, per suite; and how much of that is
//! not the cipher's own.
//!
//! Throughput is that of the data in the packets; tags, headers and padding come on top. Behind the
//! groups stands a table ([`against_the_bare_cipher`]): the same packets sealed and opened by the bare
//! primitive and by the packet layer, in turns in one run. It fails if an AEAD's packets take more
//! than [`RATIO_MAX`] of the bare time, or if a packet allocates.

use std::hint::black_box;
use std::io::IoSliceMut;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group};
use ctr::cipher::{KeyIvInit, StreamCipher};
use ketch_transport::algorithm::{CipherName, Compression, MacName};
use ketch_transport::crypto::Suite;
use ketch_transport::packet::{Input, PACKET_DATA_MAX, PACKET_LEN_MAX, Receiver, Sender};
use ring::aead::chacha20_poly1305_openssh as openssh;
use ring::{aead, hmac};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Data of one batch: what a turn of the driver moves.
const BATCH_LEN: usize = 256 * 1024;
/// Packets of one batch, at their longest.
const BATCH_PACKETS: usize = BATCH_LEN / PACKET_DATA_MAX;
/// What an AEAD's packets may cost, as a multiple of the bare primitive.
const RATIO_MAX: f64 = 1.15;
/// Batches of each kind that are timed, in turns.
const ROUNDS: usize = 3_000;

/// The AEADs, and AES in counter mode with the MACs that go with it in practice.
fn suites() -> Vec<Suite> {
    let ctr = [MacName::HmacSha256Etm, MacName::HmacSha512Etm].map(|mac| Suite {
        cipher: CipherName::Aes256Ctr,
        mac: Some(mac),
        compression: Compression::None,
    });
    let aead = CipherName::AEAD.iter().copied().map(Suite::aead);
    aead.chain(ctr).collect()
}

/// Puts a batch of channel data into packets, eight at a time; `write` takes what goes to the stream.
fn seal(sender: &mut Sender, data_len: usize, mut write: impl FnMut(&[u8])) {
    let mut left = BATCH_LEN;
    while left > 0 {
        let len = left.min(data_len * 8);
        let mut slots = sender
            .slots(3, len, data_len)
            .expect("an empty buffer has room");
        // Where `preadv` would write.
        slots.fill(0, |pieces: &mut [IoSliceMut<'_>]| {
            pieces.iter_mut().for_each(|piece| piece.fill(7));
        });
        slots.commit(len);
        left -= len;
        let sealed = sender.output().len();
        write(sender.output());
        sender.consume(sealed);
    }
}

fn sealing(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Bytes(BATCH_LEN as u64));
    for suite in suites() {
        for data_len in [PACKET_DATA_MAX, 1024] {
            let mut sender = Sender::with_test_keys(suite);
            group.bench_function(BenchmarkId::new(suite.to_string(), data_len), |b| {
                b.iter(|| {
                    seal(&mut sender, black_box(data_len), |sealed| {
                        black_box(sealed.len());
                    });
                });
            });
        }
    }
    group.finish();
}

fn opening(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    group.throughput(Throughput::Bytes(BATCH_LEN as u64));
    for suite in suites() {
        for data_len in [PACKET_DATA_MAX, 1024] {
            let mut sender = Sender::with_test_keys(suite);
            let mut sealed = Vec::new();
            seal(&mut sender, data_len, |bytes| {
                sealed.extend_from_slice(bytes)
            });
            group.bench_function(BenchmarkId::new(suite.to_string(), data_len), |b| {
                b.iter_batched_ref(
                    || {
                        (
                            Receiver::with_test_keys(suite, PACKET_LEN_MAX),
                            sealed.clone(),
                        )
                    },
                    |(receiver, arena)| open(receiver, arena),
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn open(receiver: &mut Receiver, arena: &mut [u8]) -> usize {
    let mut input = Input::new(arena);
    let mut opened = 0;
    while let Some(packet) = receiver.next(&mut input).expect("good packets") {
        opened += packet.payload.bytes.len();
    }
    opened
}

/// A primitive alone: it seals and opens packets whose length, padding and tag have their place.
enum Bare {
    Gcm(Box<aead::LessSafeKey>, u64),
    ChaCha20(openssh::SealingKey, openssh::OpeningKey, u32),
    CtrHmac(Box<Aes256Ctr>, Box<Aes256Ctr>, hmac::Key),
}

type Aes256Ctr = ctr::Ctr128BE<aes::Aes256Enc>;

impl Bare {
    fn new(suite: Suite) -> Self {
        let gcm = |algorithm, key: &[u8]| {
            let key = aead::UnboundKey::new(algorithm, key).expect("it has that length");
            Self::Gcm(Box::new(aead::LessSafeKey::new(key)), 0)
        };
        match (suite.cipher, suite.mac) {
            (CipherName::Aes256Gcm, _) => gcm(&aead::AES_256_GCM, &[1; 32]),
            (CipherName::Aes128Gcm, _) => gcm(&aead::AES_128_GCM, &[1; 16]),
            (CipherName::ChaCha20Poly1305, _) => Self::ChaCha20(
                openssh::SealingKey::new(&[1; 64]),
                openssh::OpeningKey::new(&[1; 64]),
                0,
            ),
            (_, mac) => {
                let stream = || Box::new(Aes256Ctr::new(&[1; 32].into(), &[2; 16].into()));
                let algorithm = match mac {
                    Some(MacName::HmacSha512Etm) => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                Self::CtrHmac(stream(), stream(), hmac::Key::new(algorithm, &[3; 32]))
            }
        }
    }

    const fn tag_len(suite: Suite) -> usize {
        match suite.mac {
            None => 16,
            Some(MacName::HmacSha512Etm) => 64,
            Some(_) => 32,
        }
    }

    /// Seals and opens a batch; the time of both.
    #[expect(clippy::disallowed_methods, reason = "time is what is measured")]
    fn turn(&mut self, packets: &mut [u8], packet_len: usize, tag_len: usize) -> Duration {
        let start = Instant::now();
        match self {
            Self::Gcm(key, counter) => {
                let first = *counter;
                for packet in packets.chunks_exact_mut(packet_len) {
                    let (sealed, tag) = packet.split_at_mut(packet_len - tag_len);
                    let (aad, body) = sealed.split_at_mut(4);
                    let aad = aead::Aad::from(&aad[..]);
                    let made = key
                        .seal_in_place_separate_tag(nonce(*counter), aad, body)
                        .expect("short");
                    tag.copy_from_slice(made.as_ref());
                    *counter += 1;
                }
                for (index, packet) in (first..).zip(packets.chunks_exact_mut(packet_len)) {
                    let (aad, body) = packet.split_at_mut(4);
                    let aad = aead::Aad::from(&aad[..]);
                    black_box(key.open_in_place(nonce(index), aad, body).expect("good"));
                }
            }
            Self::ChaCha20(seal, open, counter) => {
                let first = *counter;
                for packet in packets.chunks_exact_mut(packet_len) {
                    let (sealed, tag) = packet.split_at_mut(packet_len - tag_len);
                    let tag = tag.try_into().expect("16 bytes");
                    seal.seal_in_place(*counter, sealed, tag);
                    *counter += 1;
                }
                for (index, packet) in (first..).zip(packets.chunks_exact_mut(packet_len)) {
                    let (sealed, tag) = packet.split_at_mut(packet_len - tag_len);
                    let tag = (&*tag).try_into().expect("16 bytes");
                    let plain = open.open_in_place(index, sealed, tag).expect("good");
                    // What the length stays is encrypted; it is written anew for the next turn.
                    black_box(plain.len());
                }
            }
            Self::CtrHmac(seal, open, key) => {
                for packet in packets.chunks_exact_mut(packet_len) {
                    let (sealed, tag) = packet.split_at_mut(packet_len - tag_len);
                    seal.apply_keystream(&mut sealed[4..]);
                    tag.copy_from_slice(hmac::sign(key, sealed).as_ref());
                }
                for packet in packets.chunks_exact_mut(packet_len) {
                    let (sealed, tag) = packet.split_at_mut(packet_len - tag_len);
                    hmac::verify(key, sealed, tag).expect("good");
                    open.apply_keystream(&mut sealed[4..]);
                }
            }
        }
        start.elapsed()
    }
}

fn nonce(counter: u64) -> aead::Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    aead::Nonce::assume_unique_for_key(nonce)
}

/// The packet layer's turn at the same: only the sealing and the opening are timed, not what brings
/// the data to the slots and the packets to the arena.
#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn turn(sender: &mut Sender, receiver: &mut Receiver, arena: &mut Vec<u8>) -> Duration {
    let start = Instant::now();
    let slots = sender.slots(3, BATCH_LEN, PACKET_DATA_MAX).expect("room");
    slots.commit(BATCH_LEN);
    let sealed = start.elapsed();
    arena.clear();
    arena.extend_from_slice(sender.output());
    sender.consume(arena.len());
    let start = Instant::now();
    black_box(open(receiver, arena));
    sealed + start.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn against_the_bare_cipher() {
    println!(
        "\nseal and open of {BATCH_PACKETS} packets with {PACKET_DATA_MAX} bytes, median of {ROUNDS}:"
    );
    let mut too_slow = Vec::new();
    for suite in suites() {
        let mut sender = Sender::with_test_keys(suite);
        let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
        let mut arena = Vec::new();
        turn(&mut sender, &mut receiver, &mut arena);

        // Packets as long as those of the packet layer, one behind the other.
        let packet_len = arena.len() / BATCH_PACKETS;
        let mut packets = vec![7; packet_len * BATCH_PACKETS];
        let mut bare = Bare::new(suite);
        let (mut alone, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(bare.turn(&mut packets, packet_len, Bare::tag_len(suite)));
            whole.push(turn(&mut sender, &mut receiver, &mut arena));
        }
        let (alone, whole) = (median(&mut alone), median(&mut whole));
        let ratio = whole.as_secs_f64() / alone.as_secs_f64();

        let blocks = {
            let _profiler = dhat::Profiler::builder().testing().build();
            let before = dhat::HeapStats::get().total_blocks;
            for _ in 0..100 {
                turn(&mut sender, &mut receiver, &mut arena);
            }
            dhat::HeapStats::get().total_blocks - before
        };
        println!(
            "{:55} bare {alone:>9.2?}, packets {whole:>9.2?}, ratio {ratio:.3}, {:.2} GiB/s, {blocks} allocations in {} packets",
            suite.to_string(),
            2.0 * BATCH_LEN as f64 / whole.as_secs_f64() / f64::from(1 << 30),
            100 * BATCH_PACKETS,
        );
        assert_eq!(blocks, 0, "{suite}: packets allocate");
        if suite.mac.is_none() && ratio > RATIO_MAX {
            too_slow.push((suite.to_string(), ratio));
        }
    }
    assert!(too_slow.is_empty(), "above {RATIO_MAX}: {too_slow:?}");
}

criterion_group!(benches, sealing, opening);

fn main() {
    benches();
    // `cargo test` runs benches to see that they run; timings mean nothing there.
    if std::env::args().any(|arg| arg == "--bench") {
        against_the_bare_cipher();
    }
    Criterion::default().configure_from_args().final_summary();
}

//! What the SSH packet layer costs: sealing and opening, in place, per cipher.
//!
//! Throughput is that of the data in the packets; tags, headers and padding come on top.

use std::hint::black_box;
use std::io::IoSliceMut;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ketch_transport::algorithm::CipherName;
use ketch_transport::crypto::Suite;
use ketch_transport::packet::{Input, PACKET_DATA_MAX, PACKET_LEN_MAX, Receiver, Sender};

/// Data of one batch: what a turn of the driver moves.
const BATCH_LEN: usize = 256 * 1024;

/// Seals a batch of channel data, eight packets at a time; `write` takes what goes to the stream.
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
    for cipher in CipherName::AEAD {
        for data_len in [PACKET_DATA_MAX, 1024] {
            let mut sender = Sender::with_test_keys(Suite::aead(*cipher));
            group.bench_function(BenchmarkId::new(cipher.name(), data_len), |b| {
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
    for cipher in CipherName::AEAD {
        for data_len in [PACKET_DATA_MAX, 1024] {
            let mut sender = Sender::with_test_keys(Suite::aead(*cipher));
            let mut sealed = Vec::new();
            seal(&mut sender, data_len, |bytes| {
                sealed.extend_from_slice(bytes)
            });
            group.bench_function(BenchmarkId::new(cipher.name(), data_len), |b| {
                b.iter_batched_ref(
                    || {
                        (
                            Receiver::with_test_keys(Suite::aead(*cipher), PACKET_LEN_MAX),
                            sealed.clone(),
                        )
                    },
                    |(receiver, arena)| {
                        let mut input = Input::new(arena);
                        let mut opened = 0;
                        while let Some(packet) = receiver.next(&mut input).expect("good packets") {
                            opened += packet.payload.bytes.len();
                        }
                        opened
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, sealing, opening);
criterion_main!(benches);

//! What the SSH packet layer costs: sealing and opening, in place, per cipher.
//!
//! Throughput is that of the data in the packets; tags, headers and padding come on top.

use std::hint::black_box;
use std::io::IoSliceMut;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ketch_transport::algorithm::CipherName;
use ketch_transport::packet::{Input, PACKET_DATA_MAX, PACKET_LEN_MAX, Receiver, Sender};

/// Data of one batch: what a turn of the driver moves.
const BATCH_LEN: usize = 256 * 1024;

/// Fills the output buffer with channel data; returns what would go to the stream.
fn seal(sender: &mut Sender, data_len: usize) -> usize {
    let mut left = BATCH_LEN;
    while left > 0 {
        let len = left.min(data_len * 8);
        let mut slots = sender
            .slots(3, len, data_len)
            .expect("there is room for a batch");
        // Where `preadv` would write.
        slots.fill(0, |pieces: &mut [IoSliceMut<'_>]| {
            pieces.iter_mut().for_each(|piece| piece.fill(7));
        });
        slots.commit(len);
        left -= len;
    }
    sender.output().len()
}

fn sealing(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Bytes(BATCH_LEN as u64));
    for cipher in CipherName::ALL {
        for data_len in [PACKET_DATA_MAX, 1024] {
            let mut sender = Sender::with_test_keys(*cipher);
            group.bench_function(BenchmarkId::new(cipher.name(), data_len), |b| {
                b.iter(|| {
                    let len = seal(&mut sender, black_box(data_len));
                    sender.consume(len);
                    len
                });
            });
        }
    }
    group.finish();
}

fn opening(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    group.throughput(Throughput::Bytes(BATCH_LEN as u64));
    for cipher in CipherName::ALL {
        for data_len in [PACKET_DATA_MAX, 1024] {
            let mut sender = Sender::with_test_keys(*cipher);
            seal(&mut sender, data_len);
            let sealed = sender.output().to_vec();
            group.bench_function(BenchmarkId::new(cipher.name(), data_len), |b| {
                b.iter_batched_ref(
                    || {
                        (
                            Receiver::with_test_keys(*cipher, PACKET_LEN_MAX),
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

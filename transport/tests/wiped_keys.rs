//! What of a key is left in memory once its connection is over: the memory of this process is read
//! as a thief of it would.
//!
//! One test, because it is about the memory of the whole process; on Linux, where a process can read
//! its own memory as a file.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use ketch_transport::crypto::Suite;
use ketch_transport::packet::{Input, PACKET_LEN_MAX, Receiver, Sender};

/// Bytes of a key that give it away. Test keys are one byte over and over.
const TELLING: usize = 16;

/// How often `TELLING` bytes of the test keys stand in writable memory: in the heap and what is
/// mapped like it, and on the main thread's stack. `page` is where it is read to; whatever is found
/// is found there once more.
fn hits(page: &mut [u8]) -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let (mut heap, mut stack) = (0, 0);
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let is_stack = line.contains("[stack]");
        let (start, end) = range.split_once('-').unwrap();
        let address = |digits| u64::from_str_radix(digits, 16).unwrap();
        let (mut at, end) = (address(start), address(end));
        let mut run = 0;
        while at < end {
            let len = page.len().min(usize::try_from(end - at).unwrap());
            // Pages that cannot be read hold nothing of ours.
            let Ok(read) = memory.read_at(&mut page[..len], at) else {
                break;
            };
            if read == 0 {
                break;
            }
            for &byte in &page[..read] {
                run = if byte == 0x42 { run + 1 } else { 0 };
                if run == TELLING {
                    *if is_stack { &mut stack } else { &mut heap } += 1;
                }
            }
            at += u64::try_from(read).unwrap();
        }
    }
    page.fill(0);
    std::hint::black_box(page); // or the filling would be left out
    (heap, stack)
}

#[inline(never)]
fn used(suite: Suite) -> (Box<Sender>, Box<Receiver>) {
    let mut sender = Box::new(Sender::with_test_keys(suite));
    let mut receiver = Box::new(Receiver::with_test_keys(suite, PACKET_LEN_MAX));
    sender.send(b"some payload").unwrap();
    let mut arena = sender.output().to_vec();
    assert!(
        receiver
            .next(&mut Input::new(&mut arena))
            .unwrap()
            .is_some()
    );
    (sender, receiver)
}

#[test]
fn nothing_of_a_ciphers_key_is_left_in_memory() {
    let mut found = BTreeMap::new();
    let mut alive = 0;
    let mut page = vec![0; 64 * 1024];
    let before = hits(&mut page);
    for suite in Suite::every() {
        // Several at a time, so that what is freed is not soon written over by the next.
        let ends: Vec<_> = (0..4).map(|_| used(suite)).collect();
        alive += usize::from(hits(&mut page).0 > before.0);
        drop(ends);
        let after = hits(&mut page);
        if after != before {
            found.insert(suite.to_string(), after);
        }
    }
    // The search finds what is there.
    assert!(alive > 30, "keys in use were found for {alive} suites only");
    assert!(
        found.is_empty(),
        "keys left (heap, stack): {found:?}, before {before:?}"
    );
}

//! What of a key is left in memory once its connection is over: the memory of this process is read
//! as a thief of it would.
//!
//! One test, because it is about the memory of the whole process; on Linux, where a process can read
//! its own memory as a file.
#![cfg(target_os = "linux")]

mod memory;

use std::collections::BTreeMap;

use ketch_transport::crypto::Suite;
use ketch_transport::packet::{Input, PACKET_LEN_MAX, Receiver, Sender};
use memory::hits;

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

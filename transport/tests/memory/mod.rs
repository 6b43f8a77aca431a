//! The memory of this process, read as a thief of it would.
//!
//! On Linux, where a process can read its own memory as a file.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Bytes of a secret that give it away. The secrets of tests are one byte over and over.
const TELLING: usize = 16;

/// The byte that they are made of.
pub(crate) const TOLD: u8 = 0x42;

/// How often `TELLING` bytes of the secrets stand in writable memory: in the heap and what is mapped
/// like it, and on the stacks of the main thread and of this one. `page` is where it is read to;
/// whatever is found is found there once more.
pub(crate) fn hits(page: &mut [u8]) -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let (mut heap, mut stack) = (0, 0);
    let here = std::ptr::from_ref(&heap).addr() as u64;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let address = |digits| u64::from_str_radix(digits, 16).unwrap();
        let (mut at, end) = (address(start), address(end));
        let is_stack = line.contains("[stack]") || (at..end).contains(&here);
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
                run = if byte == TOLD { run + 1 } else { 0 };
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

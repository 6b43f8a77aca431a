//! What a sink has, compared before it is told that it is whole.

use std::{
    io,
    sync::{Arc, Mutex},
};

use super::{content, server::Habits, sim::Sim};
use crate::{GetOptions, Sink, TransferError, Verify};

#[derive(Default)]
struct Memory {
    data: Mutex<Vec<u8>>,
    said: Mutex<Vec<&'static str>>,
    spoils: bool,
    cannot_read: bool,
    cannot_finish: bool,
}

impl Sink for Memory {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut data = self.data.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        let len = data.len().max(at + bytes.len());
        data.resize(len, 0);
        data[at..at + bytes.len()].copy_from_slice(bytes);
        if self.spoils && (at..at + bytes.len()).contains(&300_000) {
            data[300_000] ^= 1;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if self.cannot_read {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let data = self.data.lock().unwrap();
        // A thousand bytes at a time.
        let rest = data.get(usize::try_from(offset).unwrap()..);
        let rest = rest.unwrap_or_default();
        let len = rest.len().min(buf.len()).min(1000);
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn finish(&self, _: u64) -> io::Result<()> {
        self.said.lock().unwrap().push("finish");
        if self.cannot_finish {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn abort(&self) {
        self.said.lock().unwrap().push("abort");
    }
}

fn run(sink: Memory, verify: Verify) -> (Result<u64, TransferError>, Arc<Memory>, usize) {
    let mut sim = Sim::new(Habits::default(), 3);
    sim.settle();
    sim.server.file("/a", content(700_000));
    let sink = Arc::new(sink);
    let sftp = sim.sftp.clone();
    let options = GetOptions::new().verify(verify);
    let result = sim.run(sftp.get_to("/a", Arc::clone(&sink) as Arc<dyn Sink>, options));
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
    (
        result.map(|report| report.bytes),
        sink,
        sim.server.bytes_read,
    )
}

#[test]
fn what_a_sink_has_is_compared_where_that_is_wanted() {
    let (result, sink, read) = run(Memory::default(), Verify::Checksum);
    assert_eq!((result.unwrap(), read), (700_000, 1_400_000));
    assert!(*sink.data.lock().unwrap() == content(700_000));
    assert_eq!(*sink.said.lock().unwrap(), ["finish"]);

    let spoils = || Memory {
        spoils: true,
        ..Memory::default()
    };
    let (result, sink, _) = run(spoils(), Verify::Checksum);
    let error = result.unwrap_err();
    assert!(matches!(error, TransferError::Differs { .. }), "{error}");
    assert_eq!(*sink.said.lock().unwrap(), ["abort"]);
    // Nobody asked.
    assert_eq!(run(spoils(), Verify::Size).0.unwrap(), 700_000);
}

#[test]
fn a_sink_that_cannot_be_read_back_is_not_said_to_be_compared() {
    let sink = Memory {
        cannot_read: true,
        ..Memory::default()
    };
    let (result, sink, _) = run(sink, Verify::Checksum);
    let error = result.unwrap_err();
    assert!(matches!(error, TransferError::Local { .. }), "{error}");
    assert_eq!(*sink.said.lock().unwrap(), ["abort"]);
}

#[test]
fn a_sink_that_fails_at_the_end_is_told_that_it_was_all_for_nothing() {
    let sink = Memory {
        cannot_finish: true,
        ..Memory::default()
    };
    let (result, sink, _) = run(sink, Verify::Size);
    assert!(matches!(result, Err(TransferError::Local { .. })));
    assert_eq!(*sink.said.lock().unwrap(), ["finish", "abort"]);
}

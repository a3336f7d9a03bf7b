//! Operations on a file, at once and by the helper.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::*;
use crate::block::backend::ByteRange;
use crate::block::tag::Slab;
use crate::memory::{Buffer, HostBuffer};
use crate::testing::IoRig;

struct Rig {
    io: IoRig,
    engine: FileBackend,
    file: File,
    slab: Slab<()>,
}

fn rig() -> Rig {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[0xaa; 65536], 0).unwrap();
    let engine = FileBackend::on(DiskFile::new(file.try_clone().unwrap()), 65536);
    let mut rig = Rig { io: IoRig::new(), engine, file, slab: Slab::new(1000) };
    rig.engine.attach(&mut rig.io.turn()).unwrap();
    rig
}

impl Rig {
    fn submit(&mut self, operation: Operation) -> Tag {
        let tag = self.slab.insert(()).unwrap();
        self.engine.submit(&mut self.io.turn(), tag, operation).unwrap();
        tag
    }

    fn wait(&mut self) -> Done {
        self.engine.commit(&mut self.io.turn());
        let begun = Instant::now();
        loop {
            if let Some(done) = self.engine.completed(&mut self.io.turn()) {
                return done;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    }

    fn run(&mut self, operation: Operation) -> Done {
        let tag = self.submit(operation);
        let done = self.wait();
        assert_eq!(done.tag, tag);
        done
    }
}

fn host(len: usize, byte: u8) -> Buffer {
    let mut buffer = HostBuffer::new(len);
    buffer.fill(byte);
    Buffer::Host(buffer)
}

#[test]
fn what_is_written_is_read_back_at_once_and_by_the_helper() {
    for way in [Way::Try, Way::InMemory, Way::Helper] {
        let mut rig = rig();
        (rig.engine.reads, rig.engine.writes) = (way, way);
        for stable in [false, true] {
            rig.run(Operation::Write { at: 512, from: host(1024, 7), stable }).result.unwrap();
        }
        rig.run(Operation::Flush).result.unwrap();
        let done = rig.run(Operation::Read { at: 0, into: host(2048, 0) });
        done.result.unwrap();
        let Operation::Read { into, .. } = done.operation else { panic!("{:?}", done.operation) };
        let mut bytes = [0; 2048];
        into.copy_out(0, &mut bytes).unwrap();
        assert!(bytes[512..1536].iter().all(|byte| *byte == 7));
        assert!(bytes[..512].iter().chain(&bytes[1536..]).all(|byte| *byte == 0xaa));
    }
}

#[test]
fn a_file_that_ends_early_is_an_error_and_the_next_read_works() {
    let mut rig = rig();
    rig.file.set_len(1000).unwrap();
    assert!(rig.run(Operation::Read { at: 512, into: host(512, 0) }).result.is_err());
    rig.run(Operation::Read { at: 0, into: host(512, 0) }).result.unwrap();
}

#[test]
fn a_refresh_sees_another_size() {
    let mut rig = rig();
    for (bytes, capacity) in [(100_000, 99_840), (0, 512)] {
        rig.file.set_len(bytes).unwrap();
        rig.engine.refresh(&mut rig.io.turn());
        assert_eq!(rig.engine.info().capacity, capacity);
    }
}

#[test]
fn more_than_there_is_room_for_is_refused_and_taken_later() {
    let mut rig = rig();
    rig.engine.reads = Way::Helper;
    let mut refused = None;
    for _ in 0..=ROOM {
        let tag = rig.slab.insert(()).unwrap();
        let operation = Operation::Read { at: 0, into: host(512, 0) };
        if let Err(operation) = rig.engine.submit(&mut rig.io.turn(), tag, operation) {
            refused = Some((tag, operation));
        }
    }
    let (tag, operation) = refused.expect("one was refused");
    rig.wait().result.unwrap();
    rig.engine.submit(&mut rig.io.turn(), tag, operation).unwrap();
    for _ in 0..ROOM {
        rig.wait().result.unwrap();
    }
}

#[test]
fn what_was_not_begun_is_cancelled_and_all_is_completed() {
    let mut rig = rig();
    rig.engine.writes = Way::Helper;
    for _ in 0..50 {
        rig.submit(Operation::WriteZeroes { range: ByteRange { at: 0, len: 65536 }, unmap: false, stable: true });
    }
    rig.engine.cancel(&mut rig.io.turn());
    let results: Vec<_> = (0..50).map(|_| rig.wait().result).collect();
    assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|e| e.raw_os_error() == Some(libc::ECANCELED)));
    assert!(rig.engine.completed(&mut rig.io.turn()).is_none());
}

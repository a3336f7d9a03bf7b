//! Operations on a file, at once and by the helper.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::*;
use crate::block::Disk;
use crate::block::backend::ByteRange;
use crate::block::tag::Slab;
use crate::memory::{Buffer, GuestAddress, GuestRanges, HostBuffer, Lessor, RangeList};
use crate::sys::{forbid, open_disk};
use crate::testing::{InlineIo, IoRig, build_folder, has_uring, patterned_memory};
use crate::virtio::MmioTransport;

struct Rig {
    io: IoRig,
    engine: FileBackend,
    file: File,
    slab: Slab<()>,
}

fn rig() -> Rig {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[0xaa; 65536], 0).unwrap();
    let engine = FileBackend::on("a test", DiskFile::new(file.try_clone().unwrap()), Engine::Auto).unwrap();
    Rig::new(IoRig::new(), engine, file)
}

/// On a file whose data go past the page cache, with a thread whose pool has so many bytes.
fn direct(pool: usize, engine: Engine) -> Rig {
    let directory = tempfile::tempdir_in(build_folder()).unwrap();
    let path = directory.path().join("disk");
    std::fs::write(&path, [0xaa; 65536]).unwrap();
    let disk = open_disk(&path, true, true).unwrap();
    let engine = FileBackend::on("a test", DiskFile::new(disk), engine).unwrap();
    Rig::new(IoRig::with_pool(pool), engine, File::open(path).unwrap())
}

impl Rig {
    fn new(io: IoRig, engine: FileBackend, file: File) -> Self {
        let mut rig = Self { io, engine, file, slab: Slab::new(1000) };
        rig.engine.attach(&mut rig.io.turn()).unwrap();
        rig
    }

    fn submit(&mut self, operation: Operation) -> Tag {
        let tag = self.slab.insert(()).unwrap();
        self.engine.submit(&mut self.io.turn(), tag, operation).unwrap();
        tag
    }

    fn wait(&mut self) -> Done {
        self.engine.commit(&mut self.io.turn());
        self.next()
    }

    fn next(&mut self) -> Done {
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
        // The second of them comes while the helper is at the first, or is over.
        (0..2).for_each(|_| rig.engine.refresh(&mut rig.io.turn()));
        let begun = Instant::now();
        while rig.engine.info().capacity != capacity || rig.engine.measures {
            assert!(begun.elapsed() < Duration::from_secs(10));
            assert!(rig.engine.completed(&mut rig.io.turn()).is_none());
        }
        assert_eq!((rig.engine.in_flight(), rig.engine.measures_again), (0, false));
    }
}

#[test]
fn a_sandbox_that_does_not_say_what_file_system_it_is_costs_speed_and_that_is_said() {
    let work = || {
        forbid(libc::SYS_fstatfs, libc::EPERM);
        let mut rig = rig();
        rig.run(Operation::Write { at: 0, from: host(512, 7), stable: false }).result.unwrap();
        let DiskStatus { engine, fallback, .. } = rig.engine.status();
        assert_eq!(engine, "sync");
        assert!(fallback.unwrap().contains("does not say on which file system the file is"));
    };
    std::thread::spawn(work).join().unwrap();
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

#[test]
fn what_is_not_in_the_page_cache_is_read_by_the_ring() {
    if !has_uring() {
        return;
    }
    let mut rig = rig();
    assert_eq!(rig.engine.status(), DiskStatus { engine: "uring".to_owned(), fallback: None });
    rig.file.sync_all().unwrap();
    rustix::fs::fadvise(&rig.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    for position in 0..16 {
        rig.submit(Operation::Read { at: position * 4096, into: host(4096, 0) });
    }
    assert!(rig.engine.ring.as_ref().unwrap().in_flight() > 0, "nothing had to wait");
    assert_eq!(rig.engine.with_helper, 0);
    for _ in 0..16 {
        let done = rig.wait();
        done.result.unwrap();
        let Operation::Read { into: Buffer::Host(bytes), .. } = done.operation else { panic!("it was a read") };
        assert!(bytes.iter().all(|byte| *byte == 0xaa));
    }
}

#[test]
fn small_reads_that_come_by_the_batch_are_read_by_the_ring() {
    if !has_uring() {
        return;
    }
    let mut rig = rig();
    let batch = |rig: &mut Rig| {
        (0..16).for_each(|number| _ = rig.submit(Operation::Read { at: number * 4096, into: host(4096, 0) }));
        let by_ring = rig.engine.ring.as_ref().unwrap().in_flight();
        rig.engine.commit(&mut rig.io.turn());
        for _ in 0..16 {
            let done = rig.next();
            done.result.unwrap();
            let Operation::Read { into: Buffer::Host(bytes), .. } = done.operation else { panic!("it was a read") };
            assert!(bytes.iter().all(|byte| *byte == 0xaa));
        }
        by_ring
    };
    assert_eq!((batch(&mut rig), batch(&mut rig)), (0, 16));
    rig.engine.ring = None;
    (0..16).for_each(|_| _ = rig.submit(Operation::Read { at: 0, into: host(4096, 0) }));
    assert_eq!((rig.engine.done.len(), rig.engine.with_helper), (16, 0), "without a ring, they are read at once");
}

#[test]
fn direct_io_copies_what_is_not_aligned_and_only_that() {
    for (pool, engine) in [(8 << 20, Engine::Auto), (0, Engine::Auto), (8 << 20, Engine::Sync)] {
        let mut rig = direct(pool, engine);
        let memory = patterned_memory(1 << 20);
        let lessor = Lessor::new(memory.clone());
        let guest = |parts: &[(u64, u32)]| {
            let mut ranges = GuestRanges::new(RangeList::default(), lessor.lease());
            ranges.extend(parts.iter().map(|(gpa, len)| (GuestAddress(*gpa), *len))).unwrap();
            Buffer::Guest(ranges)
        };
        memory.write(GuestAddress(0x1_0003), &[7; 4096]).unwrap();
        let aligned = guest(&[(0x2_0000, 4096), (0x3_0000, 4096)]);
        let uneven = [(0x4_0001, 100), (0x5_0000, 3996)];
        rig.run(Operation::Write { at: 4096, from: guest(&[(0x1_0003, 4096)]), stable: true }).result.unwrap();
        rig.run(Operation::Read { at: 0, into: aligned }).result.unwrap();
        let done = rig.run(Operation::Read { at: 4096, into: guest(&uneven) });
        done.result.unwrap();
        assert!(matches!(done.operation, Operation::Read { into: Buffer::Guest(_), .. }), "it is the guest's own");
        let all = |gpa: u64, len: usize, byte: u8| {
            let mut bytes = vec![0; len];
            memory.read(GuestAddress(gpa), &mut bytes).unwrap();
            assert!(bytes.iter().all(|found| *found == byte), "{gpa:#x}");
        };
        all(0x2_0000, 4096, 0xaa);
        all(0x3_0000, 4096, 7);
        all(0x4_0001, 100, 7);
        all(0x5_0000, 3996, 7);
        drop(done.operation);
        assert_eq!(lessor.count(), 0);
    }
}

#[test]
fn direct_io_without_a_buffer_from_the_pool_waits_for_its_own() {
    let mut rig = direct(0, Engine::Auto);
    let memory = patterned_memory(1 << 16);
    let lessor = Lessor::new(memory);
    let mut uneven = |tag: Tag| {
        let mut ranges = GuestRanges::new(RangeList::default(), lessor.lease());
        ranges.extend([(GuestAddress(0x1001), 4096)]).unwrap();
        let operation = Operation::Read { at: 0, into: Buffer::Guest(ranges) };
        rig.engine.submit(&mut rig.io.turn(), tag, operation)
    };
    let tags = [0, 1].map(Tag::from_bits);
    uneven(tags[0]).unwrap();
    let refused = uneven(tags[1]).unwrap_err();
    rig.wait().result.unwrap();
    rig.engine.submit(&mut rig.io.turn(), tags[1], refused).unwrap();
    rig.wait().result.unwrap();
}

#[test]
fn an_engine_that_the_thread_does_not_have_is_an_error_only_if_it_was_asked_for() {
    let on = |engine| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        Disk::backend(FileBackend::new(file).unwrap().engine(engine))
    };
    let build = |disk: Disk| {
        let (inline, handle) = (InlineIo::new(), disk.handle());
        let device = disk.into_device().unwrap();
        let transport = MmioTransport::new(device, patterned_memory(1 << 16), inline.io_thread());
        transport.map(|_transport| handle.status())
    };
    let error = build(on(Engine::Uring)).unwrap_err();
    assert!(error.to_string().contains("uring was asked for, but there is no thread"), "{error}");
    let status = build(on(Engine::Auto)).unwrap();
    assert_eq!((status.engine.as_str(), status.fallback.is_some()), ("sync", true));
    assert_eq!(build(on(Engine::Sync)).unwrap().fallback, None);
}

/// The names of this process's threads, as the kernel shows them.
fn thread_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok()).collect()
}

#[test]
fn a_helper_is_called_after_the_owner_of_its_io_thread() {
    let flushed_on = |name: &str| {
        let flush = || {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[0xaa; 4096], 0).unwrap();
            let engine = FileBackend::on("a test", DiskFile::new(file.try_clone().unwrap()), Engine::Sync).unwrap();
            let mut rig = Rig::new(IoRig::new(), engine, file);
            assert!(rig.run(Operation::Flush).result.is_ok());
            thread_names()
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(flush).unwrap().join().unwrap()
    };
    assert!(flushed_on("a-tenant-s-web-1:io").contains(&"a-tenant-s:disk\n".to_owned()));
    assert!(flushed_on("shared").contains(&"vmcell-disk\n".to_owned()));
}

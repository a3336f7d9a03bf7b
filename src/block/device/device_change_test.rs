//! Disks whose backend or host changes or fails while they are used.

use super::*;

#[test]
fn a_request_that_goes_on_with_another_backend_stays_aligned_to_the_blocks_of_the_disk() {
    let coarse = |sectors: u64| DiskInfo { block_size: 4096, max_transfer: 8192, ..DiskInfo::new(sectors * SECTOR) };
    let (first, _) = backend(Manner::Good, coarse(SECTORS));
    let disk = Disk::backend(first);
    let handle = disk.handle();
    let mut rig = rig_of(FLUSHES, Box::new(disk.build().unwrap()), memory_disk(512));
    let odd = DiskInfo { max_transfer: 6144, max_range: 10240, ..DiskInfo::new(SECTORS * SECTOR) };
    let (next, seen) = backend(Manner::Good, odd);
    handle.replace(Disk::backend(next), Duration::from_secs(5)).unwrap();
    assert_eq!(rig.read(0, 8192), (0, 8193));
    assert_eq!(seen.log(), ["read 0 4096", "read 4096 4096"]);
    for small in [DiskInfo { max_transfer: 2048, ..odd }, DiskInfo { max_range: 2048, ..odd }] {
        let (next, _) = backend(Manner::Good, small);
        let error = handle.replace(Disk::backend(next), Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().contains("2048") && error.to_string().contains("4096"), "{error}");
    }
    assert_eq!(rig.read(0, 4096).0, 0);
}

/// Forbids its thread to use io_uring before the guest's first request.
struct Sandboxed(crate::block::FileBackend, bool);

impl DiskBackend for Sandboxed {
    fn info(&self) -> DiskInfo {
        self.0.info()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.0.attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        if !std::mem::replace(&mut self.1, true) {
            crate::sys::forbid(libc::SYS_io_uring_enter, libc::EPERM);
        }
        self.0.submit(io, tag, operation)
    }

    fn commit(&mut self, io: &mut Io) {
        self.0.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        self.0.completed(io)
    }

    fn wants(&self, wants: &mut Wants) {
        self.0.wants(wants);
    }

    fn status(&self) -> crate::block::DiskStatus {
        self.0.status()
    }
}

#[test]
fn a_disk_whose_thread_is_forbidden_to_use_io_uring_later_goes_on_and_says_why() {
    if !crate::testing::has_uring() {
        return;
    }
    let folder = tempfile::tempdir_in(crate::testing::build_folder()).unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, [7; (SECTORS * SECTOR) as usize]).unwrap();
    let file = crate::sys::open_disk(&path, true, true).unwrap();
    let disk = Disk::backend(Sandboxed(crate::block::FileBackend::new(file).unwrap(), false));
    let handle = disk.handle();
    let mut rig = rig_of(FLUSHES, Box::new(disk.build().unwrap()), memory_disk(512));
    assert_eq!(handle.status().engine, "uring");
    for _ in 0..3 {
        assert_eq!(rig.read(0, 4096), (0, 4097));
    }
    let mut bytes = [0; 4096];
    rig.memory.read(GuestAddress(DATA), &mut bytes).unwrap();
    assert_eq!(bytes, [7; 4096]);
    let status = handle.status();
    assert_eq!(status.engine, "sync");
    assert!(status.fallback.as_ref().unwrap().contains("io_uring"), "{status:?}");
}

#[test]
fn a_backend_that_panics_when_it_is_to_let_go_holds_up_neither_a_reset_nor_a_pause() {
    for manner in [Manner::PanicsInCancel, Manner::PanicsAfterCancel] {
        for fails_first in [false, true] {
            let (mut rig, seen) = scripted(FLUSHES, manner);
            let header = rig.header(4, 0);
            rig.queue.offer(&[header, Buffer::writable(STATUS, 1)]);
            rig.driver.kick(0);
            rig.driver.wait_until("an operation", || seen.log() == ["flush"]);
            if fails_first {
                rig.queue.set_avail_index(1000);
                rig.driver.kick(0);
                rig.driver.wait_until("the failure", || rig.driver.status() & DEVICE_NEEDS_RESET != 0);
                seen.go(0);
                rig.driver.transport().pause(MmioDriver::PATIENCE).unwrap();
                rig.driver.transport().resume();
            }
            std::thread::scope(|scope| {
                let vcpu = scope.spawn(|| rig.driver.write(crate::virtio::spec::mmio::STATUS, 0));
                rig.driver.wait_until("the reset", || {
                    seen.go(0);
                    vcpu.is_finished()
                });
            });
            // It is the backend that is gone, so the next driver does not get far.
            rig.driver.bring_up(FLUSHES, &[&rig.queue]);
            rig.driver.wait_until("the failure", || rig.driver.status() & DEVICE_NEEDS_RESET != 0);
            assert_eq!(rig.driver.transport().failure().unwrap().message, "the backend panicked: told to panic");
        }
    }
}

/// Ends discards and zeroes as what it does not do.
struct Declines(VecDeque<Done>);

impl DiskBackend for Declines {
    fn info(&self) -> DiskInfo {
        DiskInfo { max_range: 1024, ..DiskInfo::new(SECTORS * SECTOR) }
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        // Only the second part of a range, so that one is declined of which a part is done.
        let result = match operation {
            Operation::Discard(range) | Operation::WriteZeroes { range, .. } if range.at >= 1024 => {
                Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
            }
            Operation::Read { at: 0, .. } => Err(io::ErrorKind::Unsupported.into()),
            _ => Ok(()),
        };
        self.0.push_back(Done::new(tag, operation, result));
        Ok(())
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        self.0.pop_front()
    }
}

/// The sectors from the first on, as the driver names them.
fn sectors(count: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[8..12].copy_from_slice(&count.to_le_bytes());
    bytes
}

#[test]
fn discards_and_zeroes_that_a_backend_does_not_do_are_answered_as_unsupported() {
    let disk = Disk::backend(Declines(VecDeque::new()));
    let handle = disk.handle();
    let mut rig = rig_of(FLUSHES, Box::new(disk.build().unwrap()), memory_disk(512));
    for kind in [11, 13] {
        assert_eq!(rig.out(kind, 0, &sectors(2)), (0, 1));
        assert_eq!(rig.out(kind, 0, &sectors(4)), (2, 1));
    }
    assert_eq!(handle.metrics().errors, 0);
    assert_eq!(rig.read(0, 512).0, 1, "a read is no such thing");
    assert_eq!((rig.read(1, 512).0, handle.metrics().errors), (0, 1));
}

#[test]
fn what_a_backend_does_not_take_is_not_offered_and_never_comes() {
    let lacks = |discard, write_zeroes| DiskInfo { discard, write_zeroes, ..DiskInfo::new(SECTORS * SECTOR) };
    let io_thread = IoThread::new("test-io").unwrap();
    let bits = [1 << feature::DISCARD, 1 << feature::WRITE_ZEROES];
    for has in [[true, true], [true, false], [false, true], [false, false]] {
        let (mut rig, seen) = scripted_on(&io_thread, FLUSHES, Manner::Good, lacks(has[0], has[1]));
        assert_eq!(bits.map(|bit| rig.driver.offered() & bit != 0), has);
        for (kind, has) in [11, 13].into_iter().zip(has) {
            assert_eq!(rig.out(kind, 0, &sectors(1)).0, if has { 0 } else { 2 });
        }
        assert_eq!(seen.log().len(), has.into_iter().filter(|has| *has).count());
    }
    // One that comes later cannot take back what was offered.
    let (first, _) = backend(Manner::Good, DiskInfo::new(SECTORS * SECTOR));
    let disk = Disk::backend(first);
    let handle = disk.handle();
    let mut rig = rig_of(FLUSHES | bits[0] | bits[1], Box::new(disk.build().unwrap()), memory_disk(512));
    let (next, seen) = backend(Manner::Good, lacks(false, false));
    handle.replace(Disk::backend(next), Duration::from_secs(5)).unwrap();
    for kind in [11, 13] {
        assert_eq!(rig.out(kind, 0, &sectors(1)).0, 2);
    }
    assert!(seen.log().is_empty());
}

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

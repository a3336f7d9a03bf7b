//! Whatever goes wrong with a device of a VM, the error says which one it is.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use support::{Kernel, tiny};
use vmcell::block::{DiskBackend, DiskInfo, Done, Operation, Tag};
use vmcell::event::{Event, Io, Waker};
use vmcell::net::{NicBackend, NicInfo, RxBatch, TxBatch};
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::virtio::{Activation, DeviceInfo, Queues, VirtioDevice};
use vmcell::{Disk, DiskConfig, Error, ErrorKind, Nic, NicConfig, VmBuilder, VmConfig};

/// A backend that says of itself what a test wants, and serves nobody.
struct IdleDisk {
    info: DiskInfo,
    attaches: bool,
}

impl DiskBackend for IdleDisk {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn attach(&mut self, _io: &mut Io) -> vmcell::Result<()> {
        if self.attaches { Ok(()) } else { Err(Error::new(ErrorKind::Disk, "the store is away")) }
    }

    fn submit(&mut self, _io: &mut Io, _tag: Tag, operation: Operation) -> Result<(), Operation> {
        Err(operation)
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        None
    }

    fn cancel(&mut self, _io: &mut Io) {}
}

struct IdleNic;

impl NicBackend for IdleNic {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn receive(&mut self, _io: &mut Io, _frames: &mut RxBatch) {}

    fn send(&mut self, _io: &mut Io, _frames: &mut TxBatch) {}
}

/// A device that holds its thread, once it is woken, until the test lets go.
struct Holding {
    queue_size: u16,
    wakers: Sender<Waker>,
    release: Receiver<()>,
}

impl VirtioDevice for Holding {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[self.queue_size])
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        let token = io.token();
        self.wakers.send(io.waker(token)).expect("the test waits for it");
        Ok(())
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> vmcell::Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, _io: &mut Io, _queues: &mut Queues, _index: u16) -> vmcell::Result<()> {
        Ok(())
    }

    fn woken(&mut self, _io: &mut Io, _queues: &mut Queues, _event: &Event) -> vmcell::Result<()> {
        let _ = self.release.recv();
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {}
}

fn holding(queue_size: u16) -> (Box<Holding>, Receiver<Waker>, Sender<()>) {
    let ((wakers, woken), (releases, release)) = (channel(), channel());
    (Box::new(Holding { queue_size, wakers, release }), woken, releases)
}

fn image(folder: &Path, name: &str) -> Disk {
    let path = folder.join(name);
    fs::write(&path, [0; 4096]).unwrap();
    Disk::open(path).unwrap()
}

/// What building says, without the name of the folder.
fn refusal(builder: VmBuilder, folder: &Path) -> String {
    let error = builder.build().expect_err("is refused");
    error.to_string().replace(&format!("{}/", folder.display()), "")
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_disk_that_cannot_be_built_is_named() {
    let (kernel, folder) = (Kernel::new(&TinyGuest::spin()), tempfile::tempdir().unwrap());
    let first = || tiny(&kernel).disk(image(folder.path(), "root.img"));
    let says = |disk: Disk| refusal(first().disk(disk), folder.path());
    let data = || image(folder.path(), "data.img");
    assert_eq!(says(data().queues(17)), "disk 1 (data.img) has 17 queues, allowed are 1 to 16");
    assert!(says(data().serial("\t")).starts_with("disk 1 (data.img) has the serial number \"\\t\" of 1 bytes"));
    let held = tiny(&kernel).disk(data()).build().unwrap();
    let in_use = "disk 1 (data.img) is in use by another VM or process, and only one may write to it";
    assert_eq!(says(Disk::open(folder.path().join("data.img")).unwrap()), in_use);
    drop(held);
    let read_only = || File::open(folder.path().join("data.img")).unwrap();
    assert!(says(Disk::from_file(read_only()).unwrap()).starts_with("disk 1 (from a file) is not writable"));
    let mut info = DiskInfo::new(4096);
    info.block_size = 100;
    let expected = "disk 1 (on a backend): a disk backend has the block size 100";
    assert!(says(Disk::backend(IdleDisk { info, attaches: true })).starts_with(expected));
    let away = Disk::backend(IdleDisk { info: DiskInfo::new(4096), attaches: false });
    assert_eq!(says(away), "disk 1 (on a backend): the store is away");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_a_description_names_and_cannot_be_opened_is_named() {
    let (kernel, folder) = (Kernel::new(&TinyGuest::spin()), tempfile::tempdir().unwrap());
    let says = |change: &dyn Fn(&mut VmConfig)| {
        let mut config = VmConfig::new(kernel.boot());
        image(folder.path(), "root.img");
        config.disks.push(DiskConfig::new(folder.path().join("root.img")));
        change(&mut config);
        refusal(config.builder(), folder.path())
    };
    let missing = DiskConfig::new(folder.path().join("missing.img"));
    assert_eq!(says(&|config| config.disks.push(missing.clone())), "disk 1 (missing.img) cannot be opened");
    let expected = "nic 0 (vmcell-none): TAP device vmcell-none does not exist";
    assert!(says(&|config| config.nics.push(NicConfig::tap("vmcell-none"))).starts_with(expected));
    let long = NicConfig::tap("a-name-of-16-byt");
    assert!(says(&|config| config.nics.push(long.clone())).starts_with("nic 0 (a-name-of-16-byt): TAP name"));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_card_or_a_device_that_cannot_be_built_is_named() {
    let (kernel, folder) = (Kernel::new(&TinyGuest::spin()), tempfile::tempdir().unwrap());
    let nics = tiny(&kernel).nic(Nic::backend(IdleNic)).nic(Nic::backend(IdleNic).mtu(67));
    let expected = "nic 1 (on a backend): an MTU of 67 bytes was asked for, allowed are 68 to 65535";
    assert_eq!(refusal(nics, folder.path()), expected);
    let (device, _woken, _release) = holding(3);
    let said = refusal(tiny(&kernel).nic(Nic::backend(IdleNic)).device(device), folder.path());
    assert!(said.starts_with("device 0 of your own: ") && said.contains('3'), "{said}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_device_that_does_not_stand_still_is_named() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let (device, woken, release) = holding(64);
    let disk = Disk::from_file(memory_disk(4096)).unwrap();
    let own_thread = vmcell::IoThread::new("held").unwrap();
    let vm = tiny(&kernel).disk(disk).device_on(device, own_thread).build().unwrap();
    vm.start().unwrap();
    woken.recv().unwrap().wake();
    let paused = vm.pause_within(Duration::from_millis(100));
    release.send(()).unwrap();
    let error = paused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().starts_with("device 0 of your own: "), "{error}");
    vm.pause().unwrap();
}

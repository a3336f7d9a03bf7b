//! A backend in C, played by functions of the C calling convention, and a driver in front of its disk.

use std::ptr::{self, null_mut};
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::thread;

use super::super::super::disk_operation::*;
use super::super::super::disk_port::*;
use super::super::super::failure::VMCELL_OK;
use super::super::super::slot::hand_over;
use super::super::*;
use crate::bus::BusDevice;
use crate::event::IoThread;
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use crate::virtio::MmioTransport;
use crate::virtio::spec::feature::VERSION_1;
use crate::virtio::spec::mmio;

pub(super) const CAPACITY: usize = 64 * 512;
const HEADERS: u64 = 0x10000;
pub(super) const DATA: u64 = 0x20000;
const STATUS: u64 = 0x30000;
/// The driver flushes, discards, and writes zeroes.
pub(super) const FEATURES: u64 = 1 << VERSION_1 | 1 << 9 | 1 << 13 | 1 << 14;

/// What `submit` answers with this is kept, and completed by the test.
pub(super) const HOLD: i32 = 0;
/// What `submit` answers with this was completed before.
pub(super) const AT_ONCE: i32 = i32::MAX;

/// Tag, kind, flags and range of an operation, as it came.
pub(super) type Seen = (u64, i32, u32, u64, u64);

/// What the functions of the table work on.
#[derive(Default)]
pub(super) struct Store {
    pub(super) bytes: Mutex<Vec<u8>>,
    /// Operations by their address.
    pub(super) held: Mutex<Vec<usize>>,
    pub(super) seen: Mutex<Vec<Seen>>,
    pub(super) answer: AtomicI32,
    pub(super) commits: AtomicU32,
    pub(super) cancels: AtomicU32,
    pub(super) refreshes: AtomicU32,
    pub(super) destroyed: AtomicU32,
    pub(super) port: AtomicUsize,
}

fn store(user: *mut c_void) -> &'static Store {
    // SAFETY: each test leaks its store, and the table has no other user.
    unsafe { &*user.cast::<Store>() }
}

/// Moves the data of an operation.
pub(super) fn move_data(bytes: &mut [u8], operation: &DiskOperation) {
    let (mut at, end) = (operation.at as usize, (operation.at + operation.len) as usize);
    if operation.kind == VMCELL_DISK_WRITE_ZEROES {
        bytes[at..end].fill(0);
    }
    let count = operation.part_count;
    // SAFETY: the operation is in flight, so its parts are valid.
    let parts = if count == 0 { &[] } else { unsafe { slice::from_raw_parts(operation.parts, count) } };
    for part in parts {
        let own = bytes[at..at + part.iov_len].as_mut_ptr();
        let (from, to) = match operation.kind {
            VMCELL_DISK_READ => (own, part.iov_base.cast()),
            _ => (part.iov_base.cast(), own),
        };
        // SAFETY: both have room for the part, and one is ours.
        unsafe { ptr::copy(from, to, part.iov_len) };
        at += part.iov_len;
    }
    assert!(count == 0 || at == end);
}

unsafe extern "C" fn submit(user: *mut c_void, port: *mut DiskPort, operation: *const DiskOperation) -> i32 {
    let store = store(user);
    // SAFETY: an operation is valid until it is completed.
    let operation = unsafe { &*operation };
    let DiskOperation { struct_size, tag, kind, flags, at, len, .. } = *operation;
    assert_eq!((struct_size, port.addr()), (56, store.port.load(Ordering::SeqCst)));
    // Before the test can see the operation, and change the answer to the next.
    let answer = store.answer.load(Ordering::SeqCst);
    store.seen.lock().unwrap().push((tag, kind, flags, at, len));
    match answer {
        HOLD => store.held.lock().unwrap().push((&raw const *operation).expose_provenance()),
        AT_ONCE => {
            move_data(&mut store.bytes.lock().unwrap(), operation);
            assert_eq!(complete(port, tag, 0), VMCELL_OK);
            return 0;
        }
        other => return other,
    }
    0
}

unsafe extern "C" fn commit(user: *mut c_void) {
    store(user).commits.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn cancel(user: *mut c_void) {
    store(user).cancels.fetch_add(1, Ordering::SeqCst);
}

unsafe extern "C" fn refresh(user: *mut c_void) {
    let store = store(user);
    store.refreshes.fetch_add(1, Ordering::SeqCst);
    let capacity = store.bytes.lock().unwrap().len() as u64;
    // SAFETY: the place for an error is NULL.
    assert_eq!(unsafe { vmcell_disk_port_set_capacity(store.port(), capacity, null_mut()) }, VMCELL_OK);
}

unsafe extern "C" fn destroy(user: *mut c_void) {
    let store = store(user);
    for address in store.held.lock().unwrap().drain(..) {
        // What is in flight is valid until this returns.
        move_data(&mut store.bytes.lock().unwrap(), operation_at(address));
    }
    store.destroyed.fetch_add(1, Ordering::SeqCst);
}

pub(super) fn operation_at(address: usize) -> &'static DiskOperation {
    // SAFETY: the test only passes operations that are in flight.
    unsafe { &*ptr::with_exposed_provenance::<DiskOperation>(address) }
}

pub(super) fn complete(port: *mut DiskPort, tag: u64, status: i32) -> i32 {
    // SAFETY: the place for an error is NULL.
    unsafe { vmcell_disk_port_complete(port, tag, status, null_mut()) }
}

impl Store {
    pub(super) fn new(answer: i32) -> &'static Self {
        let store = Self { bytes: Mutex::new(vec![0x11; CAPACITY]), ..Self::default() };
        store.answer.store(answer, Ordering::SeqCst);
        Box::leak(Box::new(store))
    }

    pub(super) fn table(&'static self) -> DiskTable {
        DiskTable {
            struct_size: size_of::<DiskTable>(),
            user: (&raw const *self).cast_mut().cast(),
            submit: Some(submit),
            commit: Some(commit),
            cancel: Some(cancel),
            refresh: Some(refresh),
            destroy: Some(destroy),
        }
    }

    pub(super) fn disk(&'static self) -> *mut DiskObject {
        let (mut disk, mut port) = (null_mut(), null_mut());
        assert_eq!(new_disk(&self.table(), &traits(), &mut disk, &mut port), VMCELL_OK);
        self.port.store(port.addr(), Ordering::SeqCst);
        disk
    }

    pub(super) fn port(&self) -> *mut DiskPort {
        ptr::without_provenance_mut(self.port.load(Ordering::SeqCst))
    }

    pub(super) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(super) fn destroyed(&self) -> u32 {
        self.destroyed.load(Ordering::SeqCst)
    }

    /// Carries a held operation out and completes it, by a thread of its own.
    pub(super) fn finish(&'static self, position: usize) {
        let address = self.held.lock().unwrap().remove(position);
        let finished = thread::spawn(move || {
            let tag = operation_at(address).tag;
            move_data(&mut self.bytes.lock().unwrap(), operation_at(address));
            complete(self.port(), tag, 0)
        });
        assert_eq!(finished.join().unwrap(), VMCELL_OK);
    }
}

pub(super) fn traits() -> DiskTraits {
    let struct_size = size_of::<DiskTraits>();
    DiskTraits {
        struct_size,
        capacity: CAPACITY as u64,
        max_transfer: 0,
        max_range: 0,
        block_size: 0,
        max_segments: 0,
        flags: 0,
    }
}

pub(super) fn new_disk(
    table: &DiskTable,
    info: &DiskTraits,
    disk: &mut *mut DiskObject,
    port: &mut *mut DiskPort,
) -> i32 {
    // SAFETY: the structures have their size in front; the places are places; the one for an error is NULL.
    unsafe { vmcell_disk_new_backend(table, info, disk, port, null_mut()) }
}

/// A driver in front of a disk.
pub(super) struct Rig {
    pub(super) driver: MmioDriver,
    pub(super) queue: DriverQueue,
    pub(super) memory: GuestMemory,
    requests: u64,
}

pub(super) fn rig(disk: *mut DiskObject) -> Rig {
    let memory = patterned_memory(1 << 20);
    let device = hand_over(disk).unwrap().into_device().unwrap();
    let io_thread = IoThread::new("test-io").unwrap();
    let transport = MmioTransport::new(device, memory.clone(), &io_thread).unwrap();
    let driver = MmioDriver::new(transport);
    let queue = DriverQueue::new(&memory, GuestAddress(0x1000), 64);
    driver.bring_up(FEATURES, &[&queue]);
    Rig { driver, queue, memory, requests: 0 }
}

impl Rig {
    /// Sends a request, each to and from memory of its own; says its number.
    pub(super) fn send(&mut self, kind: u32, sector: u64, data: &[u8]) -> u64 {
        let number = self.requests;
        self.requests += 1;
        let (header, at) = (HEADERS + number * 16, DATA + number * 4096);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write(GuestAddress(header), &bytes).unwrap();
        self.memory.write(GuestAddress(at), data).unwrap();
        let len = data.len() as u32;
        let status = Buffer::writable(STATUS + number, 1);
        let header = Buffer::readable(header, 16);
        match kind {
            _ if len == 0 => self.queue.offer(&[header, status]),
            0 => self.queue.offer(&[header, Buffer::writable(at, 100), Buffer::writable(at + 100, len - 100), status]),
            _ => self.queue.offer(&[header, Buffer::readable(at, len), status]),
        };
        self.driver.kick(0);
        number
    }

    pub(super) fn status(&self, number: u64) -> u8 {
        self.bytes(STATUS + number, 1)[0]
    }

    pub(super) fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(GuestAddress(gpa), &mut bytes).unwrap();
        bytes
    }

    /// Sends a request and gives its status once it is answered.
    pub(super) fn run(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let number = self.send(kind, sector, data);
        self.driver.wait_used(&mut self.queue);
        self.status(number)
    }

    pub(super) fn wait_for(&self, what: &str, done: impl FnMut() -> bool) {
        self.driver.wait_until(what, done);
    }

    pub(super) fn capacity(&self) -> u64 {
        let mut sectors = [0; 8];
        BusDevice::read(self.driver.transport(), mmio::CONFIG, &mut sectors);
        u64::from_le_bytes(sectors) * 512
    }
}

pub(super) fn range(sector: u64, sectors: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &[0; 4]].concat()
}

//! The suite for disk backends, on a table whose work is done by a thread of its own: the last operation first, and flushes
//! that make a copy.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, JoinHandle};

use super::super::super::disk_operation::{VMCELL_DISK_FLUSH, VMCELL_DISK_STABLE};
use super::super::super::disk_port::vmcell_disk_port_set_capacity;
use super::super::*;
use super::store::{complete, move_data, operation_at};
use crate::testing::DiskConformance;

const CAPACITY: usize = 2 << 20;

/// What the functions and the thread of a backend share.
#[derive(Default)]
struct Host {
    work: Mutex<Work>,
    called: Condvar,
    bytes: Mutex<Bytes>,
    port: AtomicUsize,
    failing: AtomicUsize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Bytes {
    now: Vec<u8>,
    /// What survives a loss of power.
    stable: Vec<u8>,
}

#[derive(Default)]
struct Work {
    /// Operations by their address.
    waiting: Vec<usize>,
    ends: bool,
}

fn host(user: *mut c_void) -> &'static Host {
    // SAFETY: `backend` leaks it.
    unsafe { &*user.cast::<Host>() }
}

unsafe extern "C" fn submit(user: *mut c_void, _: *mut DiskPort, operation: *const DiskOperation) -> i32 {
    let host = host(user);
    let mut work = host.work.lock().unwrap();
    if work.waiting.len() >= 8 {
        return VMCELL_FULL;
    }
    work.waiting.push(operation.expose_provenance());
    0
}

unsafe extern "C" fn commit(user: *mut c_void) {
    host(user).called.notify_one();
}

unsafe extern "C" fn refresh(user: *mut c_void) {
    let host = host(user);
    let capacity = host.bytes.lock().unwrap().now.len() as u64;
    let port = ptr::without_provenance_mut(host.port.load(Ordering::SeqCst));
    // SAFETY: the place for an error is NULL.
    unsafe { vmcell_disk_port_set_capacity(port, capacity, ptr::null_mut()) };
}

unsafe extern "C" fn destroy(user: *mut c_void) {
    let host = host(user);
    host.work.lock().unwrap().ends = true;
    host.called.notify_one();
    host.thread.lock().unwrap().take().unwrap().join().unwrap();
}

impl Host {
    fn work(&self) {
        loop {
            let mut work = self.work.lock().unwrap();
            let address = loop {
                match work.waiting.pop() {
                    Some(_) if work.ends => return,
                    Some(address) => break address,
                    None if work.ends => return,
                    None => work = self.called.wait(work).unwrap(),
                }
            };
            drop(work);
            let operation = operation_at(address);
            let status = self.carry_out(operation);
            complete(ptr::without_provenance_mut(self.port.load(Ordering::SeqCst)), operation.tag, status);
        }
    }

    fn carry_out(&self, operation: &DiskOperation) -> i32 {
        if self.failing.load(Ordering::SeqCst) > 0 {
            self.failing.fetch_sub(1, Ordering::SeqCst);
            return libc::EIO;
        }
        let mut bytes = self.bytes.lock().unwrap();
        move_data(&mut bytes.now, operation);
        if operation.kind == VMCELL_DISK_FLUSH || operation.flags & VMCELL_DISK_STABLE != 0 {
            bytes.stable = bytes.now.clone();
        }
        0
    }
}

/// A backend on a host that has these bytes, with what makes them stable.
fn backend_with(bytes: Vec<u8>) -> (TableBackend, &'static Host) {
    let capacity = bytes.len() as u64;
    let host: &'static Host = Box::leak(Box::default());
    *host.bytes.lock().unwrap() = Bytes { now: bytes.clone(), stable: bytes };
    *host.thread.lock().unwrap() = Some(thread::spawn(|| host.work()));
    let table = DiskTable {
        struct_size: size_of::<DiskTable>(),
        user: (&raw const *host).cast_mut().cast(),
        submit: Some(submit),
        commit: Some(commit),
        cancel: None,
        refresh: Some(refresh),
        destroy: Some(destroy),
    };
    let user = User { user: table.user, release: table.destroy };
    let backend = TableBackend::new(table, DiskInfo::new(capacity), user).unwrap();
    host.port.store(backend.port.registered.handle().addr(), Ordering::SeqCst);
    (backend, host)
}

fn backend() -> (Box<dyn DiskBackend>, &'static Host) {
    let (backend, host) = backend_with(vec![0x5a; CAPACITY]);
    (Box::new(backend), host)
}

#[test]
fn a_backend_with_a_thread_of_its_own_keeps_to_all_rules_for_disks() {
    let failing = || {
        let (backend, host) = backend();
        (backend, Box::new(|| host.failing.store(1, Ordering::SeqCst)) as Box<dyn FnMut()>)
    };
    let growing = || {
        let (backend, host) = backend();
        let grow = || {
            host.bytes.lock().unwrap().now.resize(2 * CAPACITY, 0);
            2 * CAPACITY as u64
        };
        (backend, Box::new(grow) as Box<dyn FnOnce() -> u64>)
    };
    let losing = || {
        let (backend, host) = backend();
        let lose = || {
            let stable = host.bytes.lock().unwrap().stable.clone();
            Box::new(backend_with(stable).0) as Box<dyn DiskBackend>
        };
        (backend, Box::new(lose) as Box<dyn FnOnce() -> Box<dyn DiskBackend>>)
    };
    DiskConformance::new(|| backend().0).failing(failing).growing(growing).losing_power(losing).run();
}

//! Network backends in C, played by functions of the C calling convention, under devices with drivers in front.

use std::ptr::{self, null, null_mut};
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::thread;

use super::super::failure::*;
use super::super::nic::{vmcell_nic_free, vmcell_nic_set_never_blocks};
use super::super::nic_frame::*;
use super::super::nic_handle::*;
use super::super::nic_port::*;
use super::super::slot::hand_over;
use super::*;
use crate::bus::BusDevice;
use crate::event::IoThread;
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, DriverQueue, MmioDriver, NicConformance, patterned_memory};
use crate::virtio::MmioTransport;
use crate::virtio::spec::feature::VERSION_1;
use crate::virtio::spec::{mmio, status};

const TX: u64 = 0x20000;
const RX: u64 = 0x40000;
const RX_LEN: u64 = 2048;
/// The driver spreads frames over several buffers, knows the link's state, and asks on a queue of its own.
const BASE: u64 = 1 << VERSION_1 | 1 << 15 | 1 << 16 | 1 << 17;

/// What the functions of the table work on.
#[derive(Default)]
struct Host {
    /// Header and frame of each that `send` took.
    sent: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
    calls: AtomicU32,
    answer: AtomicI32,
    /// Where what is sent is delivered, if anywhere.
    peer: AtomicUsize,
    port: AtomicUsize,
    negotiated: AtomicU32,
    refuses: AtomicI32,
    destroyed: AtomicU32,
}

fn host(user: *mut c_void) -> &'static Host {
    // SAFETY: each test leaks its hosts.
    unsafe { &*user.cast::<Host>() }
}

unsafe extern "C" fn send(user: *mut c_void, port: *mut NicPort, frame: *const NicFrame) -> i32 {
    let host = host(user);
    host.calls.fetch_add(1, Ordering::SeqCst);
    assert_eq!(port.addr(), host.port.load(Ordering::SeqCst));
    match host.answer.load(Ordering::SeqCst) {
        0 => {}
        other => return other,
    }
    // SAFETY: a frame and all that it leads to are valid until this returns.
    let (header, parts, len) = unsafe {
        let frame = &*frame;
        assert_eq!(frame.struct_size, 40);
        let header = slice::from_raw_parts(frame.header, VMCELL_NIC_HEADER_BYTES).to_vec();
        (header, slice::from_raw_parts(frame.parts, frame.part_count), frame.len)
    };
    let mut bytes = Vec::new();
    for part in parts {
        // SAFETY: as above, and the guest of a test does not change it.
        bytes.extend_from_slice(unsafe { slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) });
    }
    assert_eq!(bytes.len(), len);
    let peer = host.peer.load(Ordering::SeqCst);
    if peer != 0 {
        let delivered = deliver(ptr::without_provenance_mut(peer), Some(&header), &bytes);
        assert!(delivered == VMCELL_OK || delivered == VMCELL_ERROR_BAD_HANDLE);
    }
    host.sent.lock().unwrap().push((header, bytes));
    0
}

unsafe extern "C" fn negotiate(user: *mut c_void, offloads: u32) -> i32 {
    host(user).negotiated.store(offloads, Ordering::SeqCst);
    host(user).refuses.load(Ordering::SeqCst)
}

unsafe extern "C" fn destroy(user: *mut c_void) {
    host(user).destroyed.fetch_add(1, Ordering::SeqCst);
}

fn deliver(port: *mut NicPort, header: Option<&[u8]>, frame: &[u8]) -> i32 {
    let header = header.map_or(null(), <[u8]>::as_ptr);
    // SAFETY: the pointers are NULL or lead to as many bytes as are told.
    unsafe { vmcell_nic_port_deliver(port, header, frame.as_ptr(), frame.len(), null_mut()) }
}

fn dropped(host: &Host) -> (u64, u64) {
    let (mut to_guest, mut from_guest) = (7, 7);
    // SAFETY: the places are places or NULL.
    let result = unsafe { vmcell_nic_port_dropped(host.port(), &raw mut to_guest, &raw mut from_guest, null_mut()) };
    assert_eq!(result, VMCELL_OK);
    (to_guest, from_guest)
}

fn new_nic(table: &NicTable, info: *const NicTraits, nic: &mut *mut NicObject, port: &mut *mut NicPort) -> i32 {
    // SAFETY: the structures have their size in front or are NULL; the places are places; the one for an error is NULL.
    unsafe { vmcell_nic_new_backend(table, info, nic, port, null_mut()) }
}

impl Host {
    fn new() -> &'static Self {
        Box::leak(Box::default())
    }

    fn table(&'static self) -> NicTable {
        NicTable {
            struct_size: size_of::<NicTable>(),
            user: (&raw const *self).cast_mut().cast(),
            send: Some(send),
            negotiate: Some(negotiate),
            destroy: Some(destroy),
        }
    }

    fn nic(&'static self, info: *const NicTraits) -> *mut NicObject {
        let (mut nic, mut port) = (null_mut(), null_mut());
        assert_eq!(new_nic(&self.table(), info, &mut nic, &mut port), VMCELL_OK);
        self.port.store(port.addr(), Ordering::SeqCst);
        nic
    }

    fn port(&self) -> *mut NicPort {
        ptr::without_provenance_mut(self.port.load(Ordering::SeqCst))
    }

    fn set_link(&self, up: i32) {
        // SAFETY: the place for an error is NULL.
        assert_eq!(unsafe { vmcell_nic_port_set_link(self.port(), up, null_mut()) }, VMCELL_OK);
    }

    fn retry(&self) {
        // SAFETY: the place for an error is NULL.
        assert_eq!(unsafe { vmcell_nic_port_retry(self.port(), null_mut()) }, VMCELL_OK);
    }

    fn destroyed(&self) -> u32 {
        self.destroyed.load(Ordering::SeqCst)
    }
}

fn traits(offloads: u32, link_down: i32) -> NicTraits {
    NicTraits { struct_size: size_of::<NicTraits>(), offloads, link_down }
}

/// A driver in front of an interface.
struct Rig {
    driver: MmioDriver,
    rx: DriverQueue,
    tx: DriverQueue,
    control: DriverQueue,
    memory: GuestMemory,
}

fn rig(nic: *mut NicObject, features: u64) -> Rig {
    let memory = patterned_memory(4 << 20);
    let device = hand_over(nic).unwrap().mac([2, 0, 0, 0, 0, 1]).into_device().unwrap();
    let transport = MmioTransport::new(device, memory.clone(), &IoThread::new("test-io").unwrap()).unwrap();
    let rx = DriverQueue::new(&memory, GuestAddress(0x1000), 64);
    let tx = DriverQueue::new(&memory, GuestAddress(0x4000), 64);
    let control = DriverQueue::new(&memory, GuestAddress(0x8000), 64);
    let rig = Rig { driver: MmioDriver::new(transport), rx, tx, control, memory };
    rig.driver.bring_up(features, &[&rig.rx, &rig.tx, &rig.control]);
    rig
}

impl Rig {
    fn send(&mut self, header: [u8; 12], frame: &[u8]) {
        self.memory.write(GuestAddress(TX), &header).unwrap();
        self.memory.write(GuestAddress(TX + 12), frame).unwrap();
        let len = frame.len() as u32;
        // In two parts.
        let parts = [Buffer::readable(TX, 12), Buffer::readable(TX + 12, 20), Buffer::readable(TX + 32, len - 20)];
        self.tx.offer(&parts);
        self.driver.kick(1);
    }

    fn sent(&mut self) {
        self.driver.wait_used(&mut self.tx);
    }

    fn offer_buffers(&mut self, count: u64) {
        for position in 0..count {
            self.rx.offer(&[Buffer::writable(RX + position * RX_LEN, RX_LEN as u32)]);
        }
        self.driver.kick(0);
    }

    /// The frame in the next buffer.
    fn received(&mut self) -> Vec<u8> {
        let (head, len) = self.driver.wait_used(&mut self.rx);
        let mut bytes = vec![0; len as usize];
        self.memory.read(GuestAddress(RX + u64::from(head) * RX_LEN), &mut bytes).unwrap();
        bytes.split_off(12)
    }

    fn link_is_up(&self) -> bool {
        let mut status = [0; 2];
        BusDevice::read(self.driver.transport(), mmio::CONFIG + 6, &mut status);
        status[0] & 1 == 1
    }
}

fn frame(byte: u8) -> Vec<u8> {
    vec![byte; 60]
}

#[test]
fn a_frame_reaches_send_with_its_header_and_all_of_its_parts() {
    let host = Host::new();
    let mut rig = rig(host.nic(null()), BASE);
    let bytes: Vec<u8> = (0..200).collect();
    rig.send([0; 12], &bytes);
    rig.sent();
    assert_eq!(*host.sent.lock().unwrap(), [(vec![0; 12], bytes)]);
    assert_eq!(dropped(host), (0, 0));
}

#[test]
fn two_interfaces_whose_backends_deliver_to_each_other_are_a_pair() {
    let (one, other) = (Host::new(), Host::new());
    let (nic, peer) = (one.nic(null()), other.nic(null()));
    one.peer.store(other.port().addr(), Ordering::SeqCst);
    other.peer.store(one.port().addr(), Ordering::SeqCst);
    let (mut left, mut right) = (rig(nic, BASE), rig(peer, BASE));
    for byte in 0..20 {
        right.offer_buffers(1);
        left.send([0; 12], &frame(byte));
        left.sent();
        left.offer_buffers(1);
        right.send([0; 12], &frame(byte + 100));
        right.sent();
        let first = |rig: &mut Rig| {
            let (_, len) = rig.driver.wait_used(&mut rig.rx);
            let mut bytes = vec![0; len as usize];
            rig.memory.read(GuestAddress(RX), &mut bytes).unwrap();
            bytes.split_off(12)
        };
        assert_eq!((first(&mut right), first(&mut left)), (frame(byte), frame(byte + 100)));
    }
    // One that sends to a neighbour that is gone notices, and goes on.
    one.peer.store(0, Ordering::SeqCst);
    drop(right);
    assert_eq!(deliver(other.port(), None, &frame(1)), VMCELL_ERROR_BAD_HANDLE);
    left.send([0; 12], &frame(1));
    left.sent();
}

#[test]
fn a_pair_keeps_to_all_rules_for_interfaces() {
    let make = || {
        let (one, other) = (Host::new(), Host::new());
        let nics = (one.nic(null()), other.nic(null()));
        one.peer.store(other.port().addr(), Ordering::SeqCst);
        other.peer.store(one.port().addr(), Ordering::SeqCst);
        (hand_over(nics.0).unwrap(), hand_over(nics.1).unwrap())
    };
    NicConformance::of_pairs(make).run();
}

#[test]
fn frames_that_any_thread_delivers_reach_the_guest_in_the_order_of_each_thread() {
    let host = Host::new();
    let mut rig = rig(host.nic(null()), BASE);
    rig.offer_buffers(48);
    thread::scope(|scope| {
        for thread in 0..4u8 {
            scope.spawn(move || {
                (0..12u8).for_each(|number| assert_eq!(deliver(host.port(), None, &[thread, number].repeat(40)), 0));
            });
        }
    });
    let mut next = [0; 4];
    for _ in 0..48 {
        let bytes = rig.received();
        assert_eq!((bytes.len(), bytes[1]), (80, next[bytes[0] as usize]));
        next[bytes[0] as usize] += 1;
    }
    assert_eq!((next, dropped(host)), ([12; 4], (0, 0)));
}

#[test]
fn frames_wait_for_the_guest_up_to_a_bound_and_the_rest_is_dropped_and_counted() {
    let host = Host::new();
    let mut rig = rig(host.nic(null()), BASE);
    // Without a buffer, nothing is moved.
    (0..1100u32).for_each(|number| assert_eq!(deliver(host.port(), None, &number.to_le_bytes().repeat(15)), 0));
    assert_eq!(dropped(host), (76, 0));
    rig.offer_buffers(2);
    assert_eq!((rig.received()[..4].to_vec(), rig.received()[..4].to_vec()), (vec![0; 4], vec![1, 0, 0, 0]));
    assert_eq!(dropped(host), (76, 0));
    let host = Host::new();
    let nic = host.nic(null());
    (0..17).for_each(|_| assert_eq!(deliver(host.port(), None, &[0; 65553]), 0));
    assert_eq!(dropped(host), (2, 0), "15 of these fill a MiB");
    assert_eq!((vmcell_nic_free(nic), host.destroyed()), (VMCELL_OK, 1));
}

#[test]
fn a_frame_refused_as_full_waits_and_one_refused_otherwise_is_dropped() {
    let host = Host::new();
    let mut rig = rig(host.nic(null()), BASE);
    host.answer.store(VMCELL_FULL, Ordering::SeqCst);
    rig.send([0; 12], &frame(1));
    rig.driver.wait_until("the call", || host.calls.load(Ordering::SeqCst) >= 1);
    assert!(rig.tx.take_used().is_none());
    host.answer.store(0, Ordering::SeqCst);
    host.retry();
    rig.sent();
    assert_eq!(host.sent.lock().unwrap()[0].1, frame(1));
    for answer in [libc::ENOBUFS, -1, i32::MIN] {
        host.answer.store(answer, Ordering::SeqCst);
        rig.send([0; 12], &frame(2));
        rig.sent();
    }
    assert_eq!((dropped(host), host.sent.lock().unwrap().len()), ((0, 3), 1));
}

#[test]
fn the_link_of_the_port_and_of_the_handle_both_have_to_be_up() {
    let host = Host::new();
    let down = traits(0, 1);
    let nic = host.nic(&raw const down);
    let mut handle = null_mut();
    // SAFETY: the places are places or NULL.
    assert_eq!(unsafe { vmcell_nic_handle_new(nic, &raw mut handle, null_mut()) }, VMCELL_OK);
    // SAFETY: as above.
    let plug = |up| assert_eq!(unsafe { vmcell_nic_handle_set_link(handle, up, null_mut()) }, VMCELL_OK);
    let mut rig = rig(nic, BASE);
    assert!(!rig.link_is_up());
    rig.offer_buffers(4);
    assert_eq!(deliver(host.port(), None, &frame(1)), VMCELL_OK);
    rig.send([0; 12], &frame(9));
    rig.sent();
    assert!(host.sent.lock().unwrap().is_empty() && rig.rx.take_used().is_none(), "it passed a link that is down");
    host.set_link(1);
    rig.driver.wait_until("the link to go up", || rig.link_is_up());
    assert_eq!(rig.received(), frame(1), "what waited for the link");
    plug(0);
    rig.driver.wait_until("the link to be cut", || !rig.link_is_up());
    host.set_link(0);
    plug(1);
    // SAFETY: as above.
    assert_eq!(unsafe { vmcell_nic_handle_announce(handle, null_mut()) }, VMCELL_OK);
    thread::sleep(std::time::Duration::from_millis(5));
    assert!(!rig.link_is_up());
    host.set_link(1);
    rig.driver.wait_until("the link to go up again", || rig.link_is_up());
    assert_eq!(vmcell_nic_handle_free(handle), VMCELL_OK);
}

#[test]
fn offloads_are_offered_negotiated_and_kept_to() {
    let host = Host::new();
    let all = VMCELL_OFFLOAD_CHECKSUM | VMCELL_OFFLOAD_TSO4 | VMCELL_OFFLOAD_TSO6 | VMCELL_OFFLOAD_ECN;
    let info = traits(all, 0);
    // The driver leaves checksums and copes with those that are missing.
    let mut rig = rig(host.nic(&raw const info), BASE | 1 << 0 | 1 << 1);
    rig.driver.wait_until("the negotiation", || host.negotiated.load(Ordering::SeqCst) == VMCELL_OFFLOAD_CHECKSUM);
    let checksum = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    rig.send(checksum, &frame(1));
    rig.sent();
    assert_eq!(host.sent.lock().unwrap()[0].0, checksum);
    rig.offer_buffers(2);
    let segments = [1, 1, 54, 0, 10, 0, 34, 0, 6, 0, 0, 0];
    assert_eq!(deliver(host.port(), Some(&segments), &frame(2)), VMCELL_OK);
    assert_eq!(deliver(host.port(), Some(&checksum), &frame(3)), VMCELL_OK);
    assert_eq!(rig.received(), frame(3));
    assert_eq!(dropped(host), (1, 0), "the guest does not cope with segments");
}

#[test]
fn a_backend_that_refuses_the_offloads_leaves_a_device_that_needs_a_reset() {
    let host = Host::new();
    host.refuses.store(libc::ENOTSUP, Ordering::SeqCst);
    let rig = rig(host.nic(null()), BASE);
    let failed = || rig.driver.status() & status::DEVICE_NEEDS_RESET != 0;
    rig.driver.wait_until("the device to need a reset", failed);
    host.refuses.store(0, Ordering::SeqCst);
    rig.driver.bring_up(BASE, &[&rig.rx, &rig.tx, &rig.control]);
    assert_eq!(rig.driver.status() & status::DEVICE_NEEDS_RESET, 0);
}

#[test]
fn frames_that_no_guest_could_take_are_refused_at_once() {
    let host = Host::new();
    let nic = host.nic(null());
    let outside = [1, 0, 0, 0, 0, 0, 59, 0, 0, 0, 0, 0];
    assert_eq!(deliver(host.port(), None, &[0; 13]), VMCELL_ERROR_BAD_VALUE);
    assert_eq!(deliver(host.port(), None, &[0; 65554]), VMCELL_ERROR_BAD_VALUE);
    assert_eq!(deliver(host.port(), Some(&outside), &frame(1)), VMCELL_ERROR_BAD_VALUE);
    // SAFETY: each pointer is NULL.
    let no_frame = |len| unsafe { vmcell_nic_port_deliver(host.port(), null(), null(), len, null_mut()) };
    assert_eq!((no_frame(0), no_frame(60)), (VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_NULL_ARGUMENT));
    assert_eq!(no_frame(usize::MAX), VMCELL_ERROR_BAD_VALUE);
    assert_eq!((dropped(host), vmcell_nic_free(nic)), ((0, 0), VMCELL_OK));
    // SAFETY: as above.
    let gone = unsafe { vmcell_nic_port_dropped(host.port(), null_mut(), null_mut(), null_mut()) };
    assert_eq!((gone, deliver(host.port(), None, &frame(1))), (VMCELL_ERROR_BAD_HANDLE, VMCELL_ERROR_BAD_HANDLE));
}

#[test]
fn tables_are_read_as_documented_and_a_call_that_fails_destroys_what_it_was_given() {
    let host = Host::new();
    let (mut nic, mut port) = (null_mut(), null_mut());
    let mut table = host.table();
    for size in [0, 16, 23, 41] {
        table.struct_size = size;
        assert_eq!(new_nic(&table, null(), &mut nic, &mut port), VMCELL_ERROR_BAD_VALUE, "{size}");
    }
    assert_eq!(host.destroyed(), 0, "a table that is refused takes nothing");
    let mut table = host.table();
    table.send = None;
    assert_eq!(new_nic(&table, null(), &mut nic, &mut port), VMCELL_ERROR_NULL_ARGUMENT);
    let (unknown, mut short) = (traits(16, 0), traits(0, 0));
    short.struct_size = 8;
    assert_eq!(new_nic(&host.table(), &raw const unknown, &mut nic, &mut port), VMCELL_ERROR_BAD_VALUE);
    assert_eq!(new_nic(&host.table(), &raw const short, &mut nic, &mut port), VMCELL_ERROR_BAD_VALUE);
    assert!(host.destroyed() == 3 && nic.is_null() && port.is_null());
    let mut table = host.table();
    table.struct_size = offset_of!(NicTable, negotiate);
    assert_eq!(new_nic(&table, null(), &mut nic, &mut port), VMCELL_OK);
    assert_eq!((vmcell_nic_free(nic), host.destroyed()), (VMCELL_OK, 3), "it ends before `destroy`");
}

#[test]
fn a_backend_that_never_blocks_may_share_a_thread() {
    let host = Host::new();
    let nic = host.nic(null());
    // SAFETY: the place for an error is NULL.
    assert_eq!(unsafe { vmcell_nic_set_never_blocks(nic, null_mut()) }, VMCELL_OK);
    assert!(matches!(hand_over(nic).unwrap().placement(), crate::event::Placement::Shared));
    assert!(matches!(hand_over(host.nic(null())).unwrap().placement(), crate::event::Placement::Alone));
    assert_eq!(host.destroyed(), 2);
}

//! The library's end of a network backend in C: where its threads deliver frames.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::convert::{Out, read_bytes, read_text};
use super::counter::{CounterObject, Counters};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use super::guard::guard;
use super::nic_frame::VMCELL_NIC_HEADER_BYTES;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::wake::Wake;
use crate::net::{Offloads, VnetHeader};

/// Frames that wait for the guest at the most.
const MOST_FRAMES: usize = 1024;
/// Their bytes at the most.
const MOST_BYTES: usize = 1 << 20;
/// Buffers that are kept to be used again.
const SPARE: usize = 16;

/// The library's end of a network backend: by it, any thread delivers frames to the guest. Made by vmcell_nic_new_backend, it
/// belongs to the library and is never freed by the caller: it is gone when the backend's `destroy` has returned, and then
/// each call with it fails with BAD_HANDLE and does no harm.
pub struct NicPort(Arc<Wire>);

impl Object for NicPort {
    const NAME: &'static str = "vmcell_nic_port";
}

impl NicPort {
    pub(super) fn new(wire: &Arc<Wire>) -> Self {
        Self(Arc::clone(wire))
    }
}

/// What the thread that owns the interface and the threads of its backend have in common. Nobody holds the lock for longer
/// than it takes to copy a frame.
pub(super) struct Wire {
    queue: Mutex<Queue>,
    pub(super) wake: Wake,
    pub(super) counters: Counters,
    link_up: AtomicBool,
    link_changed: AtomicBool,
    lost_to_guest: AtomicU64,
    lost_from_guest: AtomicU64,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

/// A frame for the guest.
pub(super) struct Frame {
    pub(super) header: VnetHeader,
    pub(super) bytes: Vec<u8>,
}

impl Wire {
    pub(super) fn new(link_up: bool) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            wake: Wake::default(),
            counters: Counters::new(),
            link_up: AtomicBool::new(link_up),
            link_changed: AtomicBool::new(false),
            lost_to_guest: AtomicU64::new(0),
            lost_from_guest: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a frame to the end of the queue; one that has no room is lost.
    fn deliver(&self, header: VnetHeader, bytes: &[u8]) {
        let mut queue = self.lock();
        if queue.frames.len() >= MOST_FRAMES || queue.bytes.saturating_add(bytes.len()) > MOST_BYTES {
            drop(queue);
            return self.count_lost_to_guest();
        }
        let mut copy = queue.spare.pop().unwrap_or_default();
        copy.extend_from_slice(bytes);
        queue.bytes = queue.bytes.saturating_add(bytes.len());
        queue.frames.push_back(Frame { header, bytes: copy });
        drop(queue);
        self.wake.wake();
    }

    /// Takes the first frame out.
    pub(super) fn take(&self) -> Option<Frame> {
        let mut queue = self.lock();
        let frame = queue.frames.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(frame.bytes.len());
        Some(frame)
    }

    /// Makes a frame the first one again.
    pub(super) fn put_back(&self, frame: Frame) {
        let mut queue = self.lock();
        queue.bytes = queue.bytes.saturating_add(frame.bytes.len());
        queue.frames.push_front(frame);
    }

    /// Keeps the buffer of a frame that was taken.
    pub(super) fn recycle(&self, frame: Frame) {
        let mut bytes = frame.bytes;
        bytes.clear();
        let mut queue = self.lock();
        if queue.spare.len() < SPARE {
            queue.spare.push(bytes);
        }
    }

    pub(super) fn count_lost_to_guest(&self) {
        self.lost_to_guest.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_lost_from_guest(&self) {
        self.lost_from_guest.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn link_is_up(&self) -> bool {
        self.link_up.load(Ordering::SeqCst)
    }

    /// Whether the link was set since the last call of this.
    pub(super) fn take_link_changed(&self) -> bool {
        self.link_changed.swap(false, Ordering::SeqCst)
    }

    fn set_link(&self, up: bool) {
        self.link_up.store(up, Ordering::SeqCst);
        self.link_changed.store(true, Ordering::SeqCst);
        self.wake.wake();
    }
}

/// # Safety
/// `header` is NULL, which stands for nothing left undone, or points to VMCELL_NIC_HEADER_BYTES bytes that stay as they are
/// until the call returns.
unsafe fn read_header(header: *const u8, len: usize) -> FfiResult<VnetHeader> {
    let mut bytes = [0; VMCELL_NIC_HEADER_BYTES];
    if !header.is_null() {
        // SAFETY: the caller promises that many bytes.
        bytes.copy_from_slice(unsafe { read_bytes(header, VMCELL_NIC_HEADER_BYTES, "header") }?);
    }
    let header = u32::try_from(len).ok().and_then(|len| VnetHeader::parse(bytes, len, Offloads::ALL));
    header.ok_or_else(|| {
        let message = format!(
            "a frame of {len} bytes was to be delivered, allowed are 14 to 65553 with a header that stays inside the frame"
        );
        Failure::new(VMCELL_ERROR_BAD_VALUE, message)
    })
}

/// Delivers a frame to the guest: `len` bytes, 14 to 65553, beginning with the Ethernet address that it is for, and its
/// header of VMCELL_NIC_HEADER_BYTES bytes, or NULL if nothing is left undone. Both are copied to a queue of at most 1024 frames
/// and 1 MiB, from which the interface's I/O thread moves them to the guest, as far as the guest has buffers and the link is
/// up. A frame that has no room there is dropped and counted, as is one that is too long for the guest's buffers or leaves
/// undone what the guest does not cope with: see vmcell_nic_port_dropped. Never blocks.
///
/// Errors: BAD_VALUE for a length out of range, or a header that contradicts itself or leads outside the frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_port_deliver(
    port: *mut NicPort,
    header: *const u8,
    frame: *const u8,
    len: usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let port = objects::get(port)?;
        // SAFETY: the header demands NULL or that many bytes.
        let header = unsafe { read_header(header, len) }?;
        // SAFETY: the header demands NULL or that many bytes.
        let frame = unsafe { read_bytes(frame, len, "frame") }?;
        port.0.deliver(header, frame);
        Ok(())
    })
}

/// Says that there is room again: the frame that `send` refused with VMCELL_FULL is offered again, on the interface's I/O
/// thread. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_port_retry(port: *mut NicPort, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(port)?.0.wake.wake();
        Ok(())
    })
}

/// Says that the backend's link is up, or down if `up` is 0. The guest is told soon. The guest's link is up if both this and
/// vmcell_nic_handle_set_link say so; while it is down, what the guest sends is dropped, and frames for it wait. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_port_set_link(port: *mut NicPort, up: i32, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(port)?.0.set_link(up != 0);
        Ok(())
    })
}

/// Writes how many frames were dropped so far: those delivered that the guest did not get, to `to_guest`, and those of the
/// guest that `send` did not take, to `from_guest`. Either may be NULL. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_port_dropped(
    port: *mut NicPort,
    to_guest: *mut u64,
    from_guest: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let wire = &objects::get(port)?.0;
        // SAFETY: the header demands NULL or a place for the result.
        if let Ok(place) = unsafe { Out::new(to_guest, "to_guest") } {
            place.write(wire.lost_to_guest.load(Ordering::Relaxed));
        }
        // SAFETY: the header demands NULL or a place for the result.
        if let Ok(place) = unsafe { Out::new(from_guest, "from_guest") } {
            place.write(wire.lost_from_guest.load(Ordering::Relaxed));
        }
        Ok(())
    })
}

/// Says that the backend can never go on, and why: the storage is lost, for instance. The interface fails then: no function of the table is
/// called again but `destroy`, on a thread that is made for it; the guest's driver is told that the device needs a reset; and
/// vmcell_vm_device_failures_json tells `why`. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_port_give_up(
    port: *mut NicPort,
    why: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let why = unsafe { read_text(why, "why") }?;
        objects::get(port)?.0.wake.give_up(why);
        Ok(())
    })
}

/// Adds a counter to what the metrics tell of this interface, under a name such as "cache_hits": vmcell_vm_metrics_json has it in the
/// device's "counters". Several of one name count as one, their sum. `counter` is borrowed, and counts for as long as it lives. Never
/// blocks.
///
/// Errors: INVALID_STATE if the VM was made before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_port_add_counter(
    port: *mut NicPort,
    name: *const c_char,
    counter: *const CounterObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let port = objects::get(port)?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        unsafe { port.0.counters.add(name, counter) }
    })
}

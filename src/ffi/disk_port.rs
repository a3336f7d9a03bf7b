//! The library's end of a disk backend in C: where its threads say what is done.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::convert::read_text;
use super::counter::{CounterObject, Counters};
use super::disk_operation::{Described, Finished, InFlight};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use super::guard::guard;
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use super::wake::Wake;
use crate::block::{DiskInfo, Done, Operation, Slab, Tag};

/// The most operations of one disk that are in flight at once.
pub const VMCELL_DISK_MAX_OPERATIONS: usize = 256;
/// The largest number that Linux knows as an errno.
const LARGEST_ERRNO: i32 = 4095;

/// The library's end of a disk backend: by it, any thread says that an operation is done. Made by
/// vmcell_disk_new_backend, it belongs to the library and is never freed by the caller: it is gone when the backend's
/// `destroy` has returned, and then each call with it fails with BAD_HANDLE and does no harm.
pub struct DiskPort(Arc<Flights>);

impl Object for DiskPort {
    const NAME: &'static str = "vmcell_disk_port";
}

impl DiskPort {
    pub(super) fn new(flights: &Arc<Flights>) -> Self {
        Self(Arc::clone(flights))
    }
}

/// What the thread that owns the disk and the threads of its backend have in common. Nobody holds the lock for longer than
/// it takes to move an operation from one list to another.
pub(super) struct Flights {
    state: Mutex<State>,
    pub(super) wake: Wake,
    pub(super) counters: Counters,
    block_size: u64,
    capacity: AtomicU64,
    capacity_changed: AtomicBool,
    /// Set apart from those of other disks, so that a tag that went astray finds nothing.
    salt: u64,
}

struct State {
    /// `None` while it is being described.
    in_flight: Slab<Option<InFlight>>,
    finished: VecDeque<Finished>,
}

impl Flights {
    pub(super) fn new(info: &DiskInfo) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // The factor is odd, so no two of these are the same.
        let salt = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Arc::new(Self {
            state: Mutex::new(State { in_flight: Slab::new(VMCELL_DISK_MAX_OPERATIONS), finished: VecDeque::new() }),
            wake: Wake::default(),
            counters: Counters::new(),
            block_size: info.block_size.into(),
            capacity: AtomicU64::new(info.capacity),
            capacity_changed: AtomicBool::new(false),
            salt,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an operation, and describes it for C.
    ///
    /// # Errors
    /// The operation, if there is no room.
    pub(super) fn begin(
        &self,
        tag: Tag,
        mut operation: Operation,
        mut described: Arc<Described>,
    ) -> Result<Arc<Described>, Operation> {
        let mut state = self.lock();
        let Ok(own) = state.in_flight.insert(None) else { return Err(operation) };
        // Nobody else has the description, so nothing is cloned.
        Arc::make_mut(&mut described).describe(own.to_bits() ^ self.salt, &mut operation);
        if let Some(place) = state.in_flight.get_mut(own) {
            *place = Some(InFlight { tag, operation, described: Arc::clone(&described) });
        }
        Ok(described)
    }

    /// Takes an operation back that C had no room for; `None` if C has completed it meanwhile.
    pub(super) fn take_back(&self, tag: u64) -> Option<Operation> {
        let in_flight = self.lock().in_flight.remove(self.own_tag(tag))??;
        Some(in_flight.operation)
    }

    /// Moves an operation to those that are done; says whether it was in flight.
    pub(super) fn complete(&self, tag: u64, status: i32) -> bool {
        let mut state = self.lock();
        let Some(InFlight { tag, operation, described }) = state.in_flight.remove(self.own_tag(tag)).flatten() else {
            return false;
        };
        state.finished.push_back(Finished { done: Done::new(tag, operation, result_of(status)), described });
        drop(state);
        self.wake.wake();
        true
    }

    /// Exchanges the list of those that are done with an empty one.
    pub(super) fn swap_finished(&self, finished: &mut VecDeque<Finished>) {
        std::mem::swap(&mut self.lock().finished, finished);
    }

    /// The backend is gone: nobody touches a buffer any more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        let past = (std::mem::take(&mut state.finished), std::mem::replace(&mut state.in_flight, Slab::new(0)));
        drop(state);
        drop(past);
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::SeqCst)
    }

    /// Whether the capacity was changed since the last call of this.
    pub(super) fn take_capacity_changed(&self) -> bool {
        self.capacity_changed.swap(false, Ordering::SeqCst)
    }

    fn set_capacity(&self, capacity: u64) -> FfiResult<()> {
        let block = self.block_size;
        if capacity == 0 || !capacity.is_multiple_of(block) {
            let message = format!("capacity is {capacity}, allowed is a multiple of {block} above 0");
            return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
        }
        self.capacity.store(capacity, Ordering::SeqCst);
        self.capacity_changed.store(true, Ordering::SeqCst);
        self.wake.wake();
        Ok(())
    }

    fn own_tag(&self, tag: u64) -> Tag {
        Tag::from_bits(tag ^ self.salt)
    }
}

/// What a number stands for that C gives as the end of an operation.
fn result_of(status: i32) -> io::Result<()> {
    match status {
        0 => Ok(()),
        1..=LARGEST_ERRNO => Err(io::Error::from_raw_os_error(status)),
        _ => Err(io::Error::from_raw_os_error(libc::EIO)),
    }
}

/// Says that an operation is done: `status` is 0, or an errno (1 to 4095; any other number counts as EIO). The guest is only
/// told whether it failed. Once per operation, in any order, from any thread, even before `submit` has returned. From then on
/// neither the operation nor its parts may be touched. Never blocks.
///
/// Errors: BAD_VALUE if no operation with this tag is in flight: it was completed before, or was refused by `submit`. Nothing
/// happens then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_port_complete(
    port: *mut DiskPort,
    tag: u64,
    status: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        if objects::get(port)?.0.complete(tag, status) {
            return Ok(());
        }
        let message = format!("tag is {tag:#x}, which no operation in flight on this disk has");
        Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message))
    })
}

/// Says that there is room again: an operation that `submit` refused with VMCELL_FULL is offered again, on the disk's I/O
/// thread. A completion says the same, so only a backend that was full with nothing in flight needs this call. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_port_retry(port: *mut DiskPort, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        objects::get(port)?.0.wake.wake();
        Ok(())
    })
}

/// Says that the disk has another size now, in bytes: a multiple of its block size, above 0. The guest's driver is told soon.
/// If it is smaller, operations behind the new end may still come for a moment: they are to be failed. Never blocks.
///
/// Errors: BAD_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_port_set_capacity(
    port: *mut DiskPort,
    capacity: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || objects::get(port)?.0.set_capacity(capacity))
}

/// Says that the backend can never go on, and why: the storage is lost, for instance. The disk fails then: no function of the table is
/// called again but `destroy`, on a thread that is made for it; the guest's driver is told that the device needs a reset; and
/// vmcell_vm_device_failures_json tells `why`. vmcell_disk_handle_replace can put another backend in its
/// place; a backend that can still serve some operations fails the others instead. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_port_give_up(
    port: *mut DiskPort,
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

/// Adds a counter to what the metrics tell of this disk, under a name such as "cache_hits": vmcell_vm_metrics_json has it in the
/// device's "counters". Several of one name count as one, their sum. `counter` is borrowed, and counts for as long as it lives. Never
/// blocks.
///
/// Errors: INVALID_STATE if the VM was made before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_port_add_counter(
    port: *mut DiskPort,
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

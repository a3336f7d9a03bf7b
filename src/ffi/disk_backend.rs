//! Disks on a backend in C: a table of functions behind the open seam of the block room.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::Arc;

use super::caller::{ReleaseUser, User, VMCELL_FULL};
use super::convert::{Out, read_structure};
use super::disk::DiskObject;
use super::disk_operation::{Described, DiskOperation, Finished};
use super::disk_port::{DiskPort, Flights};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_NULL_ARGUMENT};
use super::guard::guard;
use super::objects::Registered;
use super::report::{ErrorObject, Report};
use crate::block::{Disk, DiskBackend, DiskInfo, Done, Operation, Tag};
use crate::error::Result;
use crate::event::{Event, Io, Token};
use crate::meter::Meter;

/// Descriptions that are kept to be used again.
const SPARE: usize = 64;

/// What a disk on a backend is like. Set `struct_size` to sizeof(vmcell_disk_info), and what has no need of another value to
/// 0, which stands for the default.
#[repr(C)]
pub struct DiskTraits {
    /// The size of this structure, in bytes.
    pub struct_size: usize,
    /// The disk's size in bytes: a multiple of the block size, above 0. There is no default. It may change later, by
    /// vmcell_disk_port_set_capacity; the other members never do.
    pub capacity: u64,
    /// The most bytes of a read or a write: a multiple of the block size. The default is 131072.
    pub max_transfer: u64,
    /// The most bytes of a discard or of zeroes: a multiple of the block size. The default is 67108864.
    pub max_range: u64,
    /// What operations are aligned to, in bytes: a power of two from 512 to 4096. The default is 512.
    pub block_size: u32,
    /// The most parts of a read or a write: 512, which is the default, or more. Linux takes 1024 at once (IOV_MAX).
    pub max_segments: u32,
    /// VMCELL_DISK_NO_* of what the backend does not take. The guest is not offered it, and `submit` never gets it. An operation
    /// that the backend does take may still end with EOPNOTSUPP, which tells the guest to do without.
    pub flags: u32,
}

/// The backend takes no VMCELL_DISK_DISCARD.
pub const VMCELL_DISK_NO_DISCARD: u32 = 1;
/// The backend takes no VMCELL_DISK_WRITE_ZEROES.
pub const VMCELL_DISK_NO_WRITE_ZEROES: u32 = 2;

/// The functions of a disk's backend. Set `struct_size` to sizeof(vmcell_disk_backend), and what the backend does not need to
/// NULL. The table is copied.
///
/// One I/O thread calls all of them but `destroy`, one call at a time: a thread of the disk's own, unless
/// vmcell_disk_set_io_thread chooses one or vmcell_disk_set_never_blocks vouches for the backend. A call that takes long holds
/// up whatever that thread serves, vmcell_vm_pause, and a reset by the guest, but neither other VMs nor vmcell_vm_stop.
///
/// A function may call any function of this library, for any object, also its own port, and also for the VM that it serves;
/// THREADS at the top says what each does there. vmcell_vm_new waits for `attach`, at most for ten seconds. No function may
/// unwind: no C++ exception, no longjmp.
#[repr(C)]
pub struct DiskTable {
    /// The size of this structure, in bytes. A later version may have more members: they count as NULL in a table that ends
    /// before them. A table that is longer than this version knows is refused unless the rest is NULL.
    pub struct_size: usize,
    /// Passed to each function.
    pub user: *mut c_void,
    /// Begins with an operation, and returns 0: vmcell_disk_port_complete says later, or within this very call, that it is
    /// done. Or returns VMCELL_FULL, and does not keep it: it is offered again, under another tag, after the next completion or
    /// vmcell_disk_port_retry. Or returns an errno, 1 to 4095, and does not keep it: the operation has failed. Any other number
    /// counts as EIO. Whatever it returns, an operation that was completed is completed. At most VMCELL_DISK_MAX_OPERATIONS are in
    /// flight at once.
    ///
    /// Must not be NULL.
    pub submit:
        Option<unsafe extern "C" fn(user: *mut c_void, port: *mut DiskPort, operation: *const DiskOperation) -> i32>,
    /// The end of a batch: what `submit` only collected is to be begun with now. May be NULL.
    pub commit: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// The guest's driver has gone, and waits until all operations in flight are completed: fail what has not begun, hurry the
    /// rest. May be NULL.
    pub cancel: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// vmcell_disk_handle_refresh was called: look at the size of what the disk lies on again, and call
    /// vmcell_disk_port_set_capacity if it has changed. May be NULL.
    pub refresh: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// The disk is gone, with its VM or before it got one, or another one has taken its place: the last call, made once, on any
    /// thread, often the one that frees the VM. It may block: it stops the backend's threads and waits for them. Operations in
    /// flight may be completed until it returns, but need not be: what is left then is taken back, so nothing may touch an
    /// operation or its parts any more. May be NULL.
    pub destroy: ReleaseUser,
}

/// A table and its user, and what it has begun with.
struct TableBackend {
    table: DiskTable,
    info: DiskInfo,
    /// Dropped before the port: `destroy` may still complete.
    user: User,
    port: Port,
    token: Option<Token>,
    finished: VecDeque<Finished>,
    spare: Vec<Arc<Described>>,
}

// SAFETY: `user` in the table is the one in `User`, which may move to other threads; the rest are functions.
unsafe impl Send for DiskTable {}

/// The port, until the backend is gone.
struct Port {
    registered: Registered<DiskPort>,
    flights: Arc<Flights>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.flights.end();
    }
}

impl DiskTraits {
    fn info(&self) -> FfiResult<DiskInfo> {
        let known = VMCELL_DISK_NO_DISCARD | VMCELL_DISK_NO_WRITE_ZEROES;
        if self.flags & !known != 0 {
            let message = format!("info->flags is {:#x}, allowed are bits of {known:#x}", self.flags);
            return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
        }
        let mut info = DiskInfo::new(self.capacity);
        set(&mut info.block_size, self.block_size);
        set(&mut info.max_transfer, self.max_transfer);
        set(&mut info.max_range, self.max_range);
        set(&mut info.max_segments, self.max_segments as usize);
        info.discard = self.flags & VMCELL_DISK_NO_DISCARD == 0;
        info.write_zeroes = self.flags & VMCELL_DISK_NO_WRITE_ZEROES == 0;
        Ok(info)
    }
}

fn set<T: Default + PartialEq>(place: &mut T, value: T) {
    if value != T::default() {
        *place = value;
    }
}

impl TableBackend {
    fn new(table: DiskTable, info: DiskInfo, user: User) -> FfiResult<Self> {
        let flights = Flights::new(&info);
        let port = Port { registered: Registered::new(DiskPort::new(&flights))?, flights };
        Ok(Self { table, info, user, port, token: None, finished: VecDeque::new(), spare: Vec::new() })
    }

    fn call(&self, function: Option<unsafe extern "C" fn(*mut c_void)>) {
        if let Some(function) = function {
            // SAFETY: the header demands a function that takes the table's user, which is not released before `self` is dropped.
            unsafe { function(self.user.user) };
        }
    }

    fn recycle(&mut self, described: Arc<Described>) {
        if self.spare.len() < SPARE {
            self.spare.push(described);
        }
    }
}

impl DiskBackend for TableBackend {
    fn info(&self) -> DiskInfo {
        DiskInfo { capacity: self.port.flights.capacity(), ..self.info }
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.token = Some(token);
        self.port.flights.wake.set(io.waker(token));
        // What came before this found nobody to wake, or woke another thread.
        self.port.flights.wake.wake();
        self.look_at_capacity(io);
        Ok(())
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        let Some(submit) = self.table.submit else { return Err(operation) };
        let described = self.spare.pop().unwrap_or_else(|| Arc::new(Described::new()));
        let described = self.port.flights.begin(tag, operation, described)?;
        let (own, seen) = (described.seen.tag, &raw const described.seen);
        // SAFETY: the header demands a function that takes these. The description and the buffer that it leads to are kept by
        // `flights` until the operation is completed or the backend is destroyed, and the description itself until the call
        // returns.
        let answer = unsafe { submit(self.user.user, self.port.registered.handle(), seen) };
        match answer {
            0 => Ok(()),
            VMCELL_FULL => self.port.flights.take_back(own).map_or(Ok(()), Err),
            errno => {
                self.port.flights.complete(own, errno);
                Ok(())
            }
        }
    }

    fn commit(&mut self, _io: &mut Io) {
        self.call(self.table.commit);
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        if self.finished.is_empty() {
            self.port.flights.swap_finished(&mut self.finished);
        }
        let Finished { done, described } = self.finished.pop_front()?;
        self.recycle(described);
        Some(done)
    }

    fn cancel(&mut self, _io: &mut Io) {
        self.call(self.table.cancel);
    }

    fn refresh(&mut self, _io: &mut Io) {
        self.call(self.table.refresh);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        if self.token == Some(event.token) {
            self.port.flights.wake.tell_given_up(io);
            self.look_at_capacity(io);
        }
    }

    fn metrics(&self, meter: &mut Meter) {
        self.port.flights.counters.hand_over(meter);
    }
}

impl TableBackend {
    fn look_at_capacity(&self, io: &mut Io) {
        if self.port.flights.take_capacity_changed() {
            io.info_changed();
        }
    }
}

/// Makes a disk on a backend of the caller's own. `port` receives the library's end of it, and may be NULL, as `submit` gets
/// it too. `info` is copied.
///
/// The table's `user` is taken: `destroy` is called for it when the disk is gone, and also if this call fails, unless it fails
/// because `table` is NULL or has a `struct_size` that is refused. Never blocks, but for `destroy`.
///
/// Errors: NULL_ARGUMENT also if `submit` is NULL; BAD_VALUE for a `struct_size` or `flags`; DISK if `info` is like no disk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_disk_new_backend(
    table: *const DiskTable,
    info: *const DiskTraits,
    disk: *mut *mut DiskObject,
    port: *mut *mut DiskPort,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let least = offset_of!(DiskTable, commit);
        // SAFETY: the header demands NULL or a table whose size stands in front.
        let table = unsafe { read_structure(table, least, "table") }?;
        let user = User { user: table.user, release: table.destroy };
        if table.submit.is_none() {
            return Err(Failure::new(VMCELL_ERROR_NULL_ARGUMENT, "table->submit is NULL"));
        }
        // SAFETY: the header demands NULL or a structure whose size stands in front.
        let info = unsafe { read_structure(info, offset_of!(DiskTraits, flags), "info") }?.info()?;
        info.check()?;
        // SAFETY: the header demands NULL or a place for the result.
        let (disk, port) = unsafe { (Out::new(disk, "disk")?, Out::new(port, "port").ok()) };
        let backend = TableBackend::new(table, info, user)?;
        let handle = backend.port.registered.handle();
        disk.insert(DiskObject::new(Disk::backend(backend)))?;
        if let Some(port) = port {
            port.write(handle);
        }
        Ok(())
    })
}

#[cfg(test)]
#[path = "disk_backend_test.rs"]
mod tests;

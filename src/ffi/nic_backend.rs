//! Network interfaces on a backend in C: a table of functions behind the open seam of the net room.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::Arc;

use libc::iovec;

use super::caller::{ReleaseUser, User, VMCELL_FULL};
use super::convert::{Out, read_structure};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_NULL_ARGUMENT};
use super::guard::guard;
use super::nic::NicObject;
use super::nic_frame::{NicFrame, bits_of, offloads_of};
use super::nic_port::{NicPort, Wire};
use super::objects::Registered;
use super::report::{ErrorObject, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, Token, Wants};
use crate::meter::Meter;
use crate::net::{Delivery, Need, Nic, NicBackend, NicInfo, RxBatch, TxBatch, TxFrame};

/// What the link of an interface on a backend is like. Set `struct_size` to sizeof(vmcell_nic_info), and what has no need of
/// another value to 0, which stands for the default.
#[repr(C)]
pub struct NicTraits {
    /// The size of this structure, in bytes.
    pub struct_size: usize,
    /// What the backend does for the guest in the frames that the guest sends, as a sum of VMCELL_OFFLOAD_*. The default is
    /// nothing: each frame has its checksums, and is no longer than the MTU. What needs another one is left out without it.
    pub offloads: u32,
    /// Whether the link is down at first: 0 for no, the default, anything else for yes.
    pub link_down: i32,
}

/// The functions of an interface's backend. Set `struct_size` to sizeof(vmcell_nic_backend), and what the backend does not
/// need to NULL. The table is copied.
///
/// One I/O thread calls all of them but `destroy`, one call at a time: a thread of the interface's own, unless
/// vmcell_nic_set_io_thread chooses one or vmcell_nic_set_never_blocks vouches for the backend. A call that takes long holds up
/// whatever that thread serves, vmcell_vm_pause, and a reset by the guest, but neither other VMs nor vmcell_vm_stop.
///
/// A function may call any function of this library, for any object, also its own port and those of other VMs, and also for the
/// VM that it serves; THREADS at the top says what each does there. vmcell_vm_new waits for `attach`, at most for ten seconds. No
/// function may unwind: no C++ exception, no longjmp.
#[repr(C)]
pub struct NicTable {
    /// The size of this structure, in bytes. A later version may have more members: they count as NULL in a table that ends
    /// before them. A table that is longer than this version knows is refused unless the rest is NULL.
    pub struct_size: usize,
    /// Passed to each function.
    pub user: *mut c_void,
    /// Takes a frame of the guest, and returns 0; it copies what it needs, as the frame is only valid until it returns. Or
    /// returns VMCELL_FULL: the same frame is offered again after vmcell_nic_port_retry, or earlier, and the guest's other
    /// frames wait. After any other number, such as an errno, the frame is dropped and counted.
    ///
    /// Must not be NULL.
    pub send: Option<unsafe extern "C" fn(user: *mut c_void, port: *mut NicPort, frame: *const NicFrame) -> i32>,
    /// The guest's driver is ready, and copes with frames that leave these things undone, a sum of VMCELL_OFFLOAD_*. Called
    /// again if another driver takes over. Returns 0; after any other number the driver is told that the device does not work.
    /// May be NULL: a frame that leaves more undone is dropped in any case.
    pub negotiate: Option<unsafe extern "C" fn(user: *mut c_void, offloads: u32) -> i32>,
    /// The interface is gone, with its VM or before it got one: the last call, made once, on any thread, often the one that
    /// frees the VM. It may block: it stops the backend's threads and waits for them. May be NULL.
    pub destroy: ReleaseUser,
}

/// A table and its user, and the wire to its threads.
struct TableBackend {
    table: NicTable,
    info: NicInfo,
    /// Dropped before the port: `destroy` may still use it.
    user: User,
    port: Registered<NicPort>,
    wire: Arc<Wire>,
    token: Option<Token>,
    /// The link has changed: what waited for that has its turn when the device knows.
    again: Cell<bool>,
    parts: Parts,
}

/// Where a frame lies: a copy, so that what C does to it is nothing to us.
#[derive(Default)]
struct Parts(Vec<iovec>);

// SAFETY: the pointers are only passed on, in the call that they were made for.
unsafe impl Send for Parts {}

// SAFETY: `user` in the table is the one in `User`, which may move to other threads; the rest are functions.
unsafe impl Send for NicTable {}

impl NicTraits {
    fn info(&self) -> FfiResult<NicInfo> {
        Ok(NicInfo { offloads: offloads_of(self.offloads)?, link_up: self.link_down == 0 })
    }
}

impl TableBackend {
    /// Has C take a frame; says whether it has.
    fn offer(&mut self, frame: &TxFrame) -> i32 {
        let Some(send) = self.table.send else { return 0 };
        let header = frame.header().to_bytes();
        self.parts.0.clear();
        self.parts.0.extend_from_slice(frame.data().as_iovecs());
        let (parts, part_count) = (self.parts.0.as_ptr(), self.parts.0.len());
        let len = usize::try_from(frame.data().len()).unwrap_or(usize::MAX);
        let seen = NicFrame { struct_size: size_of::<NicFrame>(), header: header.as_ptr(), len, parts, part_count };
        // SAFETY: the header demands a function that takes these. All of it lives until the call returns, and the frame keeps
        // the guest's memory.
        unsafe { send(self.user.user, self.port.handle(), &raw const seen) }
    }

    fn look_at_link(&self, io: &mut Io) {
        if self.wire.take_link_changed() {
            io.info_changed();
            self.again.set(true);
        }
    }
}

impl NicBackend for TableBackend {
    fn info(&self) -> NicInfo {
        NicInfo { link_up: self.wire.link_is_up(), ..self.info }
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.token = Some(token);
        self.wire.wake.set(io.waker(token));
        // What came before this found nobody to wake, or woke another thread.
        self.wire.wake.wake();
        self.look_at_link(io);
        Ok(())
    }

    fn negotiate(&mut self, guest: crate::net::Offloads) -> Result<()> {
        let Some(negotiate) = self.table.negotiate else { return Ok(()) };
        // SAFETY: the header demands a function that takes these.
        match unsafe { negotiate(self.user.user, bits_of(guest)) } {
            0 => Ok(()),
            other => {
                Err(Error::new(ErrorKind::Network, format!("the backend refused the guest's offloads with {other}")))
            }
        }
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while !io.spent() && frames.has_room(io) {
            let Some(frame) = self.wire.take() else { return };
            match frames.put(io, &frame.header, &frame.bytes) {
                Delivery::NoRoom => return self.wire.put_back(frame),
                Delivery::Dropped => self.wire.count_lost_to_guest(),
                Delivery::Delivered => {}
            }
            self.wire.recycle(frame);
        }
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while let Some(frame) = frames.next(io) {
            match self.offer(frame) {
                0 => {}
                VMCELL_FULL => return,
                _ => self.wire.count_lost_from_guest(),
            }
            frames.done();
        }
    }

    fn wants(&self, _need: Need, wants: &mut Wants) {
        if self.again.take() {
            wants.again();
        }
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        if self.token == Some(event.token) {
            self.wire.wake.tell_given_up(io);
            self.look_at_link(io);
        }
    }

    fn metrics(&self, meter: &mut Meter) {
        self.wire.counters.hand_over(meter);
    }
}

/// Makes a network interface on a backend of the caller's own. `port` receives the library's end of it, and may be NULL, as
/// `send` gets it too. `info` is copied; NULL stands for the defaults.
///
/// The table's `user` is taken: `destroy` is called for it when the interface is gone, and also if this call fails, unless it
/// fails because `table` is NULL or has a `struct_size` that is refused. Never blocks, but for `destroy`.
///
/// Errors: NULL_ARGUMENT also if `send` is NULL; BAD_VALUE for a `struct_size` or `offloads`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_nic_new_backend(
    table: *const NicTable,
    info: *const NicTraits,
    nic: *mut *mut NicObject,
    port: *mut *mut NicPort,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a table whose size stands in front.
        let table = unsafe { read_structure(table, offset_of!(NicTable, negotiate), "table") }?;
        let user = User { user: table.user, release: table.destroy };
        if table.send.is_none() {
            return Err(Failure::new(VMCELL_ERROR_NULL_ARGUMENT, "table->send is NULL"));
        }
        let info = if info.is_null() {
            NicInfo::default()
        } else {
            // SAFETY: not NULL, so the header demands a structure whose size stands in front.
            unsafe { read_structure(info, size_of::<NicTraits>(), "info") }?.info()?
        };
        // SAFETY: the header demands NULL or a place for the result.
        let (nic, place) = unsafe { (Out::new(nic, "nic")?, Out::new(port, "port").ok()) };
        let wire = Wire::new(info.link_up);
        let port = Registered::new(NicPort::new(&wire))?;
        let handle = port.handle();
        let (again, parts) = (Cell::new(false), Parts::default());
        let backend = TableBackend { table, info, user, port, wire, token: None, again, parts };
        nic.insert(NicObject::new(Nic::backend(backend)))?;
        if let Some(place) = place {
            place.write(handle);
        }
        Ok(())
    })
}

#[cfg(test)]
#[path = "nic_backend_test.rs"]
mod tests;

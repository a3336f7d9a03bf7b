//! Why a vCPU came back from the guest.

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuExit as RawExit;

use crate::memory::GuestAddress;

/// Data of port I/O lies in the page behind the structure, which is why it does not overlap what [`kvm_run`] holds.
const _: () = assert!(size_of::<kvm_run>() <= 4096);

/// Why [`Vcpu::run`](super::Vcpu::run) returned.
///
/// Its data belongs to the vCPU, and can be used until that is run again:
///
/// ```compile_fail,E0499
/// # use vmcell::kvm::Vcpu;
/// fn run_twice(vcpu: &mut Vcpu) -> vmcell::Result<()> {
///     let first = vcpu.run()?;
///     vcpu.run()?;
///     drop(first);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum VcpuExit<'a> {
    /// The guest reads `data.len() / width` times from a port; fill `data` before the next run.
    PioRead {
        /// The port.
        port: u16,
        /// Bytes an access: 1, 2 or 4. More than one access comes from a string instruction.
        width: u8,
        /// What the guest will see.
        data: &'a mut [u8],
    },
    /// The guest wrote `data.len() / width` times to a port.
    PioWrite {
        /// The port.
        port: u16,
        /// Bytes an access: 1, 2 or 4.
        width: u8,
        /// What the guest wrote.
        data: &'a [u8],
    },
    /// The guest reads where it has no RAM; fill `data` before the next run.
    MmioRead {
        /// Where it reads.
        gpa: GuestAddress,
        /// What the guest will see, 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest wrote where it has no RAM.
    MmioWrite {
        /// Where it wrote.
        gpa: GuestAddress,
        /// What it wrote, 1 to 8 bytes.
        data: &'a [u8],
    },
    /// The guest executed `hlt`. Not seen with an in-kernel irqchip, which waits itself.
    Halt,
    /// Triple fault.
    Shutdown,
    /// The guest asked KVM itself for a change of power state.
    SystemEvent(SystemEvent),
    /// The vCPU was kicked, or a signal arrived; nothing is to be done for the guest.
    Interrupted,
    /// The processor refused to enter the guest: the hardware's reason.
    FailedEntry(u64),
    /// KVM could not go on, for instance at an instruction that it cannot emulate: its suberror.
    InternalError(u32),
    /// An exit that this crate does not know: its number in KVM's interface.
    Unknown(u32),
}

/// What the guest asked KVM for (KVM_EXIT_SYSTEM_EVENT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SystemEvent {
    /// To be turned off.
    Shutdown,
    /// To be restarted.
    Reset,
    /// Something else: its number in KVM's interface.
    Other(u32),
}

impl SystemEvent {
    pub(super) fn from_number(number: u32) -> Self {
        match number {
            kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => Self::Shutdown,
            kvm_bindings::KVM_SYSTEM_EVENT_RESET => Self::Reset,
            other => Self::Other(other),
        }
    }
}

/// An exit whose data is no longer tied to the descriptor that gave it.
pub(super) enum Answer<'a> {
    Mmio(VcpuExit<'a>),
    PioRead(u16, &'a mut [u8]),
    PioWrite(u16, &'a [u8]),
    Plain(VcpuExit<'static>),
    Other,
}

impl<'a> Answer<'a> {
    /// Sorts an exit, so that the descriptor can be asked for what `kvm-ioctls` leaves out.
    ///
    /// # Safety
    /// The memory behind the exit's slices must stay valid and unaliased for `'a`.
    pub(super) unsafe fn detach(exit: RawExit<'_>) -> Self {
        // SAFETY: both closures only give a slice the lifetime that the caller vouches for.
        let shared = |data: &[u8]| unsafe { std::slice::from_raw_parts(data.as_ptr(), data.len()) };
        // SAFETY: as above.
        let unique = |data: &mut [u8]| unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr(), data.len()) };
        match exit {
            RawExit::IoIn(port, data) => Self::PioRead(port, unique(data)),
            RawExit::IoOut(port, data) => Self::PioWrite(port, shared(data)),
            RawExit::MmioRead(gpa, data) => {
                Self::Mmio(VcpuExit::MmioRead { gpa: GuestAddress(gpa), data: unique(data) })
            }
            RawExit::MmioWrite(gpa, data) => {
                Self::Mmio(VcpuExit::MmioWrite { gpa: GuestAddress(gpa), data: shared(data) })
            }
            other => plain_exit(&other).map_or(Self::Other, Self::Plain),
        }
    }
}

/// The exits that carry no borrowed data and whose values the wrapper already holds.
fn plain_exit(exit: &RawExit<'_>) -> Option<VcpuExit<'static>> {
    Some(match exit {
        RawExit::Hlt => VcpuExit::Halt,
        RawExit::Shutdown => VcpuExit::Shutdown,
        RawExit::SystemEvent(event, _) => VcpuExit::SystemEvent(SystemEvent::from_number(*event)),
        RawExit::FailEntry(reason, _) => VcpuExit::FailedEntry(*reason),
        RawExit::Intr | RawExit::IrqWindowOpen => VcpuExit::Interrupted,
        _ => return None,
    })
}

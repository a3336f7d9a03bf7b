//! The thread of one vCPU: in and out of the guest until the VM ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::exit::Exit;
use super::lifecycle::{Lifecycle, NextMove};
use super::metrics::VcpuCounters;
use super::seat::Seat;
use super::threads::{ThreadRole, ThreadSetup};
use crate::board::{Buses, ResetCause};
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::{SystemEvent, Vcpu, VcpuExit};
use crate::sys::{self, ThreadHandle};

/// What the thread of a vCPU needs.
pub(super) struct Duty {
    pub(super) index: u32,
    /// Where the vCPU is, and where it goes while the VM is paused.
    pub(super) seat: Arc<Seat>,
    pub(super) buses: Arc<Buses>,
    pub(super) lifecycle: Arc<Lifecycle>,
    /// Runs on the thread of the vCPU that is the last to leave the guest.
    pub(super) on_last: Arc<dyn Fn() + Send + Sync>,
    pub(super) setup: ThreadSetup,
    pub(super) counters: Arc<VcpuCounters>,
}

/// Starts the thread. If its preparation is awaited, this waits for it, and the thread enters the guest once `gate` is dropped or
/// gives something; otherwise a preparation that fails ends the VM.
pub(super) fn spawn(duty: Duty, gate: Receiver<()>) -> Result<(ThreadHandle, Result<()>)> {
    let (index, is_awaited) = (duty.index, duty.setup.is_awaited());
    let (reply, prepared) = sync_channel(1);
    let handle = sys::spawn(&duty.setup.thread_name(ThreadRole::Vcpu(index)), move || {
        let Duty { index, seat, buses, lifecycle, on_last, setup, counters } = duty;
        // What a user's code does here must not wait for this very thread.
        sys::forbid_waiting();
        counters.begin();
        let prepared = setup.prepare(ThreadRole::Vcpu(index));
        if is_awaited {
            let _ = reply.send(prepared);
            let _ = gate.recv();
        } else if let Err(error) = prepared {
            lifecycle.end(Exit::Failed(error));
        }
        drop((setup, gate));
        let body = AssertUnwindSafe(|| run(&seat, &buses, &lifecycle, &counters));
        if let Err(error) = catch_unwind(body).unwrap_or_else(|_| Err(panicked(index))) {
            lifecycle.end(Exit::Failed(error));
        }
        // Nobody looks at it any more.
        drop(seat.take());
        if lifecycle.is_last_vcpu() {
            let _ = catch_unwind(AssertUnwindSafe(|| on_last()));
        }
        // Devices that the buses hold may be the last owners of something; let them go before the VM counts as ended.
        drop((buses, on_last));
        counters.end();
        lifecycle.vcpu_finished();
    })?;
    let prepared = if is_awaited { prepared.recv().unwrap_or_else(|_| Err(panicked(index))) } else { Ok(()) };
    Ok((handle, prepared))
}

fn run(seat: &Seat, buses: &Buses, lifecycle: &Lifecycle, counters: &VcpuCounters) -> Result<()> {
    let mut taken = seat.take();
    while let Some(mut vcpu) = taken.take() {
        if run_until_parked(&mut vcpu, buses, lifecycle, counters)? == NextMove::Finish {
            return Ok(());
        }
        seat.put(vcpu);
        lifecycle.park();
        taken = seat.take();
        taken.iter().for_each(Vcpu::note_pause);
    }
    Ok(())
}

/// Returns between two instructions of the guest.
fn run_until_parked(
    vcpu: &mut Vcpu,
    buses: &Buses,
    lifecycle: &Lifecycle,
    counters: &VcpuCounters,
) -> Result<NextMove> {
    // Before the goal is looked at for the first time: a kick that comes after that look must find this thread.
    vcpu.bind_to_this_thread()?;
    loop {
        let next = lifecycle.next_move();
        let exit = match next {
            NextMove::Run => vcpu.run()?,
            NextMove::Park => vcpu.finish_access()?,
            NextMove::Finish => return Ok(next),
        };
        counters.count(&exit);
        if next == NextMove::Park && matches!(exit, VcpuExit::Interrupted) {
            return Ok(next);
        }
        let served = serve(exit, buses);
        if let Some(exit) = served.map_err(|error| located(error, vcpu))? {
            lifecycle.end(exit);
        }
    }
}

/// Does what the guest asked for; says whether that ends the VM.
fn serve(exit: VcpuExit<'_>, buses: &Buses) -> Result<Option<Exit>> {
    match exit {
        VcpuExit::PioRead { port, width, data } => {
            for access in data.chunks_mut(width.max(1).into()) {
                if !buses.pio.read(port.into(), access) {
                    access.fill(ABSENT);
                }
            }
        }
        VcpuExit::PioWrite { port, width, data } => {
            for access in data.chunks(width.max(1).into()) {
                buses.pio.write(port.into(), access);
            }
        }
        VcpuExit::MmioRead { gpa, data } => {
            if !buses.mmio.read(gpa.0, data) {
                data.fill(ABSENT);
            }
        }
        VcpuExit::MmioWrite { gpa, data } => {
            buses.mmio.write(gpa.0, data);
        }
        VcpuExit::Interrupted => {}
        VcpuExit::Shutdown => return Ok(Some(Exit::Reset(ResetCause::TripleFault))),
        VcpuExit::SystemEvent(event) => return system_event(event).map(Some),
        VcpuExit::Halt => return Err(failed("halted where no interrupt can wake it".into())),
        VcpuExit::FailedEntry(reason) => return Err(failed(format!("could not be entered, reason={reason:#x}"))),
        VcpuExit::InternalError(suberror) => {
            return Err(failed(format!("did something that KVM cannot emulate, suberror={suberror}")));
        }
        VcpuExit::Unknown(number) => return Err(failed(format!("left with the unknown exit {number}"))),
    }
    Ok(None)
}

/// What a read sees where no device is, as on a real bus.
const ABSENT: u8 = 0xff;

fn system_event(event: SystemEvent) -> Result<Exit> {
    match event {
        SystemEvent::Shutdown => Ok(Exit::Shutdown),
        SystemEvent::Reset => Ok(Exit::Reset(ResetCause::SystemEvent)),
        event => Err(failed(format!("raised the system event {event:?}"))),
    }
}

fn failed(what: String) -> Error {
    Error::new(ErrorKind::Guest, format!("the guest {what}"))
}

/// Adds where the guest was.
fn located(error: Error, vcpu: &Vcpu) -> Error {
    match vcpu.program_counter() {
        Ok(address) => error.with_source(format!("vCPU {} was at address {address:#x}", vcpu.index())),
        Err(_) => error,
    }
}

fn panicked(index: u32) -> Error {
    Error::new(ErrorKind::Host, format!("the thread of vCPU {index} panicked"))
}

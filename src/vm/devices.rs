//! The devices of one VM: how they are connected, stood still, and let go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::exit::Exit;
use super::failures::DeviceFailure;
use super::lifecycle::Lifecycle;
use super::metrics::{ConsoleMetrics, DeviceKindMetrics, DeviceMetrics};
use super::snapshot::SnapshotParts;
use super::threads::{ThreadRole, ThreadSetup, VmThread};
use crate::arch;
use crate::balloon::BalloonHandle;
use crate::block::{DiskHandle, DiskStatus};
use crate::board::{Board, Buses, PortsState, PowerEvent, SerialPort};
use crate::bus::Bus;
use crate::config::{RateLimit, Seccomp};
use crate::confine::{Kind, ThreadFilter};
use crate::console::{Console, ConsoleStatus};
use crate::error::{Error, Result};
#[cfg(feature = "secret")]
use crate::event::Participant;
use crate::event::{IoThread, IoThreadMetrics, Membership, Placement};
use crate::kvm::{ChipsState, KvmVm};
use crate::logging::{LogLevel, Voice};
use crate::memory::{GuestAddress, GuestMemory};
use crate::net::NicHandle;
use crate::rng::RngHandle;
use crate::sys::{EventFd, lock};
use crate::virtio::{MmioTransport, TransportState, VirtioDevice, spec};
use crate::vsock::VsockHandle;

/// What the builder hands over.
pub(super) struct Parts {
    /// In the order in which the guest finds them.
    pub(super) devices: Vec<Part>,
    pub(super) console: Console,
    /// How much of the guest's output it gets, if that is limited.
    pub(super) console_rate: Option<RateLimit>,
    /// Whether there is a vsock, and whether it has a path.
    pub(super) vsock: Option<bool>,
    pub(super) io_thread: Option<IoThread>,
    /// For how long the VM's own I/O threads poll, if anything is said about it.
    pub(super) polling: Option<Duration>,
    pub(super) setup: ThreadSetup,
    /// How the VM's own I/O threads are filtered.
    pub(super) seccomp: Seccomp,
    /// Whether the guest is told of a power button.
    pub(super) has_button: bool,
}

/// A device before it is connected.
pub(super) struct Part {
    /// What messages call it.
    pub(super) label: String,
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) placement: Placement,
    pub(super) handle: Handle,
}

/// By what a device is reached that has come to its thread.
pub(super) enum Handle {
    Disk(DiskHandle),
    Nic(NicHandle),
    Rng(RngHandle),
    Balloon(BalloonHandle),
    Vsock(VsockHandle),
    Other,
}

pub(super) struct Devices {
    buses: Arc<Buses>,
    transports: Vec<Arc<MmioTransport>>,
    /// Of each transport.
    handles: Vec<Handle>,
    /// What messages call each of them.
    labels: Vec<String>,
    /// Of each transport.
    names: Vec<String>,
    port: SerialPort,
    /// The console, and what else of the VM's lives on its I/O thread beside the devices.
    members: Mutex<Vec<Membership>>,
    /// Each signal is a press.
    power_button: Option<EventFd>,
    /// Serves all that has no thread of its own.
    #[cfg(feature = "secret")]
    shared: IoThread,
    /// The I/O threads that the VM made for itself.
    own_threads: Vec<(ThreadRole, IoThread)>,
    /// Those that the caller made.
    given_threads: Vec<IoThread>,
    /// Interrupt lines and doorbells are connected for as long as this lives.
    vm: KvmVm,
}

impl Devices {
    pub(super) fn assemble(
        board: &Board,
        vm: KvmVm,
        memory: &GuestMemory,
        lifecycle: &Arc<Lifecycle>,
        parts: Parts,
        saved: Option<&SnapshotParts>,
    ) -> Result<Self> {
        let (mut buses, ends) = (Buses::default(), lifecycle.clone());
        let port = board.connect(&vm, &mut buses, move |event| serve_power(&ends, event))?;
        let power_button = parts.has_button.then(|| board.connect_power_button(&vm)).transpose()?;
        let (mut transports, mut handles, mut labels, mut own_threads) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut given_threads: Vec<IoThread> = parts.io_thread.iter().cloned().collect();
        let mut start = |role| {
            let setup = parts.setup.clone();
            let thread = IoThread::prepared(&setup.thread_name(role), move || setup.prepare(role))?;
            if let Some(polling) = parts.polling {
                thread.set_polling(polling);
            }
            own_threads.push((role, thread.clone()));
            Ok(thread)
        };
        let shared = parts.io_thread.map_or_else(|| start(ThreadRole::Io), Ok)?;
        if let Some(saved) = saved {
            let labels: Vec<_> = parts.devices.iter().map(|part| part.label.clone()).collect();
            saved.check_devices(&labels)?;
            port.restore(&saved.ports)?;
        }
        let names = device_names(parts.devices.iter().map(|part| &part.handle));
        for ((index, part), name) in parts.devices.into_iter().enumerate().zip(&names) {
            let voice = parts.setup.logger.about(name);
            let attach = || {
                let io_thread = match part.placement {
                    Placement::Shared => shared.clone(),
                    Placement::Chosen(io_thread) => {
                        if !given_threads.iter().any(|known| known.is_same(&io_thread)) {
                            given_threads.push(io_thread.clone());
                        }
                        io_thread
                    }
                    Placement::Alone => start(ThreadRole::DeviceIo(u32::try_from(index).unwrap_or(u32::MAX)))?,
                };
                let state = saved.and_then(|saved| saved.devices.get(index)).map(|(_, state)| state);
                let transport = MmioTransport::saying(voice.clone(), part.device, memory.clone(), &io_thread, state)?;
                connect(&vm, &mut buses.mmio, arch::mmio_device(index), &transport)?;
                if state.is_some_and(|state| state.interrupt_status != 0) {
                    // It may have been on its way when the snapshot was taken. One too many does no harm.
                    transport.interrupt().signal();
                }
                Ok(transport)
            };
            transports.push(attach().map_err(|error: Error| error.about(&part.label))?);
            say_engine(&voice, &part.handle);
            handles.push(part.handle);
            labels.push(part.label);
        }
        port.output.limit(parts.console_rate);
        let kind = Kind::Io {
            rotates: parts.console.rotates(),
            vsock: parts.vsock.is_some(),
            connects: parts.vsock == Some(true),
        };
        let console =
            parts.console.connect(&port.serial, &port.output, &shared, parts.setup.logger.about("console"))?;
        if let Some(filter) = ThreadFilter::new(kind, parts.seccomp)?.map(Arc::new) {
            own_threads.iter().try_for_each(|(_, thread)| thread.confine(Arc::clone(&filter)))?;
        }
        Ok(Self {
            buses: Arc::new(buses),
            transports,
            port,
            members: Mutex::new(vec![console]),
            power_button,
            handles,
            labels,
            names,
            #[cfg(feature = "secret")]
            shared,
            own_threads,
            given_threads,
            vm,
        })
    }

    pub(super) fn disk_handles(&self) -> Vec<&DiskHandle> {
        self.handles
            .iter()
            .filter_map(|handle| if let Handle::Disk(disk) = handle { Some(disk) } else { None })
            .collect()
    }

    pub(super) fn nic_handles(&self) -> Vec<&NicHandle> {
        self.handles.iter().filter_map(|handle| if let Handle::Nic(nic) = handle { Some(nic) } else { None }).collect()
    }

    pub(super) fn rng_handle(&self) -> Option<&RngHandle> {
        self.handles.iter().find_map(|handle| if let Handle::Rng(rng) = handle { Some(rng) } else { None })
    }

    pub(super) fn balloon_handle(&self) -> Option<&BalloonHandle> {
        self.handles.iter().find_map(|handle| if let Handle::Balloon(balloon) = handle { Some(balloon) } else { None })
    }

    pub(super) fn vsock_handle(&self) -> Option<&VsockHandle> {
        self.handles.iter().find_map(|handle| if let Handle::Vsock(vsock) = handle { Some(vsock) } else { None })
    }

    pub(super) fn buses(&self) -> &Arc<Buses> {
        &self.buses
    }

    /// The threads that serve this VM alone.
    pub(super) fn threads(&self) -> impl Iterator<Item = VmThread> {
        self.own_threads.iter().map(|(role, thread)| VmThread { role: *role, tid: thread.tid() })
    }

    /// How many bytes of output did not reach a reader, for a caller who says so: because it was too slow, and because it failed.
    pub(super) fn tell_console_missed(&self) -> (u64, u64) {
        self.port.output.tell_missed();
        self.port.output.missed()
    }

    pub(super) fn measure_turns(&self) {
        self.own_threads.iter().for_each(|(_, thread)| thread.measure_turns());
    }

    pub(super) fn thread_metrics(&self) -> Vec<IoThreadMetrics> {
        let own = self.own_threads.iter().map(|(_, thread)| IoThreadMetrics { is_own: true, ..thread.metrics() });
        own.chain(self.given_threads.iter().map(IoThread::metrics)).collect()
    }

    pub(super) fn metrics(&self) -> Vec<DeviceMetrics> {
        let devices = self.transports.iter().zip(&self.handles).zip(&self.names);
        let read = |((transport, handle), name): ((&Arc<MmioTransport>, &Handle), &String)| {
            let (kind, mut counters) = match handle {
                Handle::Disk(disk) => (DeviceKindMetrics::Disk(disk.metrics()), disk.backend_counters()),
                Handle::Nic(nic) => (DeviceKindMetrics::Nic(nic.metrics()), nic.backend_counters()),
                Handle::Balloon(balloon) => (DeviceKindMetrics::Balloon(balloon.metrics()), BTreeMap::new()),
                Handle::Rng(_) | Handle::Vsock(_) | Handle::Other => (DeviceKindMetrics::Other, BTreeMap::new()),
            };
            counters.append(&mut transport.own_counters());
            DeviceMetrics { name: name.clone(), transport: transport.metrics(), kind, counters }
        };
        devices.map(read).collect()
    }

    pub(super) fn failures(&self) -> Vec<DeviceFailure> {
        let devices = self.transports.iter().zip(&self.names).zip(&self.labels);
        let read = |((transport, device), label): ((&Arc<MmioTransport>, &String), &String)| {
            let failure = transport.failure()?;
            Some(DeviceFailure { device: device.clone(), label: label.clone(), failure })
        };
        devices.filter_map(read).collect()
    }

    pub(super) fn console_metrics(&self) -> ConsoleMetrics {
        let status = self.console_status();
        ConsoleMetrics {
            output_bytes: self.port.output.written(),
            dropped_bytes: status.dropped(),
            lost_bytes: status.lost(),
            input_bytes: self.port.serial.typed(),
            limited: self.port.output.limited(),
        }
    }

    pub(super) fn set_console_rate(&self, rate: Option<RateLimit>) {
        self.port.output.limit(rate);
    }

    /// Says whether there is one.
    pub(super) fn press_power_button(&self) -> bool {
        self.power_button.as_ref().inspect(|button| button.signal()).is_some()
    }

    pub(super) fn write_console(&self, bytes: &[u8]) -> usize {
        self.port.serial.queue_input(bytes)
    }

    pub(super) fn console_status(&self) -> ConsoleStatus {
        ConsoleStatus::of(&self.port.output)
    }

    /// Stands the devices still, one after the other; blocks for as long as a backend does, at most for `limit`. If one of
    /// them does not stand still in time, all go on.
    pub(super) fn pause_devices(&self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        let paused = self.transports.iter().zip(&self.labels).try_for_each(|(transport, label)| {
            transport.pause(limit.saturating_sub(begun.elapsed())).map_err(|error| error.about(label))
        });
        if paused.is_err() {
            self.resume_devices();
        }
        paused
    }

    /// Says of an error which device holds vCPUs up, if one does.
    pub(super) fn blame(&self, error: Error) -> Error {
        let mut devices = self.transports.iter().zip(&self.labels);
        match devices.find(|(transport, _)| transport.held_vcpus() > 0) {
            Some((_, label)) => error.about(label),
            None => error,
        }
    }

    pub(super) fn resume_devices(&self) {
        self.transports.iter().for_each(|transport| transport.resume());
    }

    /// The devices serve no more requests, and nobody waits long for a reader of the console. Never blocks.
    pub(super) fn close(&self) {
        self.transports.iter().for_each(|transport| transport.close());
        self.port.output.hurry();
    }

    /// What each device is called in messages, and its state. They stand still.
    pub(super) fn save(&self) -> Result<Vec<(String, TransportState)>> {
        let save = |(transport, label): (&Arc<MmioTransport>, &String)| {
            let state = transport.save().map_err(|error| error.about(label))?;
            Ok((label.clone(), state))
        };
        self.transports.iter().zip(&self.labels).map(save).collect()
    }

    pub(super) fn chips_state(&self) -> Result<ChipsState> {
        self.vm.chips_state()
    }

    pub(super) fn ports_state(&self) -> PortsState {
        self.port.save()
    }

    /// Called once no vCPU runs any more: what the guest wrote last still reaches its reader.
    pub(super) fn guest_has_ended(&self) {
        self.transports.iter().for_each(|transport| transport.close());
        self.port.output.end();
        self.port.output.wait_drained();
    }

    /// The guest has never run, and never will: whoever reads or writes its console sees the end of that. Never blocks.
    pub(super) fn end_console(&self) {
        self.port.output.end();
    }

    /// Takes the console and the like off the I/O thread; waits for a callback that is running.
    pub(super) fn detach(&self) {
        let members = std::mem::take(&mut *lock(&self.members));
        // Without the lock: what the console says at the end goes to the host program.
        drop(members);
    }

    /// Gives something of the VM's to its I/O thread, until the VM is dropped.
    #[cfg(feature = "secret")]
    pub(super) fn add(&self, participant: Box<dyn Participant>) -> Result<()> {
        let member = self.shared.add(participant)?;
        lock(&self.members).push(member);
        Ok(())
    }
}

/// `disk0`, `disk1`, `nic0`, `device0`, and so on: each kind is counted by itself.
fn device_names<'a>(handles: impl Iterator<Item = &'a Handle>) -> Vec<String> {
    let (mut disks, mut nics, mut rngs, mut balloons, mut vsocks, mut others) = (0.., 0.., 0.., 0.., 0.., 0..);
    let name = |handle: &Handle| {
        let (kind, numbers): (&str, &mut std::ops::RangeFrom<u32>) = match handle {
            Handle::Disk(_) => ("disk", &mut disks),
            Handle::Nic(_) => ("nic", &mut nics),
            Handle::Rng(_) => ("rng", &mut rngs),
            Handle::Balloon(_) => ("balloon", &mut balloons),
            Handle::Vsock(_) => ("vsock", &mut vsocks),
            Handle::Other => ("device", &mut others),
        };
        format!("{kind}{}", numbers.next().unwrap_or_default())
    };
    handles.map(name).collect()
}

/// Says why a disk has not the engine that would have been the first choice.
fn say_engine(voice: &Voice, handle: &Handle) {
    if let Handle::Disk(disk) = handle
        && let DiskStatus { engine, fallback: Some(reason) } = disk.status()
    {
        voice.say(LogLevel::Warn, || format!("uses the engine {engine}, because {reason}"));
    }
}

/// Puts a transport on the bus, its interrupt on a line, and its doorbells where no exit is needed to ring them.
fn connect(vm: &KvmVm, bus: &mut Bus, slot: arch::MmioSlot, transport: &Arc<MmioTransport>) -> Result<()> {
    bus.insert(slot.gpa.0, arch::MMIO_DEVICE_SIZE, transport.clone())?;
    vm.register_irqfd(transport.interrupt(), slot.gsi)?;
    let doorbell = GuestAddress(slot.gpa.0.saturating_add(spec::mmio::QUEUE_NOTIFY));
    (0u32..).zip(transport.doorbells()).try_for_each(|(queue, event)| vm.register_doorbell(event, doorbell, queue))
}

fn serve_power(lifecycle: &Lifecycle, event: PowerEvent) {
    lifecycle.end(match event {
        PowerEvent::Off => Exit::Shutdown,
        PowerEvent::Reset(cause) => Exit::Reset(cause),
        PowerEvent::Panicked => Exit::Panicked,
        PowerEvent::CrashKernel => return lifecycle.note_panic(),
    });
}

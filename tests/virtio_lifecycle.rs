//! Devices that come and go leave nothing behind in the process. Alone in its program, since it counts what that has open.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use vmcell::event::{Interest, Io, Token, Wants};
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use vmcell::virtio::{Activation, DeviceInfo, MmioTransport, Queues, VirtioDevice};
use vmcell::{GuestAddress, GuestMemory, IoThread};

/// Answers each chain, and waits for a socket that never says anything.
struct Device {
    socket: Arc<UnixDatagram>,
    token: Option<Token>,
}

impl Device {
    fn new() -> (Box<Self>, UnixDatagram) {
        let (socket, other) = UnixDatagram::pair().expect("the host gives sockets");
        (Box::new(Self { socket: Arc::new(socket), token: None }), other)
    }
}

impl VirtioDevice for Device {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[16, 16])
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        self.token = Some(io.token());
        Ok(())
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> vmcell::Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> vmcell::Result<()> {
        let Some(queue) = queues.get(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            queue.complete(chain, 1);
        }
        Ok(())
    }

    fn wants(&self, wants: &mut Wants) {
        if let Some(token) = self.token {
            wants.descriptor(token, &self.socket, Interest::Readable);
        }
    }

    fn reset(&mut self, _io: &mut Io) {}
}

fn serve_once(memory: &GuestMemory, io_thread: &IoThread) {
    let (device, _other) = Device::new();
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), io_thread).expect("a transport"));
    let mut queue = DriverQueue::new(memory, GuestAddress(0x1000), 16);
    driver.bring_up(driver.offered(), &[&queue]);
    queue.offer(&[Buffer::writable(0x8000, 1)]);
    driver.kick(0);
    assert_eq!(driver.wait_used(&mut queue), (0, 1));
}

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("the folder is readable").count()
}

#[test]
fn a_thousand_devices_leave_no_descriptor_and_no_thread() {
    let memory = patterned_memory(1 << 20);
    let shared = IoThread::new("shared").expect("a thread");
    serve_once(&memory, &shared);
    let (descriptors, threads) = (count("fd"), count("task"));
    for round in 0..1000 {
        let own = if round % 2 == 0 { None } else { Some(IoThread::new("own").expect("a thread")) };
        serve_once(&memory, own.as_ref().unwrap_or(&shared));
    }
    // The shared thread may still be on its way out of the last handler; joining it makes the count exact.
    drop(shared);
    assert_eq!((count("fd"), count("task")), (descriptors - 2, threads - 1));
}

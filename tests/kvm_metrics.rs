//! What a VM counts is what its guest did: guests of a few instructions that do a known number of everything.

mod support;

use std::time::{Duration, Instant};

use support::{Kernel, Transcript, tiny};
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::{DeviceKindMetrics, Disk, Exit, IoThread, Metrics, Vm, openmetrics};

/// The registers of the first device (virtio 1.2, section 4.2.2).
const DEVICE: u32 = 0xd000_0000;
const QUEUE_NOTIFY: u32 = DEVICE + 0x50;
/// Where the guest has its queue, its requests, and their data.
const TABLE: u32 = 0x20_0000;
const AVAIL: u32 = 0x20_1000;
const USED: u32 = 0x20_2000;
const HEADER: u32 = 0x20_3000;
const STATUS: u32 = 0x20_4000;
const DATA: u32 = 0x20_5000;

/// Writes a guest's instructions, one after the other.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    fn at(&mut self, address: u32) {
        self.0.push(0xbb); // mov ebx, address
        self.0.extend(address.to_le_bytes());
    }

    fn store(&mut self, address: u32, value: u32) {
        self.at(address);
        self.0.push(0xb8); // mov eax, value
        self.0.extend(value.to_le_bytes());
        self.0.extend([0x89, 0x03]); // mov [rbx], eax
    }

    fn load(&mut self, address: u32) {
        self.at(address);
        self.0.extend([0x8b, 0x03]); // mov eax, [rbx]
    }

    /// Waits until the 16 bits at an address have a value.
    fn wait(&mut self, address: u32, value: u16) {
        self.at(address);
        self.0.extend([0x66, 0x8b, 0x03, 0x66, 0x3d]); // mov ax, [rbx]; cmp ax, value
        self.0.extend(value.to_le_bytes());
        self.0.extend([0x75, 0xf7]); // jne to the mov
    }

    fn input(&mut self, port: u16) {
        self.0.extend([0x66, 0xba]); // mov dx, port
        self.0.extend(port.to_le_bytes());
        self.0.push(0xec); // in al, dx
    }

    fn output(&mut self, port: u16, value: u8) {
        self.0.extend([0x66, 0xba]); // mov dx, port
        self.0.extend(port.to_le_bytes());
        self.0.extend([0xb0, value, 0xee]); // mov al, value; out dx, al
    }

    /// Brings the first device up; returns by how many stores to its registers.
    fn bring_up(&mut self) -> u64 {
        let steps = [
            (0x70, 1), // acknowledge
            (0x70, 3), // there is a driver
            (0x24, 1), // the upper features
            (0x20, 1), // VERSION_1
            (0x70, 11),
            (0x30, 0), // the first queue
            (0x38, 8), // of 8 descriptors
            (0x80, TABLE),
            (0x84, 0),
            (0x90, AVAIL),
            (0x94, 0),
            (0xa0, USED),
            (0xa4, 0),
            (0x44, 1),
            (0x70, 15),
        ];
        steps.iter().for_each(|(register, value)| self.store(DEVICE + register, *value));
        steps.len() as u64
    }

    fn descriptor(&mut self, index: u32, address: u32, len: u32, flags: u32, next: u32) {
        let at = TABLE + index * 16;
        [address, 0, len, flags | next << 16].into_iter().zip(0..).for_each(|(word, i)| self.store(at + i * 4, word));
    }

    /// Sends request number `number`, from 1 on, and waits until it is done.
    fn request(&mut self, number: u16, kind: u32, data_len: u32) {
        const NEXT: u32 = 1;
        const WRITE: u32 = 2;
        [kind, 0, 0, 0].into_iter().zip(0..).for_each(|(word, i)| self.store(HEADER + i * 4, word));
        self.descriptor(0, HEADER, 16, NEXT, if data_len > 0 { 1 } else { 2 });
        self.descriptor(1, DATA, data_len, NEXT | if kind == 0 { WRITE } else { 0 }, 2);
        self.descriptor(2, STATUS, 1, WRITE, 0);
        // The flags and the index; all entries of the ring are head 0.
        self.store(AVAIL, u32::from(number) << 16);
        self.store(QUEUE_NOTIFY, 0);
        self.wait(USED + 2, number);
    }

    fn power_off(mut self) -> TinyGuest {
        self.output(0x600, 0x34);
        self.0.extend([0xeb, 0xfe]);
        TinyGuest::new(self.0)
    }
}

fn ended(vm: &Vm) -> Metrics {
    vm.start().unwrap();
    assert!(matches!(vm.wait_timeout(Duration::from_secs(30)).unwrap(), Exit::Shutdown));
    vm.metrics()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_s_exits_requests_and_bytes_are_counted_one_by_one() {
    let mut code = Code::default();
    let mut stores = code.bring_up();
    (0..5).for_each(|_| code.load(DEVICE));
    (0..3).for_each(|_| code.input(0x3fd));
    code.request(1, 0, 512);
    code.request(2, 0, 1024);
    code.request(3, 1, 2048);
    code.request(4, 4, 0);
    code.request(5, 77, 0);
    // A doorbell of a queue that is not there leaves the guest.
    (0..4).for_each(|_| code.store(QUEUE_NOTIFY, 9));
    stores += 4;
    "hello".bytes().for_each(|byte| code.output(0x3f8, byte));
    let kernel = Kernel::new(&code.power_off());
    let transcript = Transcript::default();
    let vm = tiny(&kernel)
        .name("counted")
        .disk(Disk::from_file(memory_disk(4096)).unwrap())
        .console(transcript.console())
        .build()
        .unwrap();
    let before = vm.metrics();
    assert_eq!((before.vcpus.len(), before.vcpus[0].cpu_time, before.devices.len()), (1, Duration::ZERO, 1));
    let metrics = ended(&vm);
    let exits = metrics.vcpus[0].exits;
    assert_eq!((exits.mmio_write, exits.mmio_read, exits.pio_read, exits.pio_write), (stores, 5, 3, 5 + 1));
    assert_eq!((exits.shutdown, exits.other), (0, 0));
    assert!(metrics.vcpus[0].cpu_time > Duration::ZERO);
    assert_eq!(metrics.vcpus, vm.metrics().vcpus, "a thread that has ended stays as it is");
    let device = &metrics.devices[0];
    assert_eq!((device.name.as_str(), device.transport.chains, device.transport.refused_chains), ("disk0", 5, 0));
    assert!((1..=5).contains(&device.transport.doorbells) && (1..=5).contains(&device.transport.interrupts));
    let DeviceKindMetrics::Disk(disk) = &device.kind else { panic!("{device:?}") };
    assert_eq!((disk.reads, disk.writes, disk.flushes, disk.refused, disk.errors), (2, 1, 1, 1, 0));
    assert_eq!((disk.read_bytes, disk.written_bytes), (1536, 2048));
    assert!(disk.engine == "uring" || disk.engine == "sync" && disk.fallback.is_some(), "{disk:?}");
    assert_eq!((metrics.console.output_bytes, metrics.console.dropped_bytes), (5, 0));
    let [thread] = metrics.io_threads.as_slice() else { panic!("{:?}", metrics.io_threads) };
    assert!(thread.is_own && thread.turns > 0 && thread.cpu_time > Duration::ZERO, "{thread:?}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vcpu_s_run_time_goes_on_while_it_runs_and_stands_while_it_is_paused() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let vm = tiny(&kernel).vcpus(2).build().unwrap();
    vm.measure_turns();
    vm.start().unwrap();
    let begun = Instant::now();
    while vm.metrics().vcpus[0].cpu_time < Duration::from_millis(20) {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    vm.pause().unwrap();
    let paused = vm.metrics();
    std::thread::sleep(Duration::from_millis(50));
    let after = vm.metrics();
    let grown = after.vcpus[0].cpu_time - paused.vcpus[0].cpu_time;
    assert!(grown < Duration::from_millis(5), "{grown:?} while nothing ran");
    assert!(after.vcpus[0].exits.interrupted > 0, "a pause interrupts the guest");
    assert_eq!(after.io_threads[0].longest_turn.map(|turn| turn < Duration::from_secs(1)), Some(true));
    vm.stop().unwrap();
    assert_eq!(vm.metrics().vcpus.len(), 2);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_thread_that_two_vms_share_stands_once_in_their_text_and_typed_bytes_are_counted() {
    let kernel = Kernel::new(&TinyGuest::echo());
    let shared = IoThread::new("shared").unwrap();
    let transcript = Transcript::default();
    let build = |name| {
        let vm = tiny(&kernel).name(name).io_thread(shared.clone()).console(transcript.console()).build().unwrap();
        vm.start().unwrap();
        vm
    };
    let vms = [build("a"), build("b")];
    assert_eq!(vms[0].write_console(b"xyz"), 3);
    transcript.expect("xyz", Duration::from_secs(30));
    let metrics = [vms[0].metrics(), vms[1].metrics()];
    assert_eq!((metrics[0].console.input_bytes, metrics[1].console.input_bytes), (3, 0));
    assert_eq!(metrics[0].console.output_bytes, 3);
    let text = openmetrics(&metrics);
    assert_eq!(text.matches("vmcell_io_thread_turns_total{thread=\"shared\"}").count(), 1, "{text}");
    assert!(text.contains("vmcell_console_bytes_total{vm=\"a\",direction=\"input\"} 3\n"), "{text}");
}

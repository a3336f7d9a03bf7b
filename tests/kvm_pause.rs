//! A pause while a request is in flight that takes long, whatever the guest made so large.

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{BRING_UP, DEVICE, Kernel, Transcript, stores, tiny};
use vmcell::block::{DiskBackend, DiskInfo, Done, Operation, Tag};
use vmcell::event::{Event, Io, Token, Wants};
use vmcell::testing::TinyGuest;
use vmcell::{Disk, ErrorKind, Exit, Status};

const LONG: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_millis(50);
/// Buffers of the guest's one request, all in one place.
const BUFFERS: u32 = 6;
const BUFFER_BYTES: u32 = 8 << 20;

/// Needs a while for each operation, and fills what is read with a byte.
struct Slow {
    token: Option<Token>,
    busy: VecDeque<(Instant, Tag, Operation)>,
    begun: Arc<AtomicUsize>,
}

const EACH: Duration = Duration::from_millis(2);

impl DiskBackend for Slow {
    fn info(&self) -> DiskInfo {
        DiskInfo::new(u64::from(BUFFERS * BUFFER_BYTES))
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        self.token = Some(io.token());
        Ok(())
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, mut operation: Operation) -> Result<(), Operation> {
        if let Operation::Read { into, .. } = &mut operation {
            into.copy_in(0, &vec![7; into.len() as usize]).expect("it is as long as that");
        }
        self.busy.push_back((Instant::now() + EACH, tag, operation));
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        let (_, tag, operation) = self.busy.pop_front_if(|(at, ..)| *at <= Instant::now())?;
        Some(Done::new(tag, operation, Ok(())))
    }

    fn wants(&self, wants: &mut Wants) {
        if let (Some((at, ..)), Some(token)) = (self.busy.front(), self.token) {
            wants.deadline(token, *at);
        }
    }

    fn woken(&mut self, _io: &mut Io, _event: &Event) {}
}

/// Reads 48 MiB by one request, prints the status of that and the last byte that was read as digits, and resets itself.
fn reads_much() -> TinyGuest {
    const TABLE: u32 = 0x20_0000;
    const HEADER: u32 = 0x20_3000;
    const STATUS: u32 = 0x20_3100;
    const DATA: u32 = 0x40_0000;
    let descriptor = |index: u32, address: u32, len: u32, flags: u32| {
        let at = TABLE + 16 * index;
        [(at, address), (at + 4, 0), (at + 8, len), (at + 12, flags | (index + 1) << 16)]
    };
    let mut steps: Vec<(u32, u32)> = (0..4).map(|word| (HEADER + 4 * word, 0)).collect();
    steps.extend(descriptor(0, HEADER, 16, 1));
    (1..=BUFFERS).for_each(|index| steps.extend(descriptor(index, DATA, BUFFER_BYTES, 3)));
    steps.extend(descriptor(BUFFERS + 1, STATUS, 1, 2));
    steps.extend([(STATUS, 0xff), (0x20_2000, 0)]);
    steps.extend(BRING_UP);
    steps.extend([(0x20_1004, 0), (0x20_1000, 1 << 16), (DEVICE + 0x50, 0)]);
    let mut code = stores(&steps);
    // Until the index of the used ring is 1: mov ebx, ring; mov eax, [rbx]; shr eax, 16; jz to the first mov of them.
    code.extend([0xbb, 0x00, 0x20, 0x20, 0x00, 0x8b, 0x03, 0xc1, 0xe8, 0x10, 0x74, 0xf9]);
    for address in [STATUS, DATA + BUFFER_BYTES - 1] {
        code.push(0xbb); // mov ebx, address
        code.extend(address.to_le_bytes());
        code.extend([0x8a, 0x03, 0x04, b'0']); // mov al, [rbx]; add al, '0'
        code.extend([0x66, 0xba, 0xf8, 0x03, 0xee]); // mov dx, 0x3f8; out dx, al
    }
    code.extend([0x66, 0xba, 0x02, 0x06, 0xb0, 0x01, 0xee, 0xeb, 0xfe]); // ACPI's reset register
    TinyGuest::new(code)
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_pause_that_a_huge_request_holds_up_names_the_disk_in_time_and_the_vm_goes_on_as_if_nothing_was() {
    let (kernel, transcript, begun) =
        (Kernel::new(&reads_much()), Transcript::default(), Arc::<AtomicUsize>::default());
    let slow = Slow { token: None, busy: VecDeque::new(), begun: Arc::clone(&begun) };
    let quick = Disk::from_file(vmcell::testing::memory_disk(4096)).unwrap();
    let builder = tiny(&kernel).console(transcript.console()).disk(Disk::backend(slow)).disk(quick);
    let vm = builder.build().unwrap();
    vm.start().unwrap();
    let started = Instant::now();
    while begun.load(Ordering::SeqCst) == 0 {
        assert!(started.elapsed() < LONG, "the guest asks for nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..3 {
        let before = Instant::now();
        let error = vm.pause_within(LIMIT).unwrap_err();
        let took = before.elapsed();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().starts_with("disk 0 (on a backend): "), "{error}");
        // Loaded hosts included; the request takes longer than all three.
        assert!((LIMIT..Duration::from_secs(5)).contains(&took), "{took:?}");
        assert_eq!(vm.status(), Status::Running);
    }
    // One that may take as long as it likes succeeds, in the middle of the guest's wait for its request or behind it.
    vm.pause_within(LONG).unwrap();
    vm.resume().unwrap();
    assert!(matches!(vm.wait_timeout(LONG), Ok(Exit::Reset(_))));
    assert_eq!(transcript.text(), "07", "the request has succeeded, and all of it was read");
    assert_eq!(vm.device_failures(), []);
    let metrics = vm.metrics();
    assert_eq!(metrics.devices[0].transport.chains, 1);
}

/// Keeps its only chain for as long as it is told to.
struct Held(Arc<AtomicUsize>, Option<vmcell::virtio::Chain>);

impl vmcell::virtio::VirtioDevice for Held {
    fn info(&self) -> vmcell::virtio::DeviceInfo {
        vmcell::virtio::DeviceInfo::new(42, &[8])
    }

    fn activate(&mut self, _io: &mut Io, _activation: vmcell::virtio::Activation) -> vmcell::Result<()> {
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut vmcell::virtio::Queues, index: u16) -> vmcell::Result<()> {
        if self.1.is_none() {
            self.1 = queues.get(index).map_or(Ok(None), |queue| queue.pop(io))?;
        }
        Ok(())
    }

    fn wants(&self, wants: &mut Wants) {
        wants.again();
    }

    fn woken(&mut self, _io: &mut Io, _queues: &mut vmcell::virtio::Queues, _event: &Event) -> vmcell::Result<()> {
        if self.0.load(Ordering::SeqCst) == 2 {
            self.1 = None;
        }
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {
        // The chain stays: what it leads to is still written to, as far as the transport knows.
        let _ = self.0.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_pause_that_a_reset_holds_up_names_the_device() {
    let mut steps: Vec<(u32, u32)> = vec![(0x20_0000, 0x40_0000), (0x20_0004, 0), (0x20_0008, 16), (0x20_000c, 2)];
    steps.extend(BRING_UP);
    steps.extend([(0x20_1004, 0), (0x20_1000, 1 << 16), (DEVICE + 0x50, 0)]);
    let mut code = stores(&steps);
    code.extend([0xb9, 0x00, 0x00, 0x20, 0x00, 0xff, 0xc9, 0x75, 0xfc]); // mov ecx, 0x200000; dec ecx; jnz to it
    code.extend(stores(&[(DEVICE + 0x70, 0)]));
    code.extend([0x66, 0xba, 0x02, 0x06, 0xb0, 0x01, 0xee, 0xeb, 0xfe]); // ACPI's reset register
    let (kernel, stage) = (Kernel::new(&TinyGuest::new(code)), Arc::<AtomicUsize>::default());
    let vm = tiny(&kernel).device(Box::new(Held(Arc::clone(&stage), None))).build().unwrap();
    vm.start().unwrap();
    let started = Instant::now();
    while stage.load(Ordering::SeqCst) == 0 {
        assert!(started.elapsed() < LONG, "the guest resets nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = vm.pause_within(LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().starts_with("device 0 of your own: 1 vCPU"), "{error}");
    assert_eq!(vm.status(), Status::Running);
    stage.store(2, Ordering::SeqCst);
    assert!(matches!(vm.wait_timeout(LONG), Ok(Exit::Reset(_))));
}

//! What the tests that run guests share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod counts;
pub mod ffi;
pub mod linux;
pub mod memory;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmcell::testing::TinyGuest;
use vmcell::{Boot, Console, Seccomp, VmBuilder};

/// A tiny guest in a file that lasts as long as this.
pub struct Kernel {
    _directory: TempDir,
    pub path: PathBuf,
}

impl Kernel {
    pub fn new(guest: &TinyGuest) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("guest");
        guest.write_to(&path).expect("the guest's image is written");
        Self { _directory: directory, path }
    }

    pub fn boot(&self) -> Boot {
        Boot::linux(&self.path)
    }
}

/// Whether tests are to be put under more load: `cargo xtask test --long`.
pub fn is_long() -> bool {
    std::env::var_os("VMCELL_LONG").is_some_and(|value| value == "1")
}

/// A builder for a VM with 16 MiB that runs `kernel`. Its threads may do no more than they must: a call that the list has not ends the test.
pub fn tiny(kernel: &Kernel) -> VmBuilder {
    vmcell::Vm::builder().memory_mib(16).boot(kernel.boot()).seccomp(Seccomp::Kill)
}

/// Collects what a guest prints, and waits for it.
#[derive(Clone, Default)]
pub struct Transcript(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Transcript {
    pub fn console(&self) -> Console {
        let transcript = self.clone();
        Console::callback(move |bytes| transcript.push(bytes))
    }

    pub fn push(&self, bytes: &[u8]) {
        self.0.0.lock().expect("the lock is whole").extend(bytes);
        self.0.1.notify_all();
    }

    pub fn len(&self) -> usize {
        self.0.0.lock().expect("the lock is whole").len()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().expect("the lock is whole")).into_owned()
    }

    /// Waits until the text holds `wanted`; panics with the whole text when it does not come.
    pub fn expect(&self, wanted: &str, limit: Duration) {
        assert!(self.wait_until(limit, |text| text.contains(wanted)), "no {wanted:?} in:\n{}", self.text());
    }

    pub fn wait_until(&self, limit: Duration, done: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut bytes = self.0.0.lock().expect("the lock is whole");
        while !done(&String::from_utf8_lossy(&bytes)) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            bytes = self.0.1.wait_timeout(bytes, left).expect("the lock is whole").0;
        }
        true
    }
}

/// How many threads, descriptors and mappings this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    pub threads: usize,
    pub descriptors: usize,
    pub mappings: usize,
}

impl Footprint {
    pub fn now() -> Self {
        let entries = |path| std::fs::read_dir(path).expect("/proc is there").count();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
        // The allocator's arenas come and go with threads; what a VM maps is guest memory, KVM's pages, and stacks.
        let mappings = maps.lines().filter(|line| line.contains("kvm-vcpu") || line.contains("memfd")).count();
        Self { threads: entries("/proc/self/task"), descriptors: entries("/proc/self/fd"), mappings }
    }
}

/// The launcher that was built beside this test program, or the one that the environment names.
pub fn launcher() -> std::process::Command {
    let built = || {
        let own = std::env::current_exe().expect("this program has a path");
        let target = own.parent().and_then(std::path::Path::parent).expect("a target directory");
        target.join("examples/launch")
    };
    std::process::Command::new(std::env::var_os("VMCELL_LAUNCH").map_or_else(built, PathBuf::from))
}

/// Builds an example as this test program was built.
pub fn built_example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let profile = own.ancestors().nth(2).expect("a folder of a profile");
    let mut cargo = std::process::Command::new(env!("CARGO"));
    // With the features of the whole workspace, as the tests have them, so that what is common is not built again.
    cargo
        .args(["build", "--quiet", "--locked", "--workspace", "--example", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.arg("--target-dir").arg(profile.parent().expect("a target directory"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo starts").success(), "{name} was not built");
    profile.join("examples").join(name)
}

/// Brings the first device up with a queue that leads to no RAM but for its rings, and rings for it, then waits for ever.
pub fn bring_up() -> TinyGuest {
    let mut code = stores(&BRING_UP);
    code.extend(stores(&[(DEVICE + 0x50, 0)]));
    code.extend([0xeb, 0xfe]);
    TinyGuest::new(code)
}

/// Brings the first device up and breaks its queue, again and again for ever: the index of its available ring jumps.
pub fn break_queues() -> TinyGuest {
    let mut code = stores(&[(DEVICE + 0x70, 0)]);
    code.extend(stores(&BRING_UP));
    code.extend(stores(&[(AVAIL_RING, 1000 << 16), (DEVICE + 0x50, 0)]));
    // Until the status says that the device needs a reset: mov ebx, status; test byte [rbx], 0x40; jz to it.
    code.push(0xbb);
    code.extend((DEVICE + 0x70).to_le_bytes());
    code.extend([0x8b, 0x03, 0xa8, 0x40, 0x74, 0xfa]); // mov eax, [rbx]; test al, 0x40; jz to the mov
    code.push(0xe9); // jmp to the start
    let back = -i32::try_from(code.len() + 4).expect("a short guest");
    code.extend(back.to_le_bytes());
    TinyGuest::new(code)
}

pub const DEVICE: u32 = 0xd000_0000;
const AVAIL_RING: u32 = 0x20_1000;

/// Up to DRIVER_OK, with a queue of 8.
pub const BRING_UP: [(u32, u32); 13] = [
    (DEVICE + 0x70, 1),
    (DEVICE + 0x70, 3),
    (DEVICE + 0x24, 1),
    (DEVICE + 0x20, 1),
    (DEVICE + 0x70, 11),
    (DEVICE + 0x30, 0),
    (DEVICE + 0x38, 8),
    (DEVICE + 0x80, 0x20_0000),
    (DEVICE + 0x90, AVAIL_RING),
    (DEVICE + 0xa0, 0x20_2000),
    (AVAIL_RING, 0),
    (DEVICE + 0x44, 1),
    (DEVICE + 0x70, 15),
];

/// Code that writes values of 32 bits to addresses.
pub fn stores(steps: &[(u32, u32)]) -> Vec<u8> {
    let mut code = Vec::new();
    for (address, value) in steps {
        code.push(0xbb); // mov ebx, address
        code.extend(address.to_le_bytes());
        code.push(0xb8); // mov eax, value
        code.extend(value.to_le_bytes());
        code.extend([0x89, 0x03]); // mov [rbx], eax
    }
    code
}

//! What the tests that run guests share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod ffi;
pub mod linux;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmcell::testing::TinyGuest;
use vmcell::{Boot, Console, VmBuilder};

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

/// A builder for a VM with 16 MiB that runs `kernel`.
pub fn tiny(kernel: &Kernel) -> VmBuilder {
    vmcell::Vm::builder().memory_mib(16).boot(kernel.boot())
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

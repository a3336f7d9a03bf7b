//! The two guests: the bad one that runs a case, and its good neighbour on the same I/O thread.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use vmcell::testing::memory_disk;
use vmcell::{Boot, Console, Discovery, Disk, IoThread, MemoryBacking, MemoryConfig, Seccomp, Vm, VmBuilder};

use super::host::tsc_khz;
use crate::support::Transcript;

/// For anything that only a broken guest does not do at once.
const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
/// The guests' programs are written for this much.
const MEMORY_MIB: u64 = 32;
const SECTOR: u64 = 512;
const NEIGHBOUR_DISK: u64 = MIB;

/// The guests' program in a file.
pub struct Program {
    _directory: TempDir,
    path: PathBuf,
}

impl Program {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("guest");
        std::fs::write(&path, vmcell_test_guests::GUEST).expect("the guest's image is written");
        Self { _directory: directory, path }
    }

    /// A VM that plays the part of this name, and where its words go.
    pub fn vm(&self, case: &str, more: &str, io_thread: &IoThread) -> (VmBuilder, Transcript) {
        let transcript = Transcript::default();
        let cmdline = format!("case={case} tsc_khz={} {more}", tsc_khz());
        let boot = Boot::linux(&self.path).cmdline(cmdline.trim_end()).discovery(Discovery::Cmdline);
        // On a file, so that it is not counted among what the monitor has of its own.
        let memory = MemoryConfig::mib(MEMORY_MIB).backing(MemoryBacking::Memfd);
        let builder = Vm::builder()
            .memory(memory)
            .boot(boot)
            .console(console(&transcript))
            .io_thread(io_thread.clone())
            .seccomp(Seccomp::Kill);
        (builder, transcript)
    }
}

/// Keeps what a guest prints, but for escape characters: a flood of them is for the monitor to cope with, not for the test.
fn console(transcript: &Transcript) -> Console {
    let transcript = transcript.clone();
    Console::callback(move |bytes| {
        let kept: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0x1b).collect();
        if !kept.is_empty() {
            transcript.push(&kept);
        }
    })
}

/// A guest that minds its own business.
pub struct Neighbour {
    vm: Vm,
    transcript: Transcript,
    told: usize,
    _disk: File,
}

/// How a neighbour fared since its record began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    pub done: u64,
    pub wrong: u64,
    pub worst: Duration,
    pub within: Duration,
}

impl Neighbour {
    pub fn start(program: &Program, io_thread: &IoThread) -> Self {
        let disk = memory_disk(NEIGHBOUR_DISK);
        for sector in 0..NEIGHBOUR_DISK / SECTOR {
            disk.write_all_at(&sector.to_le_bytes(), sector * SECTOR).expect("the disk takes a sector");
        }
        let (builder, transcript) = program.vm("neighbour", "", io_thread);
        let given = Disk::from_file(disk.try_clone().expect("the host gives descriptors")).expect("a disk");
        let vm = builder.disk(given).build().expect("the neighbour is built");
        vm.start().expect("the neighbour starts");
        transcript.expect("ready", SOON);
        Self { vm, transcript, told: 0, _disk: disk }
    }

    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Begins a new record.
    pub fn begin(&self) {
        self.command(b'r');
    }

    /// The record so far.
    pub fn pace(&mut self) -> Pace {
        self.told += 1;
        let told = self.told;
        self.command(b'p');
        let lines = |text: &str| text.lines().filter(|line| line.starts_with("pace ")).count();
        let complete = |text: &str| text.ends_with('\n') && lines(text) >= told;
        assert!(self.transcript.wait_until(SOON, complete), "the neighbour is silent:\n{}", self.transcript.text());
        parse(self.transcript.text().lines().rfind(|line| line.starts_with("pace ")).unwrap_or_default())
    }

    pub fn rest(&self) {
        self.command(b's');
    }

    pub fn go_on(&self) {
        self.command(b'g');
    }

    fn command(&self, command: u8) {
        assert_eq!(self.vm.write_console(&[command]), 1, "the neighbour reads no commands");
    }
}

fn parse(line: &str) -> Pace {
    let fields: HashMap<&str, u64> = line
        .split(' ')
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key, value.parse().expect("a number")))
        .collect();
    let time = |key| Duration::from_micros(fields[key]);
    Pace { done: fields["done"], wrong: fields["wrong"], worst: time("worst_us"), within: time("in_us") }
}

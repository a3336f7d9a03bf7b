//! A guest's memory before its first instruction, and the images that are loaded into it.

pub mod bzimage;
pub mod cmdline;
pub mod elf;
pub mod initrd;
pub mod pvh;

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use vmcell::testing::rooms;
use vmcell::{Boot, Error, ErrorKind, GuestAddress, GuestMemory};

use crate::alloc::Meter;
use crate::clock::within;
use crate::world::PATTERN;

/// The guest has so much RAM.
pub const RAM: u64 = 2 << 20;
/// The first byte that an image may occupy.
pub const HIGH: u64 = 1 << 20;
/// The first byte that no RAM below 4 GiB may occupy.
pub const GAP: u64 = 0xc000_0000;
/// Where a boot loader leaves what it made itself: structures, the command line, tables.
const OWN: [Range<u64>; 4] = [0x500..0x600, 0x6000..0xf000, 0x2_0000..0x3_0000, 0xe_0000..0x10_0000];
/// What loading may take beside as many bytes as the images have.
const MOST_HELD: i64 = 64 << 10;
/// How long an image of some KiB may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A file without a name, for one image after another.
pub struct Image(File);

impl Image {
    /// An empty one.
    ///
    /// # Panics
    /// If the host has no memory for it.
    #[must_use]
    pub fn new() -> Self {
        Self(memfd_create("image", MemfdFlags::CLOEXEC).expect("the host has memory for a file").into())
    }

    /// Makes these bytes its content. Each page of zeros becomes a hole.
    ///
    /// # Panics
    /// If the host has no memory for it.
    pub fn set(&self, bytes: &[u8]) {
        self.set_sparse(bytes.len() as u64, &[]);
        for (at, page) in (0..).step_by(4096).zip(bytes.chunks(4096)) {
            if page.iter().any(|byte| *byte != 0) {
                self.0.write_all_at(page, at).expect("the host has memory for a file");
            }
        }
    }

    /// Makes its content zeros, but for some parts.
    ///
    /// # Panics
    /// If the host has no memory for it.
    pub fn set_sparse(&self, len: u64, parts: &[(u64, &[u8])]) {
        self.0.set_len(0).expect("it is a file");
        self.0.set_len(len).expect("it is a file");
        for (at, bytes) in parts {
            self.0.write_all_at(bytes, *at).expect("the host has memory for a file");
        }
    }

    /// By which it can be opened.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

/// A kernel in memory, as a model says.
pub struct Kernel<'a> {
    pub entry: u64,
    /// What it has in the file, by guest address.
    pub parts: Vec<(u64, &'a [u8])>,
}

/// A guest that only ever gets kernels.
struct Machine {
    memory: GuestMemory,
    image: Image,
    found: Vec<u8>,
    /// Between two images this is the pattern, as is the memory.
    expected: Vec<u8>,
}

thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::new(Machine::new());
}

/// Loads `bytes` as a kernel. It must become what the model says, or be refused without a byte written if that says nothing.
///
/// # Panics
/// If it is not so.
pub fn check_kernel(bytes: &[u8], boot: impl FnOnce(Boot) -> Boot, expected: Option<&Kernel<'_>>) {
    MACHINE.with_borrow_mut(|machine| machine.check(bytes, boot, expected));
}

impl Machine {
    fn new() -> Self {
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), RAM)]).expect("the host provides the memory");
        let pattern = vec![PATTERN; RAM as usize];
        memory.write(GuestAddress(0), &pattern).expect("the pattern is as long as the memory");
        Self { memory, image: Image::new(), found: pattern.clone(), expected: pattern }
    }

    fn check(&mut self, bytes: &[u8], boot: impl FnOnce(Boot) -> Boot, expected: Option<&Kernel<'_>>) {
        self.image.set(bytes);
        let boot = boot(Boot::linux(self.image.path()));
        let result = load(&self.memory, &boot, 1, 0, bytes.len() as u64);
        self.memory.read(GuestAddress(0), &mut self.found).expect("the copy is as long as the memory");
        match (result, expected) {
            (Ok(entry), Some(kernel)) => {
                assert_eq!(entry, kernel.entry, "the entry point");
                self.check_memory(kernel);
            }
            (Err(error), None) => {
                check_refusal(&error);
                assert!(self.found == self.expected, "an image that is refused was written to memory: {error}");
            }
            (Ok(entry), None) => panic!("an image was loaded, to be entered at {entry:#x}, and should be refused"),
            (Err(error), Some(_)) => panic!("an image was refused, and should be loaded: {error}"),
        }
    }

    fn check_memory(&mut self, kernel: &Kernel<'_>) {
        for range in OWN.map(index) {
            self.expected[range.clone()].copy_from_slice(&self.found[range]);
        }
        for (gpa, bytes) in &kernel.parts {
            let range = index(*gpa..*gpa + bytes.len() as u64);
            let places = self.expected[range.clone()].iter_mut().zip(&self.found[range]);
            for ((expected, found), byte) in places.zip(*bytes) {
                // A hole of the file is left out, since memory is zeros before, but not here.
                *expected = if *byte == 0 && *found == PATTERN { PATTERN } else { *byte };
            }
        }
        if self.expected != self.found {
            let mut bytes = self.expected.iter().zip(&self.found);
            let at = bytes.position(|(expected, found)| expected != found).expect("they differ");
            panic!("gpa {at:#x} holds {:#x}, and should hold {:#x}", self.found[at], self.expected[at]);
        }
        let parts = kernel.parts.iter().map(|(gpa, bytes)| *gpa..*gpa + bytes.len() as u64);
        for range in OWN.into_iter().chain(parts) {
            self.expected[index(range.clone())].fill(PATTERN);
            self.memory.write(GuestAddress(range.start), &self.expected[index(range)]).expect("it is RAM");
        }
    }
}

fn index(range: Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// Loads within bounds of memory and time, for images of so many bytes.
///
/// # Errors
/// What the loader says.
pub fn load(memory: &GuestMemory, boot: &Boot, vcpus: u32, devices: usize, len: u64) -> Result<u64, Error> {
    let mut meter = Meter::new(MOST_HELD + i64::try_from(len).unwrap_or(i64::MAX));
    within(PATIENCE, || meter.run(|| rooms::load(memory, boot, vcpus, devices))).map(|entry| entry.0)
}

/// An image is refused by a message for one line.
///
/// # Panics
/// If it is not so.
pub fn check_refusal(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::BootImage, "{error:?}");
    let text = error.to_string();
    assert!(!text.contains(char::is_control), "a message of several lines: {text:?}");
}

/// Reads numbers of an image; what lies past its end is none.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Some bytes.
    #[must_use]
    pub fn bytes(self, at: u64, len: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(at).ok()?;
        self.0.get(start..)?.get(..usize::try_from(len).ok()?)
    }

    fn array<const N: usize>(self, at: u64) -> Option<[u8; N]> {
        self.bytes(at, N as u64)?.try_into().ok()
    }

    /// 16 bits.
    #[must_use]
    pub fn half(self, at: u64) -> Option<u64> {
        self.array(at).map(|bytes| u16::from_le_bytes(bytes).into())
    }

    /// 32 bits.
    #[must_use]
    pub fn word(self, at: u64) -> Option<u64> {
        self.array(at).map(|bytes| u32::from_le_bytes(bytes).into())
    }

    /// 64 bits.
    #[must_use]
    pub fn long(self, at: u64) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

//! A file system with one file that is there, but whose storage never answers: reads, writes and flushes wait until it is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub const SIZE: u64 = 1 << 20;
const ROOT: u64 = 1;
const FILE: u64 = 2;
const GETATTR: u8 = 3;

/// Mounted until it is dropped. Then all that waits fails.
pub struct DeadStorage {
    directory: tempfile::TempDir,
    is_silent: Arc<AtomicBool>,
}

impl DeadStorage {
    /// `None` if the host does not let us mount it.
    pub fn mount() -> Option<Self> {
        let mut device = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let directory = tempfile::tempdir().ok()?;
        let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", options, "dead-storage"]).arg(directory.path());
        let mounted = mount.stdin(device.try_clone().ok()?).status().is_ok_and(|status| status.success());
        let is_silent = Arc::new(AtomicBool::new(false));
        let silenced = Arc::clone(&is_silent);
        // Until the connection ends. A child process of another test closes our files before it becomes its program, with this device
        // still open, and waits for our answer meanwhile.
        std::thread::spawn(move || {
            let mut request = vec![0; 1 << 20];
            while let Ok(len) = device.read(&mut request) {
                let is_answered =
                    request[4] != GETATTR || request[16] != FILE as u8 || !silenced.load(Ordering::SeqCst);
                if is_answered {
                    // Whoever asked may be gone.
                    let _ = answer(&mut device, &request[..len]);
                }
            }
        });
        mounted.then_some(Self { directory, is_silent })
    }

    /// From now on, it does not say either how large the file is.
    #[allow(dead_code, reason = "not every test that has this file needs it")]
    pub fn fall_silent(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }
}

impl Drop for DeadStorage {
    fn drop(&mut self) {
        // Ends the connection, and with it all that waits; then the mount.
        for how in ["-f", "-l"] {
            let _ = Command::new("umount").arg(how).arg(self.directory.path()).stderr(Stdio::null()).status();
        }
    }
}

/// Answers what is about names and attributes, and nothing about data.
fn answer(device: &mut File, request: &[u8]) -> io::Result<()> {
    let number = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
    let (operation, unique, node) = (request[4], number(8), number(16));
    let (error, body) = match operation {
        // LOOKUP
        1 => (0, [words(&[FILE, 0, 3600, 0, 0]), attributes(FILE)].concat()),
        // Those of the file are valid for no time, so that it is asked each time; `umount` asks for those of the root.
        GETATTR => (0, [words(&[if node == ROOT { 3600 } else { 0 }, 0]), attributes(node)].concat()),
        // OPEN, OPENDIR
        14 | 27 => (0, words(&[1, 0])),
        // STATFS
        17 => (0, words(&[0, 0, 0, 0, 0, 4096 | 255 << 32, 4096, 0, 0, 0])),
        // FLUSH, RELEASE, RELEASEDIR
        18 | 25 | 29 => (0, Vec::new()),
        // INIT: version 7.31, and writes of at most 128 KiB.
        26 => (0, words(&[7 | 31 << 32, 1 << 16, 1 << 49, 1, 0, 0, 0, 0])),
        // READ, WRITE, FSYNC: for ever; FORGET, BATCH_FORGET, INTERRUPT: no answer is wanted.
        2 | 15 | 16 | 20 | 36 | 42 => return Ok(()),
        // ENOSYS
        _ => (-38i32, Vec::new()),
    };
    let len = (16 + body.len()) as u64;
    let head = words(&[len | u64::from(error as u32) << 32, unique]);
    device.write_all(&[head, body].concat())
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn attributes(node: u64) -> Vec<u8> {
    let mode: u64 = if node == ROOT { 0o040_755 } else { 0o100_644 };
    // Number, size, blocks, three times with nanoseconds, mode with links, owner, device with block size, flags.
    words(&[node, SIZE, SIZE / 512, 0, 0, 0, 0, mode << 32, 1, 0, 4096])
}

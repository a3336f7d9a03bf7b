//! The guest of the benchmarks, with one card.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use vmcell::{Boot, Console, Discovery, IoThread, MemoryBacking, MemoryConfig, Nic, Result, Vm};

use super::failed;

const PATIENCE: Duration = Duration::from_secs(30);

/// A VM whose guest says what it has counted.
pub struct Guest {
    pub vm: Vm,
    printed: Receiver<Vec<u8>>,
    text: Vec<u8>,
}

/// What a guest has counted.
pub struct Told {
    pub done: f64,
    pub seconds: f64,
}

impl Told {
    pub fn a_second(&self) -> f64 {
        self.done / self.seconds
    }
}

impl Guest {
    /// Starts one that does this work, and waits until it is ready. Its I/O thread is one of its own.
    pub fn start(nic: Nic, work: &str) -> Result<Self> {
        Self::start_on(&IoThread::new("bench-io")?, nic, work)
    }

    /// As [`start`](Self::start), on an I/O thread that others may share.
    pub fn start_on(io_thread: &IoThread, nic: Nic, work: &str) -> Result<Self> {
        let image = std::env::var_os("VMCELL_GUEST").map(PathBuf::from);
        let image = image.ok_or_else(|| failed("VMCELL_GUEST names no guest: use cargo xtask bench network"))?;
        let rate = std::env::var("VMCELL_TSC_KHZ").map_err(failed)?;
        let (tell, printed) = channel();
        let vm = Vm::builder()
            .memory(MemoryConfig::mib(32).backing(MemoryBacking::Memfd))
            .boot(Boot::linux(image).discovery(Discovery::Cmdline).cmdline(format!("{work} tsc_khz={rate}")))
            .console(Console::callback(move |bytes| _ = tell.send(bytes.to_vec())))
            .nic(nic)
            .io_thread(io_thread.clone())
            .build()?;
        vm.start()?;
        let mut guest = Self { vm, printed, text: Vec::new() };
        guest.expect("ready")?;
        Ok(guest)
    }

    pub fn say(&self, byte: u8) {
        self.vm.write_console(&[byte]);
    }

    /// Waits for a line that begins with `word`, and returns the rest of it.
    pub fn expect(&mut self, word: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            while let Some(at) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=at).collect();
                let line = String::from_utf8_lossy(&line).trim().trim_start_matches('\u{2}').to_owned();
                if let Some(rest) = line.strip_prefix(word) {
                    return Ok(rest.to_owned());
                }
                if line.starts_with("fail") {
                    return Err(failed(format!("the guest says: {line}")));
                }
            }
            match self.printed.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.text.extend(bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(failed(format!("the guest did not say {word:?}")));
                }
            }
        }
    }

    /// Waits until it has counted.
    pub fn told(&mut self) -> Result<Told> {
        let rest = self.expect("end")?;
        let number = |key: &str| {
            let value = rest.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            value.and_then(|value| value.parse::<f64>().ok()).ok_or_else(|| failed(format!("no {key} in {rest:?}")))
        };
        if number("wrong")? > 0.0 {
            return Err(failed(format!("something went wrong: {rest}")));
        }
        Ok(Told { done: number("done")?, seconds: number("us")? / 1e6 })
    }
}

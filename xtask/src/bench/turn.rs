//! One benchmark at a time on a host: two would measure each other, and use one disk's file.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use crate::exec::{Context, Result};

/// A name without a file, which the kernel takes back however its owner ends.
const NAME: &str = "vmcell-bench";
const RETRY: Duration = Duration::from_millis(200);

/// Held while a benchmark runs.
pub struct Turn(#[expect(dead_code, reason = "held, never used")] UnixListener);

impl Turn {
    /// Waits until no other benchmark runs on this host.
    pub fn wait() -> Result<Self> {
        Self::wait_for(NAME)
    }

    fn wait_for(name: &str) -> Result<Self> {
        let address = SocketAddr::from_abstract_name(name).context(name)?;
        let mut told = false;
        loop {
            match UnixListener::bind_addr(&address) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                result => return result.map(Self).context("cannot wait for other benchmarks"),
            }
            if !told {
                eprintln!("bench: waiting for another benchmark on this host to end");
                told = true;
            }
            std::thread::sleep(RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_benchmark_waits_for_the_first() {
        let name = format!("vmcell-bench-test-{}", std::process::id());
        let first = Turn::wait_for(&name).unwrap();
        let second = std::thread::spawn({
            let name = name.clone();
            move || Turn::wait_for(&name).map(drop)
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap().unwrap();
    }
}

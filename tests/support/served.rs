//! The disk of a volume, which a thread of its own serves, as that of a VM.

#![allow(dead_code, reason = "not each test uses all of it")]

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use vmcell::volume::{Key, Volume, VolumeHandle};

use crate::plain::Plain;

pub const BLOCK: u64 = 4096;

pub fn key() -> Key {
    Key::random(&[7; 32]).unwrap()
}

type Call = Box<dyn FnOnce(&mut Plain) + Send>;

/// A disk that a thread of its own serves.
pub struct Served {
    pub handle: VolumeHandle,
    calls: Option<Sender<Call>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub fn open(path: &Path) -> Self {
        Self::on(Volume::open(path, &key()).unwrap())
    }

    pub fn on(volume: Volume) -> Self {
        let handle = volume.handle();
        let (calls, called): (_, Receiver<Call>) = channel();
        let serve = move || {
            let mut disk = Plain::new(volume.into_backend());
            loop {
                match called.recv_timeout(Duration::from_millis(1)) {
                    Ok(call) => call(&mut disk),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => disk.idle(),
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        Self { handle, calls: Some(calls), thread: Some(std::thread::spawn(serve)) }
    }

    pub fn call<T: Send + 'static>(&self, call: impl FnOnce(&mut Plain) -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let call: Call = Box::new(move |disk| _ = answer.send(call(disk)));
        self.calls.as_ref().unwrap().send(call).unwrap();
        answered.recv().expect("the disk works")
    }

    pub fn write(&self, block: u64, byte: u8) {
        self.call(move |disk| disk.write(block * BLOCK, &[byte; BLOCK as usize]).unwrap());
    }

    pub fn block(&self, number: u64) -> u8 {
        self.call(move |disk| block(disk, number))
    }

    pub fn flush(&self) {
        self.call(|disk| disk.flush().unwrap());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.calls = None;
        let _ = self.thread.take().unwrap().join();
    }
}

pub fn block(disk: &mut Plain, number: u64) -> u8 {
    let bytes = disk.read(number * BLOCK, BLOCK as usize).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {number} is torn");
    bytes[0]
}

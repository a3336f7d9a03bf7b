//! The bad guest's disk and network, and what the test does with them while the guest runs.

use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::{NamedTempFile, TempDir};
use vmcell::testing::memory_disk;
use vmcell::{BalloonConfig, Disk, Nic, RngConfig, VmBuilder, VsockConfig};

use super::case::{Host, Setup, Storage};
use crate::support::linux::{HostTap, host};

const MIB: u64 = 1 << 20;
/// So much of a disk is noise, if it is to be.
const NOISE: usize = 8 << 20;

const TAP: &str = "vmc-hostile";
const HOST_ADDRESS: &str = "10.78.0.1";
const GUEST_ADDRESS: &str = "10.78.0.2";
const MAC: [u8; 6] = [2, 0, 0, 0, 0x78, 2];
/// Nobody listens there.
const DISCARD_PORT: u16 = 9;

/// What is there before the guest is, and stays when it is gone.
pub struct Bench {
    disk: File,
    len: u64,
    _place: Place,
    tap: Option<HostTap>,
}

/// Where the disk's file is, until it is removed with this.
#[allow(dead_code, reason = "what is in it is for its end")]
enum Place {
    Memory,
    File(NamedTempFile),
    Mount(Mount),
}

/// A file system of its own that is unmounted with this.
struct Mount(TempDir);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

impl Bench {
    /// # Errors
    /// Why this host cannot run the case.
    pub fn new(setup: &Setup) -> Result<Self, String> {
        let len = setup.mib * MIB;
        let (disk, place) = match setup.storage {
            Storage::Memory => (memory_disk(len), Place::Memory),
            Storage::File => {
                let named = NamedTempFile::new().expect("a temporary file");
                (named.reopen().expect("the file is there"), Place::File(named))
            }
            Storage::Small => small().map(|(disk, mount)| (disk, Place::Mount(mount)))?,
        };
        disk.set_len(len).expect("the file can be as large");
        if setup.noise {
            disk.write_all_at(&noise(), 0).expect("the disk takes noise");
        }
        let tap = if setup.nic { Some(tap(setup.pairs > 1)?) } else { None };
        Ok(Self { disk, len, _place: place, tap })
    }

    pub fn host(&self) -> Host<'_> {
        Host { disk: &self.disk, len: self.len, tap: self.tap.as_ref().map(|tap| tap.name.as_str()) }
    }

    /// Gives a VM its devices.
    pub fn furnish(&self, builder: VmBuilder, setup: &Setup) -> VmBuilder {
        let disk = self.disk.try_clone().expect("the host gives descriptors");
        let disk = Disk::from_file(disk).expect("a disk").read_only(setup.read_only).queues(setup.queues);
        let disk = disk.limits((setup.limits)());
        let builder = builder.disk(disk);
        let builder = if setup.rng { builder.rng(RngConfig::new()) } else { builder };
        let builder = if setup.balloon { builder.balloon(BalloonConfig::new()) } else { builder };
        let builder = if setup.vsock { builder.vsock(VsockConfig::new(3)) } else { builder };
        match &self.tap {
            None => builder,
            Some(tap) => {
                let nic = Nic::tap(&tap.name).expect("the TAP device is opened");
                builder.nic(nic.mac(MAC).queues(setup.pairs))
            }
        }
    }
}

impl Host<'_> {
    /// Looks whether the disk is as the guest hopes that it is not.
    pub fn look(&self, what: &str) {
        assert_eq!(self.disk.metadata().expect("the file is there").len(), self.len, "the file has another size");
        if what == "untouched" {
            let mut bytes = [0; 4096];
            self.disk.read_exact_at(&mut bytes, 0).expect("the disk is read");
            assert!(bytes == [0; 4096], "the disk was written to");
        }
    }

    /// Deletes the card's device.
    pub fn take_card_away(&self) {
        host("ip", &["link", "delete", "dev", self.tap.expect("the case has a card")]);
    }

    /// Sends datagrams: `send COUNT LENGTH`.
    pub fn send(&self, what: &str) {
        let numbers: Vec<usize> = what.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [count, len] = numbers[..] else { panic!("the guest asks for {what:?}") };
        let socket = UdpSocket::bind((HOST_ADDRESS, 0)).expect("a socket");
        let payload = vec![b'.'; len];
        for _ in 0..count {
            // A queue that is full loses it, as any network may.
            let _ = socket.send_to(&payload, (GUEST_ADDRESS, DISCARD_PORT));
        }
    }
}

fn small() -> Result<(File, Mount), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root, to mount a small file system".into());
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_str().expect("a plain path").to_owned();
    host("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &path]);
    let disk = File::options().read(true).write(true).create_new(true).open(PathBuf::from(path).join("disk"));
    Ok((disk.expect("the file is made"), Mount(directory)))
}

/// A TAP device on which the host says nothing by itself, and knows where the guest is.
fn tap(several_queues: bool) -> Result<HostTap, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root, to make a TAP device".into());
    }
    if !PathBuf::from("/dev/net/tun").exists() {
        return Err("needs /dev/net/tun".into());
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Err("needs the program `ip`".into());
    }
    let address = format!("{HOST_ADDRESS}/24");
    let tap =
        if several_queues { HostTap::multi_queue(TAP, &address) } else { HostTap::new(TAP, Some(&address), 1500) };
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6"), "1");
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    host("ip", &["neigh", "replace", GUEST_ADDRESS, "lladdr", &mac, "dev", TAP, "nud", "permanent"]);
    Ok(tap)
}

/// Bytes without an order, the same each time.
fn noise() -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(NOISE).collect()
}

//! A stock Linux kernel as a guest: boots, runs a script as its init's child, powers off.
//!
//! The images are named by the environment, which `cargo xtask test` sets: `VMCELL_KERNEL` (bzImage), `VMCELL_KERNEL_ELF`
//! (the ELF image inside it), `VMCELL_KERNEL_PC` (the ELF image of a kernel that reads MP tables), `VMCELL_INITRD` (an initrd whose init runs `/test.sh`), `VMCELL_ROOTFS` (a distribution's
//! root file system, read only), and `VMCELL_LAUNCH` (the launcher).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;
use vmcell::{Boot, BootProtocol, Discovery, Disk, Exit, Seccomp, Vm, VmBuilder};

use super::Transcript;

/// Emulated hosts are slow: what takes a second on hardware may take twenty there.
pub const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// In front of every script that works in the distribution's root: mounts it, and lets `in_root` run programs there.
pub const ENTER_ROOT: &str = r#"
mkdir -p /root && mount -o ro /dev/vda /root
mount -t proc proc /root/proc && mount -t devtmpfs dev /root/dev && mount -t sysfs sys /root/sys
mount -t tmpfs tmp /root/tmp && mount -t tmpfs tmp /root/mnt && mount -t tmpfs run /root/run
in_root() { chroot /root /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp "$@"; }
"#;

pub fn path_of(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("{variable} is not set; run cargo xtask test"))
}

/// Describes one run of a script in a Linux guest.
pub struct LinuxGuest {
    script: String,
    cmdline: String,
    kernel: PathBuf,
    protocol: BootProtocol,
    discovery: Discovery,
    limit: Duration,
}

/// A guest that was built, with what must live as long as it.
pub struct RunningGuest {
    pub vm: Vm,
    pub transcript: Transcript,
    limit: Duration,
    _initrd: NamedTempFile,
}

impl LinuxGuest {
    pub fn new(script: &str) -> Self {
        Self {
            script: script.to_owned(),
            cmdline: String::new(),
            kernel: path_of("VMCELL_KERNEL_ELF"),
            protocol: BootProtocol::Auto,
            discovery: Discovery::Acpi,
            limit: BOOT_LIMIT,
        }
    }

    /// A script that finds the distribution's root under `/root`, on `/dev/vda`.
    pub fn in_distribution(script: &str) -> Self {
        Self::new(&format!("{ENTER_ROOT}\n{script}"))
    }

    pub fn kernel(mut self, variable: &str, protocol: BootProtocol) -> Self {
        self.kernel = path_of(variable);
        self.protocol = protocol;
        self
    }

    pub fn discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = discovery;
        self
    }

    pub fn cmdline(mut self, more: &str) -> Self {
        self.cmdline = more.to_owned();
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Builds and starts it; `describe` adds to a builder with kernel, console and 256 MiB.
    pub fn start(self, describe: impl FnOnce(VmBuilder) -> VmBuilder) -> RunningGuest {
        let initrd = initrd_with(&self.script);
        let transcript = Transcript::default();
        let cmdline = format!("console=ttyS0 quiet panic=-1 {}", self.cmdline);
        let boot = Boot::linux(&self.kernel).initrd(initrd.path()).cmdline(cmdline);
        let boot = boot.protocol(self.protocol).discovery(self.discovery);
        let builder = Vm::builder().memory_mib(256).boot(boot).seccomp(Seccomp::Kill);
        let builder = builder.console(transcript.console());
        let vm = describe(builder).build().unwrap_or_else(|e| panic!("{}", e.chain()));
        vm.start().expect("the VM starts");
        RunningGuest { vm, transcript, limit: self.limit, _initrd: initrd }
    }

    /// Runs the script to its end, and returns what it printed.
    pub fn run(self, describe: impl FnOnce(VmBuilder) -> VmBuilder) -> String {
        self.start(describe).finish()
    }
}

impl RunningGuest {
    /// Waits until the guest turns itself off, and returns what it printed.
    pub fn finish(self) -> String {
        match self.vm.wait_timeout(self.limit) {
            Ok(Exit::Shutdown) => self.transcript.text().replace('\r', ""),
            other => panic!("{other:?} after:\n{}", self.transcript.text()),
        }
    }

    pub fn expect(&self, wanted: &str) {
        self.transcript.expect(wanted, self.limit);
    }

    pub fn type_in(&self, text: &str) {
        assert_eq!(self.vm.write_console(text.as_bytes()), text.len());
    }
}

/// The distribution's root, for the first disk of a guest.
pub fn root_disk() -> Disk {
    Disk::open(path_of("VMCELL_ROOTFS")).expect("the root file system is there").read_only(true)
}

/// An empty disk image in a file of its own.
pub fn empty_disk(mib: u64) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(mib << 20).expect("the file is extended");
    file
}

/// Runs a program of the host and returns what it printed; panics with that when it fails.
pub fn host(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program} does not start: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
    text
}

pub fn path_text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A volume that the kernel has open by the device mapper, until this is dropped.
pub struct Mapped(&'static str);

impl Mapped {
    pub fn new(name: &'static str, volume: &Path, key_file: &Path) -> Self {
        host("cryptsetup", &["open", "--disable-keyring", "--key-file", path_text(key_file), path_text(volume), name]);
        Self(name)
    }

    pub fn path(&self) -> String {
        format!("/dev/mapper/{}", self.0)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        host("cryptsetup", &["close", self.0]);
    }
}

/// What stands between `begin` and `end` of the lines that a script printed.
pub fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let rest = text.split_once(begin).unwrap_or_else(|| panic!("no {begin:?} in:\n{text}")).1;
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} after {begin:?} in:\n{text}")).0.trim()
}

/// The base initrd with `script` as `/test.sh`: the kernel unpacks concatenated archives one after the other.
pub fn initrd_with(script: &str) -> NamedTempFile {
    initrd_with_file("test.sh", script)
}

/// An initrd with a program in it, or a script.
pub fn initrd_with_file(name: &str, content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    let base = std::fs::read(path_of("VMCELL_INITRD")).expect("the initrd is readable");
    file.write_all(&base).expect("the initrd is written");
    // An archive begins at a multiple of four bytes, padded with zeros, which the kernel skips.
    file.write_all(&vec![0; base.len().next_multiple_of(4) - base.len()]).expect("the initrd is written");
    file.write_all(&cpio(&[(name, 0o100_755, content.as_bytes())])).expect("the initrd is written");
    file
}

/// A newc archive, as `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel describes it.
fn cpio(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, content) in files.iter().chain(&[("TRAILER!!!", 0, &[][..])]) {
        let (size, name_size) = (content.len(), name.len() + 1);
        archive.extend(format!("070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}", 0, 0, 0, 1, 0).bytes());
        archive.extend(format!("{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}", 0, 0, 0, 0, 0).bytes());
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// A TAP device of the host that is removed with this. Needs root.
pub struct HostTap {
    pub name: String,
}

impl HostTap {
    /// Makes a device with an address, such as `10.77.1.1/24`.
    pub fn new(name: &str, address: Option<&str>, mtu: u32) -> Self {
        Self::of_kind(name, address, mtu, &["vnet_hdr"])
    }

    /// Makes a device with several queues.
    pub fn multi_queue(name: &str, address: &str) -> Self {
        Self::of_kind(name, Some(address), 1500, &["vnet_hdr", "multi_queue"])
    }

    fn of_kind(name: &str, address: Option<&str>, mtu: u32, kind: &[&str]) -> Self {
        let tap = Self { name: name.to_owned() };
        host("ip", &[&["tuntap", "add", "dev", name, "mode", "tap"], kind].concat());
        host("ip", &["link", "set", "dev", name, "mtu", &mtu.to_string(), "up"]);
        if let Some(address) = address {
            host("ip", &["address", "add", address, "dev", name]);
        }
        tap
    }
}

impl Drop for HostTap {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["link", "delete", "dev", &self.name]).output();
    }
}

/// The number of file blocks that the host has really given to a file, in bytes.
pub fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).expect("the file is there").blocks() * 512
}

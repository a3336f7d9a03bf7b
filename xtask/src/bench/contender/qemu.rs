//! QEMU's `microvm`, with io_uring and an I/O thread for its disk.

use std::path::PathBuf;
use std::process::Command;

use super::machine::{MEMORY_MIB, Machine};

pub const PROGRAM: &str = "qemu-system-x86_64";
/// Nothing that the guest does not use, and the modern registers of virtio-mmio.
const MACHINE: &str = "microvm,acpi=off,rtc=off,pit=off,pic=off,isa-serial=on,auto-kernel-cmdline=on";
/// Linux finds its devices by ACPI, and waits for a clock.
const LINUX_MACHINE: &str = "microvm,acpi=on,rtc=on,pit=off,pic=off,isa-serial=on";
/// What it loads at run time, and where distributions have it.
const FIRMWARE: [&str; 3] = ["bios-microvm.bin", "pvh.bin", "linuxboot_dma.bin"];
const FIRMWARE_FOLDERS: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];
/// Without the MSR that software KVM refuses.
const CPU: &str = "host,-arch-capabilities";

pub fn command(machine: &Machine<'_>) -> Command {
    let mut command = Command::new(PROGRAM);
    let kind = if machine.initrd.is_some() { LINUX_MACHINE } else { MACHINE };
    command.args(["-M", kind, "-enable-kvm", "-cpu", CPU, "-smp", "1", "-m", &MEMORY_MIB.to_string()]);
    command.args(["-global", "virtio-mmio.force-legacy=false", "-nodefaults", "-no-user-config", "-no-reboot"]);
    // Threads have names, by which the vCPU's is known.
    command.args(["-display", "none", "-serial", "stdio", "-name", "bench,debug-threads=on"]);
    command.arg("-kernel").arg(machine.guest).args(["-append", &machine.cmdline]);
    if let Some(initrd) = machine.initrd {
        command.arg("-initrd").arg(initrd);
    }
    if let Some(disk) = &machine.disk {
        let direct = if disk.direct { "on" } else { "off" };
        let path = disk.path.display();
        let medium = format!("driver=file,node-name=disk,filename={path},aio=io_uring,cache.direct={direct}");
        command.args(["-object", "iothread,id=io", "-blockdev", &medium]);
        command.args(["-device", "virtio-blk-device,drive=disk,iothread=io"]);
    }
    if let Some(tap) = machine.tap {
        let card = format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off");
        command.args(["-netdev", &card, "-device", "virtio-net-device,netdev=net"]);
    }
    command
}

/// The files that QEMU loads for this machine, wherever they are.
pub fn firmware() -> Vec<PathBuf> {
    let found = |name: &str| {
        let paths = FIRMWARE_FOLDERS.map(|folder| PathBuf::from(folder).join(name));
        paths.into_iter().find(|path| path.exists())
    };
    FIRMWARE.into_iter().filter_map(found).collect()
}

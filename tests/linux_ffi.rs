//! The launchers in C and in Go with a stock Linux kernel. They are named by `VMCELL_C_LAUNCH` and `VMCELL_GO_LAUNCH`, built
//! with the library inside.

mod support;

use std::process::Command;

use support::linux::{ENTER_ROOT, HostTap, empty_disk, initrd_with, path_of};

/// Boots Linux with the distribution's root on a read-only disk, a disk to write to, and a network.
fn boots(launcher: &str, tap: &str, network: &str) {
    let tap = HostTap::new(tap, Some(&format!("{network}.1/24")), 1500);
    let script = format!(
        "{ENTER_ROOT}
         echo arithmetic-$((6 * 7)); cat /proc/cmdline; echo mac $(cat /sys/class/net/eth0/address)
         echo written-by-the-guest | dd of=/dev/vdb conv=fsync 2>/dev/null
         in_root ip address add {network}.2/24 dev eth0; in_root ip link set eth0 up
         in_root ping -c 2 -i 0.2 -W 5 {network}.1"
    );
    let (initrd, disk) = (initrd_with(&script), empty_disk(1));
    let mut launch = Command::new(path_of(launcher));
    launch.arg("--kernel").arg(path_of("VMCELL_KERNEL_ELF")).arg("--initrd").arg(initrd.path());
    launch.args(["--memory", "256", "--cmdline", "console=ttyS0 quiet panic=-1 from-a-launcher"]);
    launch.arg("--disk").arg(format!("{},ro", path_of("VMCELL_ROOTFS").display())).arg("--disk").arg(disk.path());
    launch.arg("--tap").arg(format!("{},mac=02:00:00:77:06:01", tap.name));
    let output = launch.stdin(std::process::Stdio::null()).output().expect("the launcher starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    for part in ["arithmetic-42", "from-a-launcher", "mac 02:00:00:77:06:01", " 0% packet loss"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert!(std::fs::read(disk.path()).unwrap().starts_with(b"written-by-the-guest\n"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn the_launcher_in_c_boots_linux() {
    boots("VMCELL_C_LAUNCH", "vmc-c", "10.77.6");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn the_launcher_in_go_boots_linux() {
    boots("VMCELL_GO_LAUNCH", "vmc-go", "10.77.7");
}

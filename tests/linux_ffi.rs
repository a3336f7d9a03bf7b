//! The launchers in C and in Go with a stock Linux kernel. They are named by `VMCELL_C_LAUNCH` and `VMCELL_GO_LAUNCH`, built
//! with the library inside.

mod support;

use std::process::Command;

use support::linux::{initrd_with, path_of};

fn boots(launcher: &str) {
    let initrd = initrd_with("echo arithmetic-$((6 * 7)); cat /proc/cmdline");
    let disk = support::linux::empty_disk(1);
    let mut launch = Command::new(path_of(launcher));
    launch.arg("--kernel").arg(path_of("VMCELL_KERNEL_ELF")).arg("--initrd").arg(initrd.path());
    launch.args(["--memory", "256", "--cmdline", "console=ttyS0 quiet panic=-1 from-a-launcher", "--disk"]);
    let output = launch.arg(disk.path()).stdin(std::process::Stdio::null()).output().expect("the launcher starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("arithmetic-42") && text.contains("from-a-launcher"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn the_launcher_in_c_boots_linux() {
    boots("VMCELL_C_LAUNCH");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn the_launcher_in_go_boots_linux() {
    boots("VMCELL_GO_LAUNCH");
}

//! The launcher's command line: `examples/launch.rs` run on a stock kernel with a disk and a network.

use std::process::Command;

use crate::args::RunOptions;
use crate::exec;

/// The guest's TAP device, and the addresses at both of its ends.
pub const TAP: &str = "vmcell0";
pub const HOST_ADDRESS: &str = "10.107.0.1";
pub const GUEST_ADDRESS: &str = "10.107.0.2";
pub const PREFIX: &str = "24";

/// The launcher and its files, by their paths on the host that it runs on.
pub struct Files {
    pub launcher: String,
    pub kernel: String,
    pub initrd: String,
    pub disk: String,
}

/// The whole command.
pub fn command(files: &Files, options: &RunOptions) -> Command {
    let mut launch = Command::new(&files.launcher);
    launch.args(["--kernel", &files.kernel, "--initrd", &files.initrd, "--cmdline", &cmdline()]);
    launch.args(["--vcpus", &options.vcpus.to_string(), "--memory", &options.memory_mib.to_string()]);
    launch.args(["--disk", &files.disk, "--tap", TAP]);
    launch
}

fn cmdline() -> String {
    // reboot=k: the launcher's machine has a keyboard controller's reset line, and with panic=-1 a panic ends there
    // too.
    format!(
        "console=ttyS0 reboot=k panic=-1 rw root=/dev/vda vmcell.address={GUEST_ADDRESS}/{PREFIX} vmcell.host={HOST_ADDRESS}"
    )
}

/// The shell commands that make and unmake the TAP device.
pub fn tap_up() -> String {
    format!(
        "ip tuntap add dev {TAP} mode tap && ip address add {HOST_ADDRESS}/{PREFIX} dev {TAP} && ip link set {TAP} up"
    )
}

/// See [`tap_up`].
pub fn tap_down() -> String {
    format!("ip link delete {TAP}")
}

/// `command` on several lines, one option each.
pub fn pretty(command: &Command) -> String {
    exec::show(command).replace(" --", " \\\n      --")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted() {
        let files = Files { launcher: "/l".into(), kernel: "/k".into(), initrd: "/i".into(), disk: "/d".into() };
        let options = RunOptions { nested: false, vcpus: 2, memory_mib: 256 };
        let line = exec::show(&command(&files, &options));
        assert!(line.starts_with("/l --kernel /k --initrd /i --cmdline 'console=ttyS0 "), "{line}");
        assert!(line.ends_with("--vcpus 2 --memory 256 --disk /d --tap vmcell0"), "{line}");
    }
}

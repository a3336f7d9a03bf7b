//! QEMU's command line for the nested host, and its end: no QEMU outlives the command that started it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::guest::Assets;

/// A periodic tick instead of timers that are set anew each time: under a load of interrupts the emulator loses some of
/// the nested host's timer interrupts. The next tick comes all the same, and nothing hangs.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 reboot=t panic=-1 nokaslr quiet nohz=off highres=off \
    rw root=/dev/nvme0n1 vmcell.assets=/dev/nvme1n1";

/// Enough for a guest of 4 GiB and the tests beside it.
const MEMORY_MIB: u64 = 6144;
/// The least that a nested host needs, for guests of 1 GiB.
const MEMORY_MIN_MIB: u64 = 2048;

/// The machine that QEMU emulates.
pub struct Machine<'a> {
    pub assets: &'a Assets,
    /// Made by [`super::image`].
    pub disk: &'a Path,
    /// The guests' root file system: /dev/nvme2n1 in the nested host.
    pub guest_rootfs: &'a Path,
    pub memory_mib: u64,
    pub serial: Serial<'a>,
    /// Its clock counts instructions, one a nanosecond, which is slower but comes out alike each time.
    pub counts_instructions: bool,
}

/// The two serial lines: the first is the console, the second is for marker lines alone, which kernel messages would
/// tear apart on the first.
pub enum Serial<'a> {
    /// The console is our terminal, the markers a file.
    Terminal { markers: &'a Path },
    /// The console is a log, the markers are our pipes.
    Pipes { console: &'a Path },
}

impl Machine<'_> {
    /// The command; the caller sets its standard streams.
    pub fn command(&self) -> Command {
        // Killed with us, however we end.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        // One CPU: with two, QEMU's nested SVM locked up in 1 run of 18. Its guests may still have several.
        qemu.args(["-M", "q35", "-cpu", "max", "-smp", "1", "-no-reboot"]);
        qemu.args(if self.counts_instructions {
            &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on"][..]
        } else {
            &["-accel", "tcg,thread=multi"]
        });
        qemu.args(["-m", &self.memory_mib.to_string(), "-nodefaults", "-display", "none"]);
        // The ELF starts faster than the bzImage.
        qemu.arg("-kernel").arg(&self.assets.elf).arg("-initrd").arg(&self.assets.host_initrd);
        qemu.arg("-append").arg(KERNEL_COMMAND_LINE);
        for (number, disk) in [&self.assets.rootfs, self.disk, self.guest_rootfs].into_iter().enumerate() {
            // All of them are snapshots, because two shards share the images; writes are dropped at the end.
            let file = disk.to_string_lossy().replace(',', ",,");
            qemu.arg("-drive")
                .arg(format!("file={file},format=raw,if=none,id=d{number},snapshot=on,cache=unsafe,discard=unmap"));
            qemu.arg("-device").arg(format!("nvme,drive=d{number},serial=d{number}"));
        }
        self.add_serial(&mut qemu);
        qemu
    }

    fn add_serial(&self, qemu: &mut Command) {
        let file = |id: &str, path: &Path| format!("file,id={id},path={}", path.to_string_lossy().replace(',', ",,"));
        // signal=off: Ctrl-C is for the guest.
        let stdio = |id: &str| format!("stdio,id={id},signal=off");
        let (console, markers) = match self.serial {
            Serial::Terminal { markers } => (stdio("console"), file("markers", markers)),
            Serial::Pipes { console } => (file("console", console), stdio("markers")),
        };
        qemu.args(["-chardev", &console, "-chardev", &markers]);
        qemu.args(["-serial", "chardev:console", "-serial", "chardev:markers"]);
    }
}

/// How many nested hosts fit side by side, at most `wanted`, and the memory of each.
pub fn fitting(wanted: u64) -> (u64, u64) {
    fit(wanted, memory_available_mib().unwrap_or(MEMORY_MIB))
}

fn fit(wanted: u64, available_mib: u64) -> (u64, u64) {
    // A quarter is for QEMU itself and for everybody else.
    let usable = available_mib / 4 * 3;
    let hosts = (usable / MEMORY_MIB).clamp(1, wanted.max(1));
    (hosts, (usable / hosts).clamp(MEMORY_MIN_MIB, MEMORY_MIB))
}

fn memory_available_mib() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_hosts_as_fit_and_at_least_one() {
        assert_eq!(fit(2, 20_000), (2, 6144));
        assert_eq!(fit(2, 12_000), (1, 6144));
        assert_eq!(fit(2, 4_000), (1, 3000));
        assert_eq!(fit(2, 1_000), (1, 2048));
    }
}

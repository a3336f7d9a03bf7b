//! Programs in C and in Go with a stock Linux kernel: the launchers, and a disk on a backend in C. They are named by
//! `VMCELL_C_LAUNCH`, `VMCELL_GO_LAUNCH` and `VMCELL_C_ENCRYPTED_DISK`, built with the library inside.

mod support;

use std::process::Command;

use support::linux::{ENTER_ROOT, HostTap, empty_disk, host, initrd_with, path_of};

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

/// The cipher of `examples/c/encrypted_disk.c`, from the start of the disk on.
fn toy_cipher(key: u64, bytes: &mut [u8]) {
    for (word, chunk) in (0u64..).zip(bytes.chunks_mut(8)) {
        let mut stream = key.wrapping_add(word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        stream = (stream ^ stream >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        stream = (stream ^ stream >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        stream ^= stream >> 31;
        chunk.iter_mut().zip(stream.to_le_bytes()).for_each(|(byte, key)| *byte ^= key);
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_disk_on_a_backend_in_c_holds_ciphertext_only() {
    const KEY: u64 = 0x1234_5678_9abc_def0;
    let script = format!(
        "{ENTER_ROOT}
         in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
         for n in 1 2 3 4 5 6 7 8; do yes written-by-the-guest-$n | head -c 300000 >/root/mnt/file$n; done
         in_root sh -c 'cd /mnt && md5sum file* >/tmp/sums' && in_root umount /mnt
         in_root mount /dev/vdb /mnt && in_root sh -c 'cd /mnt && md5sum -c /tmp/sums' || echo failed
         in_root fio --name=verify --filename=/mnt/fio --size=8M --rw=randrw --bsrange=512-64k --bs_unaligned=0 \
           --blockalign=512 --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 \
           --randseed=7 --minimal >/root/tmp/fio.out 2>&1 && echo fio-was-happy || cat /root/tmp/fio.out
         in_root umount /mnt && echo unmounted"
    );
    let (initrd, image) = (initrd_with(&script), empty_disk(64));
    let mut guest = Command::new(path_of("VMCELL_C_ENCRYPTED_DISK"));
    guest.arg(path_of("VMCELL_KERNEL_ELF")).arg(initrd.path()).arg("console=ttyS0 quiet panic=-1");
    guest.arg(path_of("VMCELL_ROOTFS")).arg(image.path()).arg(KEY.to_string());
    let output = guest.stdin(std::process::Stdio::null()).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("file8: OK") && text.contains("fio-was-happy") && text.contains("unmounted"), "{text}");
    assert!(!text.contains("failed"), "{text}");

    let mut bytes = std::fs::read(image.path()).unwrap();
    assert!(!holds(&bytes, "written-by-the-guest"), "the guest's text lies in the file as it is");
    toy_cipher(KEY, &mut bytes);
    (1..=8).for_each(|n| assert!(holds(&bytes, &format!("written-by-the-guest-{n}")), "file {n} is missing"));
    std::fs::write(image.path(), &bytes).unwrap();
    host("e2fsck", &["-f", "-n", image.path().to_str().expect("a plain path")]);
}

//! Backends of a program's own, those of the examples and bad ones, with Linux's drivers and file systems above them.

#[path = "../examples/loopback_nic/cable.rs"]
mod cable;
#[path = "../examples/encrypted_disk/cipher.rs"]
mod cipher;
#[path = "support/misbehaving.rs"]
mod misbehaving;
mod support;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cable::cable;
use cipher::{Encrypted, ToyCipher};
use misbehaving::{Call, Manner, Misbehaving};
use support::linux::{LinuxGuest, between, empty_disk, host, root_disk};
use vmcell::block::FileBackend;
use vmcell::{Disk, IoThread, Nic};

const LONG: Duration = Duration::from_secs(240);
/// Stands in what the guest writes, every 64 bytes.
const SECRET: &[u8] = b"this must not be on the host's disk";

fn file(path: &Path) -> FileBackend {
    let image = File::options().read(true).write(true).open(path).expect("the image is opened");
    FileBackend::new(image).expect("it is a disk")
}

/// Ciphers in the order in which data written by the guest pass them.
fn decrypted(path: &Path, ciphers: &[ToyCipher]) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("the image is readable");
    ciphers.iter().rev().for_each(|cipher| cipher.decrypt(0, &mut bytes));
    bytes
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_guest_on_an_encrypted_disk_finds_its_files_and_the_host_finds_only_ciphertext() {
    let image = empty_disk(48);
    let (outer, inner) = (ToyCipher(1), ToyCipher(2));
    let script = format!(
        r#"
in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
for n in 1 2 3 4; do dd if=/dev/urandom of=/root/mnt/random$n bs=300k count=$n 2>/dev/null; done
for n in $(seq 20000); do echo "{secret:>63}"; done > /root/mnt/secrets
cd /root/mnt && echo begin-sums && md5sum random* secrets && echo end-sums; cd /
in_root umount /mnt && echo 3 > /proc/sys/vm/drop_caches
in_root e2fsck -f -n /dev/vdb && in_root mount -o ro /dev/vdb /mnt || echo failed
cd /root/mnt && echo begin-again && md5sum random* secrets && echo end-again; cd /
in_root umount /mnt && echo unmounted
"#,
        secret = String::from_utf8_lossy(SECRET),
    );
    let text = LinuxGuest::in_distribution(&script).limit(LONG).run(|builder| {
        let layers = Encrypted::new(Encrypted::new(file(image.path()), inner), outer);
        builder.disk(root_disk()).disk(Disk::backend(layers).never_blocks())
    });
    assert!(text.contains("unmounted") && !text.contains("failed"), "{text}");
    let sums = between(&text, "begin-sums\n", "end-sums");
    assert_eq!(sums.lines().count(), 5, "{text}");
    assert_eq!(between(&text, "begin-again\n", "end-again"), sums, "{text}");

    let ciphertext = std::fs::read(image.path()).unwrap();
    assert!(!holds(&ciphertext, SECRET), "the image holds what the guest wrote");
    assert!(!holds(&decrypted(image.path(), &[outer]), SECRET), "one of two layers is enough");
    let plain = decrypted(image.path(), &[outer, inner]);
    assert!(holds(&plain, SECRET), "the image does not hold what the guest wrote");

    let copy = empty_disk(1);
    std::fs::write(copy.path(), &plain).unwrap();
    let path = copy.path().to_str().expect("a plain path");
    host("e2fsck", &["-f", "-n", path]);
    let directory = tempfile::tempdir().unwrap();
    for (sum, name) in sums.lines().filter_map(|line| line.split_once("  ")) {
        let file = directory.path().join(name);
        host("debugfs", &["-R", &format!("dump /{name} {}", file.display()), path]);
        assert!(host("md5sum", &[file.to_str().expect("a plain path")]).starts_with(sum), "{name}");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn fio_reads_back_through_a_cipher_what_it_wrote() {
    let image = empty_disk(32);
    let script = r#"
in_root fio --name=verify --filename=/dev/vdb --size=12M --rw=randrw --bsrange=512-128k --bs_unaligned=0 \
  --blockalign=512 --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 \
  --randseed=7 --minimal >/root/tmp/fio.out 2>&1 && echo fio-was-happy || cat /root/tmp/fio.out
in_root blkdiscard -z -o 16M -l 4M /dev/vdb && echo zeroed
dd if=/dev/vdb bs=1M skip=16 count=4 iflag=direct 2>/dev/null | md5sum
"#;
    let text = LinuxGuest::in_distribution(script).limit(LONG).run(|builder| {
        let layer = Encrypted::new(file(image.path()), ToyCipher(3));
        builder.disk(root_disk()).disk(Disk::backend(layer).never_blocks())
    });
    assert!(text.contains("fio-was-happy") && text.contains("zeroed"), "{text}");
    assert!(text.contains("b5cfa9d6c8febd618f91ac2843d50a1c"), "4 MiB of zeros:\n{text}");
}

/// Gives the guest's only interface an address; the other guest is `.1` or `.2` in the same network.
fn with_address(host: u8, script: &str) -> LinuxGuest {
    let setup = format!(
        "in_root ip link set lo up; in_root ip address add 10.78.1.{host}/24 dev eth0; in_root ip link set eth0 up\n{script}"
    );
    LinuxGuest::in_distribution(&setup).limit(LONG)
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn two_guests_ping_and_send_each_other_megabytes_through_a_cable_in_this_process() {
    // The room of a switch's port: what TCP sends at once fits.
    let (one, two) = cable(Duration::from_micros(500), 1024);
    let dropped = [one.dropped(), two.dropped()];
    let server = r#"
mount -t tmpfs -o size=90% big /tmp
echo listening
nc -l -p 7000 > /tmp/data; echo got=$(md5sum < /tmp/data | cut -d' ' -f1)-end
nc -l -p 7001 < /tmp/data; echo served
"#;
    let server = with_address(1, server).start(|builder| builder.disk(root_disk()).nic(Nic::backend(one)));
    server.expect("listening");
    let client = r#"
mount -t tmpfs -o size=90% big /tmp
in_root ping -c 3 -i 0.2 -W 5 10.78.1.1
dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null
echo sent=$(md5sum < /tmp/data | cut -d' ' -f1)-end
in_root bash -c 'exec 3<>/dev/tcp/10.78.1.1/7000; cat >&3' < /tmp/data
for n in 1 2 3 4 5 6 7 8 9; do
  in_root bash -c 'exec 3<>/dev/tcp/10.78.1.1/7001; cat <&3' > /tmp/back && break; sleep 1
done
echo back=$(md5sum < /tmp/back | cut -d' ' -f1)-end
"#;
    let text = with_address(2, client).run(|builder| builder.disk(root_disk()).nic(Nic::backend(two)));
    assert!(text.contains(" 0% packet loss"), "{text}");
    let sum = between(&text, "sent=", "-end");
    assert_eq!(between(&text, "back=", "-end"), sum, "{text}");
    let text = server.finish();
    assert_eq!(between(&text, "got=", "-end"), sum, "{text}");
    let dropped = dropped.map(|dropped| dropped.load(Ordering::Relaxed));
    assert!(dropped.iter().all(|frames| *frames < 100), "{dropped:?} frames were dropped");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_guest_with_two_disks_that_misbehave_works_on_with_the_third_and_is_stopped_in_time() {
    let image = empty_disk(16);
    let shared = IoThread::new("shared").expect("the host gives a thread");
    let manners = [Manner::NeverCompletes, Manner::PanicsIn(Call::Completed)];
    let [(silent, silent_leash), (panics, panics_leash)] = manners.map(Misbehaving::new);
    // Their first reads are those of the kernel, which looks for partitions before it goes on.
    let script = r#"
echo ready; read line
for d in b c; do dd if=/dev/vd$d of=/dev/null bs=64k count=8 iflag=direct 2>/dev/null & done
sleep 1
yes neighbour | dd of=/dev/vdd bs=64k count=64 iflag=fullblock conv=fsync 2>/dev/null && echo it-works; sleep 600
"#;
    let guest = LinuxGuest::in_distribution(script).limit(LONG).start(|builder| {
        let served = |disk: Disk| disk.io_thread(shared.clone());
        let good = served(Disk::open(image.path()).expect("the image is opened"));
        builder.disk(root_disk()).disk(served(Disk::backend(silent))).disk(served(Disk::backend(panics))).disk(good)
    });
    guest.expect("ready");
    silent_leash.let_loose();
    panics_leash.let_loose();
    guest.type_in("go\n");
    guest.expect("it-works");
    assert!(silent_leash.kept() > 0, "the guest asked the silent disk for nothing");
    let expected: Vec<u8> = b"neighbour\n".iter().copied().cycle().take(4 << 20).collect();
    assert!(std::fs::read(image.path()).unwrap()[..4 << 20] == expected, "the image does not hold what was written");

    let begun = Instant::now();
    guest.vm.stop().expect("the VM is stopped");
    let stopped = begun.elapsed();
    drop(guest);
    let dropped = begun.elapsed();
    assert!(stopped < Duration::from_millis(100), "stop() took {stopped:?}");
    assert!(dropped < Duration::from_secs(1), "drop took {dropped:?}");
    // What it keeps is memory of a VM that is gone, and is still there.
    silent_leash.touch(0x77);
}

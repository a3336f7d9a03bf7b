//! virtio-block with Linux's driver, its file systems and `fio`, and the host's `fsck` afterwards.

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use support::is_long;
use support::linux::{ENTER_ROOT, LinuxGuest, allocated, between, empty_disk, host, initrd_with, path_of, root_disk};
use vmcell::{Disk, Engine};

const LONG: Duration = Duration::from_secs(240);

fn disk(path: &Path) -> Disk {
    Disk::open(path).expect("the disk is opened")
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_file_system_made_in_the_guest_is_clean_on_the_host() {
    let image = empty_disk(64);
    let script = r#"
in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/root/mnt/file$n bs=100k count=$n 2>/dev/null; done
cd /root/mnt && echo begin-sums && md5sum file* && echo end-sums; cd /
in_root umount /mnt && echo unmounted
"#;
    let text = LinuxGuest::in_distribution(script)
        .limit(LONG)
        .run(|builder| builder.disk(root_disk()).disk(disk(image.path())));
    assert!(text.contains("unmounted") && !text.contains("failed"), "{text}");
    let sums = between(&text, "begin-sums\n", "end-sums");
    assert_eq!(sums.lines().count(), 8, "{text}");

    let path = image.path().to_str().expect("a plain path");
    host("e2fsck", &["-f", "-n", path]);
    let directory = tempfile::tempdir().unwrap();
    for (name, sum) in sums.lines().filter_map(|line| line.split_once("  ")).map(|(sum, name)| (name, sum)) {
        let copy = directory.path().join(name);
        host("debugfs", &["-R", &format!("dump /{name} {}", copy.display()), path]);
        assert!(host("md5sum", &[copy.to_str().expect("a plain path")]).starts_with(sum), "{name}");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn fio_reads_back_what_it_wrote_with_every_engine() {
    let (size, rounds, limit) = if is_long() { (60, 20, Duration::from_secs(4500)) } else { (12, 1, LONG) };
    let images = [64, 64, 64].map(empty_disk);
    let script = format!(
        r#"
round=0; while [ $round -lt {rounds} ]; do round=$((round + 1)); for d in vdb vdc vdd; do
block=$(cat /sys/block/$d/queue/logical_block_size)
in_root fio --name=verify --filename=/dev/$d --size={size}M --rw=randrw --bsrange=$block-512k --bs_unaligned=0 \
  --blockalign=$block --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 \
  --randseed=$round --minimal >/root/tmp/fio.out 2>&1 && echo fio-was-happy:$d:$round || cat /root/tmp/fio.out
done; done
"#
    );
    let [buffered, direct, sync] = images.each_ref().map(|image| disk(image.path()));
    let disks = [buffered, direct.direct(true), sync.direct(true).engine(Engine::Sync)];
    let handles = disks.each_ref().map(Disk::handle);
    let guest = LinuxGuest::in_distribution(&script)
        .limit(limit)
        .start(|builder| disks.into_iter().fold(builder.disk(root_disk()), vmcell::VmBuilder::disk));
    let engines = handles.map(|handle| handle.status());
    assert!(engines[0].engine == "uring" || engines[0].fallback.is_some(), "{engines:?}");
    assert_eq!((&engines[2].engine[..], &engines[2].fallback), ("sync", &None));
    let text = guest.finish();
    for disk in ["vdb", "vdc", "vdd"] {
        assert!((1..=rounds).all(|round| text.contains(&format!("fio-was-happy:{disk}:{round}"))), "{text}");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn requests_of_1_to_128_segments_arrive_whole() {
    let image = empty_disk(32);
    // A direct transfer from scattered pages makes one segment a page: up to 512 KiB are 128 segments.
    let script = r#"
cat /sys/block/vdb/queue/max_segments
for kib in 4 8 60 256 508 512; do
  dd if=/dev/urandom of=/tmp/data bs=${kib}k count=1 2>/dev/null
  in_root true
  dd if=/tmp/data of=/dev/vdb bs=${kib}k count=1 seek=1 oflag=direct conv=notrunc 2>/dev/null
  dd if=/dev/vdb of=/tmp/back bs=${kib}k count=1 skip=1 iflag=direct 2>/dev/null
  cmp /tmp/data /tmp/back && echo same-$kib
done
"#;
    let text = LinuxGuest::in_distribution(script)
        .limit(LONG)
        .run(|builder| builder.disk(root_disk()).disk(disk(image.path())));
    for kib in [4, 8, 60, 256, 508, 512] {
        assert!(text.contains(&format!("same-{kib}\n")), "{kib} KiB:\n{text}");
    }
    let segments: u32 = text.lines().find_map(|line| line.parse().ok()).expect("a number");
    assert!(segments >= 126, "{segments}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn what_was_flushed_survives_the_launcher_being_killed() {
    let image = empty_disk(16);
    let script = format!(
        "{ENTER_ROOT}\nyes flushed-data | dd of=/dev/vdb bs=64k count=16 iflag=fullblock conv=fsync 2>/dev/null\n\
         echo it-is-flushed; sleep 600"
    );
    let initrd = initrd_with(&script);
    let mut child = support::launcher()
        .arg("--kernel")
        .arg(path_of("VMCELL_KERNEL_ELF"))
        .arg("--initrd")
        .arg(initrd.path())
        .args(["--cmdline", "console=ttyS0 quiet panic=-1", "--memory", "256"])
        .arg("--disk")
        .arg(format!("{},ro", path_of("VMCELL_ROOTFS").display()))
        .arg("--disk")
        .arg(image.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the launcher starts");
    let transcript = support::Transcript::default();
    let (seen, mut output) = (transcript.clone(), child.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = std::io::Read::read(&mut output, &mut bytes) {
            seen.push(&bytes[..len]);
        }
    });
    transcript.expect("it-is-flushed", LONG);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    let bytes = std::fs::read(image.path()).unwrap();
    let expected: Vec<u8> = b"flushed-data\n".iter().copied().cycle().take(1 << 20).collect();
    assert!(bytes[..1 << 20] == expected, "the image does not hold what was flushed");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn discard_gives_blocks_of_the_file_back() {
    let image = empty_disk(32);
    let script = r#"
dd if=/dev/urandom of=/dev/vdb bs=1M count=32 conv=fsync 2>/dev/null && echo written
sleep 1; in_root blkdiscard -o 4M -l 16M /dev/vdb && echo discarded
in_root blkdiscard -z -o 24M -l 4M /dev/vdb && echo zeroed
dd if=/dev/vdb bs=1M skip=24 count=4 iflag=direct 2>/dev/null | md5sum
"#;
    let text = LinuxGuest::in_distribution(script)
        .limit(LONG)
        .run(|builder| builder.disk(root_disk()).disk(disk(image.path())));
    assert!(text.contains("discarded") && text.contains("zeroed"), "{text}");
    assert!(text.contains("b5cfa9d6c8febd618f91ac2843d50a1c"), "4 MiB of zeros:\n{text}");
    let left = allocated(image.path());
    assert!(left <= 17 << 20, "{left} bytes of 32 MiB are still allocated:\n{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_read_only_disk_stays_unchanged() {
    let image = empty_disk(8);
    std::fs::write(image.path(), vec![0x5a; 8 << 20]).unwrap();
    let script = r#"
echo "ro $(cat /sys/block/vdb/ro)"
dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync 2>/dev/null && echo it-was-written
in_root blkdiscard /dev/vdb 2>/dev/null && echo it-was-discarded
dd if=/dev/vdb bs=1M 2>/dev/null | md5sum
"#;
    let text = LinuxGuest::in_distribution(script)
        .run(|builder| builder.disk(root_disk()).disk(disk(image.path()).read_only(true)));
    assert!(text.contains("ro 1\n") && !text.contains("it-was"), "{text}");
    assert!(std::fs::read(image.path()).unwrap().iter().all(|byte| *byte == 0x5a));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_disk_has_a_queue_for_each_vcpu() {
    let images = [32, 8].map(empty_disk);
    let script = r#"
echo "queues $(ls /sys/block/vdb/mq | wc -l) $(ls /sys/block/vdc/mq | wc -l)"
in_root fio --name=verify --filename=/dev/vdb --size=8M --offset_increment=8M --numjobs=3 --rw=randrw --bs=4k --direct=1 \
  --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal >/root/tmp/fio.out 2>&1 \
  && echo fio-was-happy || cat /root/tmp/fio.out
"#;
    let text = LinuxGuest::in_distribution(script).limit(LONG).run(|builder| {
        let [several, one] = images.each_ref().map(|image| disk(image.path()));
        builder.vcpus(3).disk(root_disk()).disk(several).disk(one.queues(1))
    });
    assert!(text.contains("queues 3 1\n") && text.contains("fio-was-happy"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn four_disks_work_at_once() {
    let images: Vec<_> = (0..4).map(|_| empty_disk(8)).collect();
    let script = r#"
for d in a b c d; do (yes disk-$d | dd of=/dev/vd$d bs=64k count=64 iflag=fullblock conv=fsync 2>/dev/null; echo done-$d) & done
wait
for d in a b c d; do echo "serial $(cat /sys/block/vd$d/serial)"; done
"#;
    let text = LinuxGuest::new(script).limit(LONG).run(|builder| {
        images.iter().enumerate().fold(builder, |builder, (number, image)| {
            builder.disk(disk(image.path()).serial(format!("vmcell-{number}")))
        })
    });
    for (number, (name, image)) in ["a", "b", "c", "d"].iter().zip(&images).enumerate() {
        assert!(text.contains(&format!("serial vmcell-{number}\n")), "{text}");
        let expected: Vec<u8> = format!("disk-{name}\n").into_bytes().into_iter().cycle().take(4 << 20).collect();
        assert!(std::fs::read(image.path()).unwrap()[..4 << 20] == expected, "disk {name}");
    }
}

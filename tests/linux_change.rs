//! What a host program changes while a Linux guest runs: a disk's size and medium, a NIC's link; and pauses under load.

mod support;

use std::io::Write;
use std::time::Duration;

use support::is_long;
use support::linux::{HostTap, LinuxGuest, empty_disk, host, root_disk};
use vmcell::{Disk, Nic};

const LONG: Duration = Duration::from_secs(240);

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_disk_grows_under_a_mounted_file_system() {
    let image = empty_disk(32);
    let script = r#"
in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
echo before > /root/mnt/file
echo ready
until [ "$(cat /sys/block/vdb/size)" = 131072 ]; do sleep 0.2; done
in_root resize2fs /dev/vdb 2>&1
dd if=/dev/zero of=/root/mnt/large bs=1M count=48 && cat /root/mnt/file && in_root umount /mnt && echo unmounted
"#;
    let disk = Disk::open(image.path()).expect("the disk is opened");
    let handle = disk.handle();
    let guest = LinuxGuest::in_distribution(script).limit(LONG).start(|builder| builder.disk(root_disk()).disk(disk));
    guest.expect("ready");
    image.as_file().set_len(64 << 20).expect("the file is extended");
    handle.refresh();
    let text = guest.finish();
    assert!(text.contains("before\nunmounted") && !text.contains("failed"), "{text}");
    host("e2fsck", &["-f", "-n", image.path().to_str().expect("a plain path")]);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_disk_is_exchanged_for_another() {
    let images = [empty_disk(8), empty_disk(16)];
    for (image, text) in images.iter().zip(["the first medium", "the second medium"]) {
        image.as_file().write_all(text.as_bytes()).expect("the image is written");
    }
    let script = r#"
in_root dd if=/dev/vdb bs=17 count=1 iflag=direct,fullblock 2>/dev/null; in_root head -c 16 /dev/vdb; echo
echo ready
until [ "$(cat /sys/block/vdb/size)" = 32768 ]; do sleep 0.2; done
in_root blockdev --flushbufs /dev/vdb; in_root head -c 17 /dev/vdb; echo
echo on-the-second | in_root dd of=/dev/vdb seek=1 bs=512 conv=fsync 2>/dev/null
"#;
    let open = |index: usize| Disk::open(images[index].path()).expect("the disk is opened");
    let disk = open(0);
    let handle = disk.handle();
    let guest = LinuxGuest::in_distribution(script).limit(LONG).start(|builder| builder.disk(root_disk()).disk(disk));
    guest.expect("ready");
    handle.replace(open(1), LONG).expect("the disk is exchanged");
    // The first one is free again.
    assert!(Disk::open(images[0].path()).expect("it is opened").into_device().is_ok());
    let text = guest.finish();
    assert!(text.contains("the first medium") && text.contains("the second medium"), "{text}");
    let written = |index: usize| {
        let bytes = std::fs::read(images[index].path()).expect("the image is readable");
        bytes[512..].starts_with(b"on-the-second")
    };
    assert_eq!([written(0), written(1)], [false, true]);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_link_goes_down_and_up_and_the_guest_announces_itself() {
    let tap = HostTap::new("vmc-link", Some("10.77.6.1/24"), 1500);
    host("sysctl", &["-w", "net.ipv4.conf.vmc-link.arp_accept=1"]);
    let script = r#"
in_root ip address add 10.77.6.2/24 dev eth0; in_root ip link set eth0 up
carrier() { until [ "$(cat /sys/class/net/eth0/carrier)" = "$1" ]; do sleep 0.1; done; echo "carrier $1"; }
carrier 1; echo ready; carrier 0; carrier 1
in_root ping -c 2 -i 0.2 -W 5 10.77.6.1
echo waiting; sleep 5
"#;
    let nic = Nic::tap(&tap.name).expect("the TAP device is opened");
    let handle = nic.handle();
    let guest = LinuxGuest::in_distribution(script).limit(LONG).start(|builder| builder.disk(root_disk()).nic(nic));
    guest.expect("ready");
    handle.set_link(false);
    guest.expect("carrier 0");
    handle.set_link(true);
    guest.expect("waiting");
    host("ip", &["neigh", "flush", "dev", "vmc-link"]);
    handle.announce();
    let known = || host("ip", &["neigh", "show", "dev", "vmc-link"]).contains("10.77.6.2 lladdr");
    let heard = (0..40).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        known()
    });
    assert!(heard, "the guest's announcement did not reach the host");
    let text = guest.finish();
    assert!(text.contains(" 0% packet loss"), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn pauses_under_load_lose_and_repeat_no_request() {
    let image = empty_disk(64);
    let tap = HostTap::new("vmc-pause", Some("10.77.7.1/24"), 1500);
    let (rounds, limit) = if is_long() { (40, Duration::from_secs(1500)) } else { (2, LONG) };
    let script = format!(
        r#"
in_root ip address add 10.77.7.2/24 dev eth0; in_root ip link set eth0 up
in_root ping -q -i 0.05 -W 20 -w 1400 10.77.7.1 >/root/tmp/ping.out & ping=$!
echo ready
# Each round has a seed of its own, so what an earlier one wrote does not pass for this one's.
round=0; while [ $round -lt {rounds} ]; do round=$((round + 1))
in_root fio --name=verify --filename=/dev/vdb --size=16M --rw=randrw --bs=16k --direct=1 --ioengine=libaio --iodepth=16 \
  --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=$round --minimal >/root/tmp/fio.out 2>&1 \
  && echo fio-was-happy:$round || cat /root/tmp/fio.out
done
echo loaded
# By its name, as $! is a shell around it, which ignores the signal.
killall -INT ping; wait $ping; cat /root/tmp/ping.out
"#
    );
    let guest = LinuxGuest::in_distribution(&script).limit(limit).start(|builder| {
        let disk = Disk::open(image.path()).expect("the disk is opened");
        let nic = Nic::tap(&tap.name).expect("the TAP device is opened");
        builder.disk(root_disk()).disk(disk).nic(nic)
    });
    guest.expect("ready");
    let mut pauses = 0;
    while !guest.transcript.text().contains("loaded") {
        guest.vm.pause().expect("it stands still");
        std::thread::sleep(Duration::from_millis(20));
        guest.vm.resume().expect("it goes on");
        pauses += 1;
        std::thread::sleep(Duration::from_millis(180));
        assert!(pauses < 10_000, "{}", guest.transcript.text());
    }
    let text = guest.finish();
    let happy = (1..=rounds).all(|round| text.contains(&format!("fio-was-happy:{round}")));
    assert!(pauses > 5 && happy, "{pauses} pauses\n{text}");
    assert!(text.contains(" 0% packet loss"), "{text}");
}

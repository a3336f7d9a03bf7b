//! Encrypted volumes under Linux's drivers and file systems, beside the kernel's dm-crypt.

#[path = "support/plain.rs"]
mod plain;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plain::Plain;
use support::linux::{LinuxGuest, Mapped, between, host, path_text as text, root_disk};
use vmcell::volume::{Key, Volume, VolumeFormat};
use vmcell::{Disk, VmBuilder};

const LONG: Duration = Duration::from_secs(240);
const SIZE: u64 = 48 << 20;

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn what_a_guest_writes_is_read_by_dm_crypt_and_the_other_way_around() {
    for sector_size in [4096, 512] {
        let folder = tempfile::tempdir().unwrap();
        let (path, key_file, mount) =
            (folder.path().join("volume"), folder.path().join("key"), folder.path().join("mount"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::write(&key_file, [0x3c; 32]).unwrap();
        let key = Key::random_file(&key_file).unwrap();
        Volume::create_with(&path, SIZE, &key, &VolumeFormat::new().sector_size(sector_size)).unwrap();
        let script = r#"
in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
for n in 1 2 3 4; do dd if=/dev/urandom of=/root/mnt/random$n bs=300k count=$n 2>/dev/null; done
cd /root/mnt && echo begin-sums && md5sum random* && echo end-sums; cd /
in_root umount /mnt && echo unmounted
"#;
        let disk = || Volume::open(&path, &key).unwrap().into_disk();
        let said =
            LinuxGuest::in_distribution(script).limit(LONG).run(|builder| builder.disk(root_disk()).disk(disk()));
        assert!(said.contains("unmounted") && !said.contains("failed"), "{said}");
        let sums = between(&said, "begin-sums\n", "end-sums").to_owned();
        assert_eq!(sums.lines().count(), 4, "{said}");
        {
            let mapped = Mapped::new("vmcell-test", &path, &key_file);
            host("e2fsck", &["-f", "-n", &mapped.path()]);
            host("mount", &[&mapped.path(), text(&mount)]);
            for (sum, name) in sums.lines().filter_map(|line| line.split_once("  ")) {
                assert!(host("md5sum", &[text(&mount.join(name))]).starts_with(sum), "{name}");
            }
            std::fs::write(mount.join("from-the-host"), "written through dm-crypt").unwrap();
            host("umount", &[text(&mount)]);
        }
        let script = "in_root e2fsck -f -n /dev/vdb; in_root mount -o ro /dev/vdb /mnt; cat /root/mnt/from-the-host";
        let said =
            LinuxGuest::in_distribution(script).limit(LONG).run(|builder| builder.disk(root_disk()).disk(disk()));
        assert!(said.contains("written through dm-crypt"), "{said}");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn forks_of_a_file_system_go_their_own_ways_and_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let keys = [Key::generate().unwrap(), Key::generate().unwrap()];
    Volume::create(path("base"), SIZE, &keys[0]).unwrap();
    let run = |name: &str, key: &Key, script: &str| {
        let disk = Volume::open(path(name), key).unwrap().into_disk();
        LinuxGuest::in_distribution(script).limit(LONG).run(|builder| builder.disk(root_disk()).disk(disk))
    };
    let said = run(
        "base",
        &keys[0],
        r#"
in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
dd if=/dev/urandom of=/root/mnt/common bs=1M count=8 2>/dev/null; echo sum $(md5sum < /root/mnt/common)
in_root umount /mnt && echo unmounted
"#,
    );
    assert!(said.contains("unmounted") && !said.contains("failed"), "{said}");
    let sum = between(&said, "sum ", " -").to_owned();
    Volume::fork(path("base"), &keys[0], path("one"), &keys[1]).unwrap();
    Volume::fork(path("base"), &keys[0], path("other"), &keys[1]).unwrap();
    for name in ["one", "other"] {
        let script = format!(
            r#"
in_root mount /dev/vdb /mnt || echo failed
echo common $(md5sum < /root/mnt/common)
in_root fio --name=verify --filename=/mnt/fio --size=6M --rw=randrw --bsrange=4k-128k --blockalign=4096 --direct=1 --ioengine=libaio \
  --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=16 --minimal >/root/tmp/fio.out 2>&1 && echo fio-was-happy || cat /root/tmp/fio.out
echo {name} > /root/mnt/name; rm /root/mnt/common
in_root umount /mnt; in_root e2fsck -f -n /dev/vdb && echo whole
"#
        );
        let said = run(name, &keys[1], &script);
        assert!(said.contains(&format!("common {sum}")) && said.contains("fio-was-happy"), "{said}");
        assert!(said.contains("whole") && !said.contains("failed"), "{said}");
    }
    for name in ["one", "other"] {
        let script =
            "in_root mount /dev/vdb /mnt; echo name $(cat /root/mnt/name) $(ls /root/mnt); in_root umount /mnt";
        let said = run(name, &keys[1], script);
        assert!(said.contains(&format!("name {name} fio lost+found name")), "{said}");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn fio_reads_back_what_it_wrote_and_the_guest_sees_a_volume_grow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let key = Key::generate().unwrap();
    Volume::create(&path, SIZE, &key).unwrap();
    let script = r#"
in_root fio --name=verify --filename=/dev/vdb --size=12M --rw=randrw --bsrange=4k-256k --bs_unaligned=0 \
  --blockalign=4096 --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 \
  --randseed=7 --minimal >/root/tmp/fio.out 2>&1 && echo fio-was-happy || cat /root/tmp/fio.out
in_root blkdiscard -z -o 16M -l 4M /dev/vdb && echo zeroed
dd if=/dev/vdb bs=1M skip=16 count=4 iflag=direct 2>/dev/null | md5sum
echo grow now; until [ $(cat /sys/block/vdb/size) = 196608 ]; do sleep 0.1; done; echo grown
"#;
    let disk = Volume::open(&path, &key).unwrap().into_disk();
    let handle = disk.handle();
    let guest = LinuxGuest::in_distribution(script).limit(LONG).start(|builder| builder.disk(root_disk()).disk(disk));
    guest.expect("grow now");
    Volume::grow(&path, 2 * SIZE).unwrap();
    handle.refresh();
    let said = guest.finish();
    assert!(said.contains("fio-was-happy") && said.contains("zeroed") && said.contains("grown"), "{said}");
    assert!(said.contains("b5cfa9d6c8febd618f91ac2843d50a1c"), "4 MiB of zeros:\n{said}");
    let mut disk = Plain::new(Volume::open(&path, &key).unwrap().into_backend());
    assert_eq!((disk.info().capacity, disk.read(16 << 20, 1 << 20).unwrap()), (2 * SIZE, vec![0; 1 << 20]));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn a_fork_and_the_file_system_on_it_grow_while_the_guest_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = Key::generate().unwrap();
    Volume::create(path("base"), SIZE, &key).unwrap();
    let disk = Volume::open(path("base"), &key).unwrap().into_disk();
    let script = "in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt && echo base > /root/mnt/name && in_root umount /mnt && echo made";
    let said = LinuxGuest::in_distribution(script).limit(LONG).run(|builder| builder.disk(root_disk()).disk(disk));
    assert!(said.contains("made"), "{said}");
    Volume::fork(path("base"), &key, path("fork"), &key).unwrap();
    let script = r#"
in_root mount /dev/vdb /mnt || echo failed
(for seed in 1 2 3; do
  in_root fio --name=verify --filename=/mnt/fio --size=12M --rw=randrw --bsrange=4k-64k --blockalign=4096 --direct=1 --ioengine=libaio \
    --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=16 --randseed=$seed --minimal || exit 1
done) >/root/tmp/fio.out 2>&1 &
fio=$!
echo grow now; until [ $(cat /sys/block/vdb/size) = 409600 ]; do sleep 0.1; done; echo grown
in_root resize2fs /dev/vdb >/root/tmp/resize.out 2>&1 && echo resized || cat /root/tmp/resize.out
wait $fio && echo fio-was-happy || cat /root/tmp/fio.out
dd if=/dev/urandom of=/root/mnt/large bs=1M count=100 2>/dev/null && echo sum $(md5sum < /root/mnt/large)
in_root umount /mnt; in_root e2fsck -f -n /dev/vdb && echo whole
"#;
    let volume = Volume::open(path("fork"), &key).unwrap();
    let handle = volume.handle();
    let guest = LinuxGuest::in_distribution(script)
        .limit(LONG)
        .start(|builder| builder.disk(root_disk()).disk(volume.into_disk()));
    guest.expect("grow now");
    handle.grow(100 << 20, LONG).unwrap();
    handle.grow(200 << 20, LONG).unwrap();
    let said = guest.finish();
    assert!(said.contains("resized") && said.contains("fio-was-happy") && said.contains("whole"), "{said}");
    assert!(!said.contains("failed"), "{said}");
    let sum = between(&said, "sum ", " -").to_owned();
    Volume::flatten_to(path("fork"), &key, path("flat"), &key, |_| std::ops::ControlFlow::Continue(())).unwrap();
    for name in ["fork", "flat"] {
        let disk = Volume::open(path(name), &key).unwrap().into_disk();
        let script = "in_root mount -o ro /dev/vdb /mnt; echo again $(cat /root/mnt/name) $(md5sum < /root/mnt/large)";
        let said = LinuxGuest::in_distribution(script).limit(LONG).run(|builder| builder.disk(root_disk()).disk(disk));
        assert!(said.contains(&format!("again base {sum}")), "{name}: {said}");
    }
}

/// The volume that a VM begins with, and those that its snapshots make, each the base of the next one.
const CHAIN: [&str; 4] = ["first", "second", "third", "fourth"];
/// Where a process that is to be killed finds them.
const KILLED: &str = "VMCELL_TEST_KILLED";

fn key_of(number: usize) -> Key {
    Key::random(&[u8::try_from(number).unwrap(); 32]).unwrap()
}

/// Writes to a database, and tells of each row that is stable: with less than `extra`, the journal's end is not, and takes the last row back.
const DATABASE: &str = r#"
in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
cat > /root/tmp/rows <<'EOF'
sqlite3 /mnt/db "create table rows(n integer primary key, text)"
n=0
while true; do
    n=$((n + 1))
    sqlite3 /mnt/db "pragma synchronous = extra; insert into rows values($n, hex(randomblob(2000)))" && echo "has $n rows" || echo failed
done
EOF
in_root sh /tmp/rows
"#;

/// The last row that was told of.
fn rows_in(text: &str) -> u64 {
    let told = text.lines().filter_map(|line| line.trim().strip_prefix("has ")?.strip_suffix(" rows")?.parse().ok());
    told.max().unwrap_or(0)
}

/// Runs a VM, takes snapshots of its volume, and tells on the way what the guest says, until this process is killed.
fn snapshots_until_killed(folder: &Path) {
    let volume = Volume::open(folder.join(CHAIN[0]), &key_of(0)).unwrap();
    let handle = volume.handle();
    let with_disks = |builder: VmBuilder| builder.disk(root_disk()).disk(volume.into_disk());
    let guest = LinuxGuest::in_distribution(DATABASE).limit(LONG).start(with_disks);
    let (mut told, mut taken, mut due) = (0, 1, 4);
    let (mut out, begun) = (std::io::stdout(), Instant::now());
    while begun.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(20));
        let text = guest.transcript.text();
        // Whole lines.
        let whole = text.rfind('\n').map_or(told, |last| last + 1);
        out.write_all(&text.as_bytes()[told..whole]).unwrap();
        told = whole;
        let rows = rows_in(&text[..whole]);
        if taken < CHAIN.len() && rows >= due {
            handle.snapshot(folder.join(CHAIN[taken]), &key_of(taken), LONG).unwrap();
            writeln!(out, "taken {taken} after {rows}").unwrap();
            (taken, due) = (taken + 1, rows + 4);
        }
    }
}

/// Runs [`snapshots_until_killed`] in a process of its own, and kills that some rows after the last snapshot. Returns how many rows were told
/// before each snapshot, and in the end.
fn kill_amid_snapshots(folder: &Path, test: &str) -> Vec<u64> {
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(own);
    command.args(["--ignored", "--exact", "--nocapture", test]).env(KILLED, folder);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (mut text, mut counts, mut is_killed) = (String::new(), Vec::new(), false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, rows)) = line.strip_prefix("taken ").and_then(|rest| rest.split_once(" after ")) {
            counts.push(rows.parse().unwrap());
        }
        text += &(line + "\n");
        let is_late = counts.last().is_some_and(|last| rows_in(&text) >= last + 4);
        if counts.len() == CHAIN.len() - 1 && is_late && !is_killed {
            child.kill().unwrap();
            is_killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(is_killed && !text.contains("failed"), "{status}:\n{text}");
    counts.push(rows_in(&text));
    counts
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_database_has_each_row_in_each_snapshot_of_its_volume_after_the_vmm_is_killed() {
    if let Some(folder) = std::env::var_os(KILLED) {
        return snapshots_until_killed(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    Volume::create(folder.path().join(CHAIN[0]), SIZE, &key_of(0)).unwrap();
    let counts = kill_amid_snapshots(
        folder.path(),
        "a_database_has_each_row_in_each_snapshot_of_its_volume_after_the_vmm_is_killed",
    );
    // A journal is replayed in a fork of each base, which stays as it is, and in the newest file itself.
    let disks: Vec<Disk> = (0..CHAIN.len())
        .map(|number| {
            let path = folder.path().join(CHAIN[number]);
            if number == CHAIN.len() - 1 {
                return Volume::open(path, &key_of(number)).unwrap().into_disk();
            }
            let fork = folder.path().join(format!("check{number}"));
            Volume::fork(path, &key_of(number), &fork, &key_of(9)).unwrap();
            Volume::open(fork, &key_of(9)).unwrap().into_disk()
        })
        .collect();
    let script = r#"
for disk in b c d e; do
    in_root mount /dev/vd$disk /mnt && in_root sqlite3 /mnt/db "pragma integrity_check; select 'rows of $disk ' || count(*) || ' ' || max(n) || ' .' from rows"
    in_root umount /mnt && in_root e2fsck -f -n /dev/vd$disk >/root/tmp/e2fsck 2>&1 && echo "$disk is whole" || cat /root/tmp/e2fsck
done
"#;
    let with_disks = |builder: VmBuilder| disks.into_iter().fold(builder.disk(root_disk()), VmBuilder::disk);
    let said = LinuxGuest::in_distribution(script).limit(LONG).run(with_disks);
    assert_eq!(said.matches("ok\n").count(), CHAIN.len(), "{said}");
    for (disk, told) in ["b", "c", "d", "e"].into_iter().zip(counts) {
        let numbers: Vec<u64> = between(&said, &format!("rows of {disk} "), " .")
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers[0] == numbers[1] && numbers[0] >= told, "{disk} has {numbers:?}, {told} were told:\n{said}");
        assert!(said.contains(&format!("{disk} is whole")), "{said}");
    }
}

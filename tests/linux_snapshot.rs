//! Forks of a Linux guest: a stock kernel and its drivers go on from a snapshot, with disks and random bytes.

mod support;

use std::fs;
use std::time::Duration;

use support::linux::{LinuxGuest, empty_disk, host, root_disk};
use support::{Transcript, is_long};
use vmcell::{Disk, Exit, MemoryBacking, MemoryConfig, RngConfig, Seccomp, Snapshot, Vm, VmBuilder};

const LONG: Duration = Duration::from_secs(300);

/// Writes files and their sums all the time, until it is told to end; then checks all of them.
const SCRIPT: &str = r#"
for module in /spare/*rng*.ko; do insmod $module; done
in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
cat > /root/mnt/work <<'EOF'
n=0
while [ ! -e /mnt/stop ]; do
    n=$((n + 1)); head -c 300000 /dev/urandom > /mnt/file$((n % 20))
    (cd /mnt && sha256sum file$((n % 20)) > sum$((n % 20)) && sync)
done
echo "worked $n"
EOF
in_root sh /mnt/work &
echo ready
while read line; do
    case "$line" in
    end) break ;;
    *) echo "heard $line" ;;
    esac
done
touch /root/mnt/stop; wait
in_root sh -c 'cd /mnt && cat sum* | sha256sum -c --quiet && echo sums agree'
in_root head -c 1000 /dev/hwrng | wc -c
in_root umount /mnt && echo unmounted
"#;

struct Fork {
    vm: Vm,
    transcript: Transcript,
}

impl Fork {
    fn start(builder: VmBuilder) -> Self {
        let transcript = Transcript::default();
        let vm = builder.console(transcript.console()).seccomp(Seccomp::Kill).build();
        let vm = vm.unwrap_or_else(|e| panic!("{}", e.chain()));
        vm.start().expect("the fork starts");
        Self { vm, transcript }
    }

    fn type_in(&self, text: &str) {
        assert_eq!(self.vm.write_console(text.as_bytes()), text.len());
    }

    /// Has it end, and checks what it found on its disk. Returns all that it said.
    fn finish(self, all: &[&str]) -> String {
        self.type_in("end\n");
        let ended = self.vm.wait_timeout(LONG);
        let text = self.transcript.text().replace('\r', "");
        assert!(matches!(ended, Ok(Exit::Shutdown)), "{ended:?} after:\n{text}");
        for wanted in all {
            assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
        }
        assert!(!text.contains("failed"), "{text}");
        text
    }
}

fn fork(snapshot: &Snapshot, image: &tempfile::NamedTempFile) -> Fork {
    let disk = Disk::open(image.path()).expect("the copy is opened");
    Fork::start(Vm::builder().fork_of(snapshot).disk(root_disk()).disk(disk))
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn forks_of_a_guest_that_writes_go_on_with_copies_of_its_disk_and_lose_nothing() {
    let image = empty_disk(64);
    let disk = Disk::open(image.path()).expect("the disk is opened");
    let guest = LinuxGuest::in_distribution(SCRIPT).limit(LONG);
    let guest = guest.start(|builder| {
        let memory = MemoryConfig::mib(256).backing(MemoryBacking::Memfd);
        builder.vcpus(2).memory(memory).disk(root_disk()).disk(disk).rng(RngConfig::new())
    });
    guest.expect("ready");
    guest.type_in("one\n");
    guest.expect("heard one");
    let mut taken = Vec::new();
    for _ in 0..if is_long() { 8 } else { 2 } {
        std::thread::sleep(Duration::from_secs(1));
        // The disk is copied at the moment of the snapshot.
        guest.vm.pause().expect("it is paused");
        let snapshot = guest.vm.snapshot().expect("a snapshot");
        let copy = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::copy(image.path(), copy.path()).expect("the disk is copied");
        guest.vm.resume().expect("it goes on");
        taken.push((snapshot, copy));
    }
    guest.type_in("end\n");
    let text = guest.finish();
    assert!(text.contains("sums agree") && text.contains("unmounted") && !text.contains("failed"), "{text}");
    for (snapshot, copy) in &taken {
        let fork = fork(snapshot, copy);
        fork.type_in("two\n");
        fork.transcript.expect("heard two", LONG);
        fork.finish(&["worked ", "sums agree", "1000", "unmounted"]);
        host("e2fsck", &["-f", "-n", copy.path().to_str().expect("a plain path")]);
    }
}

/// Runs a program in the distribution, with a file system on a disk of its own, until a line is typed.
fn on_a_disk(program: &str) -> String {
    format!(
        r#"
in_root mkfs.ext4 -q -F /dev/vdb && in_root mount /dev/vdb /mnt || echo failed
cat > /root/mnt/work <<'EOF'
{program}
EOF
in_root sh /mnt/work &
echo ready
read line
touch /root/mnt/stop; wait
in_root umount /mnt && echo unmounted
"#
    )
}

/// Takes a snapshot, with a copy of the disk, once the guest has said something. It goes on, and so do a fork and one from a file; each says
/// what is wanted, and leaves a file system without faults. Returns what was said before the snapshot, and in the end by each of the three.
fn over_snapshot_fork_and_load(program: &str, until: &str, wanted: &[&str]) -> (String, [String; 3]) {
    let (image, folder) = (empty_disk(64), tempfile::tempdir().expect("a folder"));
    let disk = Disk::open(image.path()).expect("the disk is opened");
    let guest = LinuxGuest::in_distribution(&on_a_disk(program)).limit(LONG).start(|builder| {
        let memory = MemoryConfig::mib(256).backing(MemoryBacking::Memfd);
        builder.vcpus(2).memory(memory).disk(root_disk()).disk(disk)
    });
    guest.expect(until);
    let copies = [(); 2].map(|()| tempfile::NamedTempFile::new().expect("a temporary file"));
    let before = guest.transcript.text().replace('\r', "");
    let copy = || copies.iter().try_for_each(|copy| fs::copy(image.path(), copy.path()).map(drop));
    let snapshot = guest.vm.snapshot_with(copy).unwrap_or_else(|e| panic!("{}", e.chain()));
    guest.type_in("end\n");
    let source = guest.finish();
    assert!(wanted.iter().all(|wanted| source.contains(wanted)) && !source.contains("failed"), "{source}");
    snapshot.save(folder.path().join("vm")).expect("it is saved");
    let loaded = Snapshot::load(folder.path().join("vm")).expect("it is loaded");
    let [one, two] =
        [(&snapshot, &copies[0]), (&loaded, &copies[1])].map(|(snapshot, copy)| fork(snapshot, copy).finish(wanted));
    for disk in [&image, &copies[0], &copies[1]] {
        host("e2fsck", &["-f", "-n", disk.path().to_str().expect("a plain path")]);
    }
    (before, [source, one, two])
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_database_with_synchronous_writes_has_each_row_in_the_source_in_a_fork_and_from_a_file() {
    let program = r#"
sqlite3 /mnt/db "create table rows(n integer primary key, text)"
n=0
while [ ! -e /mnt/stop ]; do
    n=$((n + 1))
    sqlite3 /mnt/db "pragma synchronous = full; insert into rows values($n, hex(randomblob(200)))" && echo "has $n rows"
done
sqlite3 /mnt/db "pragma integrity_check; select 'ends with ' || count(*) || ' of ' || max(n) || ' rows' from rows"
"#;
    let (before, texts) = over_snapshot_fork_and_load(program, "has 5 rows", &["ok\n", "unmounted"]);
    let number = |text: &str, behind: &str| -> u64 {
        let rest = text.rsplit_once(behind).expect("it is there").1;
        rest.split(' ').next().expect("a word").parse().expect("a number")
    };
    let told = number(before.rsplit_once(" rows").expect("some rows").0, "has ");
    for text in texts {
        let (count, last) = (number(&text, "ends with "), number(&text, " of "));
        assert!(count == last && last >= told, "{count} of {last}, {told} were told:\n{text}");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn fio_reads_back_what_it_wrote_over_a_snapshot_in_the_source_in_a_fork_and_from_a_file() {
    let program = r#"
n=0
while [ ! -e /mnt/stop ]; do
    n=$((n + 1))
    fio --name=verify --filename=/mnt/data --size=8M --rw=randrw --bs=16k --direct=1 --ioengine=libaio --iodepth=8 \
      --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=$n --minimal >/mnt/fio.out 2>&1 \
      && echo fio-was-happy || { cat /mnt/fio.out; echo failed; }
done
"#;
    over_snapshot_fork_and_load(program, "fio-was-happy", &["fio-was-happy", "unmounted"]);
}

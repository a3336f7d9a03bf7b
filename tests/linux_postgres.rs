//! Postgres in a guest, on an encrypted volume, while the process of the VMM is killed at moments of no choice.

mod support;

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use support::is_long;
use support::linux::{LinuxGuest, between, root_disk};
use vmcell::volume::{Key, Volume};

/// Of one VM. A host that does other things, too, is slow.
const LIMIT: Duration = Duration::from_secs(300);
const SIZE: u64 = 256 << 20;
/// Where a process that is to be killed finds the volume.
const KILLED: &str = "VMCELL_TEST_KILLED";
const TEST: &str = "postgres_has_each_transaction_that_it_told_of_after_the_vmm_is_killed_time_and_again";

/// Mounts the volume, which the first time gets a file system and a copy of the distribution's empty cluster, and starts Postgres.
const START: &str = r#"

mkdir -p /root/dev/shm && mount -t tmpfs shm /root/dev/shm
in_root blkid /dev/vdb >/dev/null || { in_root mkfs.ext4 -q /dev/vdb || echo failed; }
in_root mount /dev/vdb /mnt || echo failed
bin=$(cd /root && ls -d usr/lib/postgresql/*/bin)
data=$(cd /root && ls -d var/lib/postgresql/*/main)
as_postgres() { in_root setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
sql() { as_postgres psql -qAtX -P pager=off -v ON_ERROR_STOP=1 -h /tmp postgres "$@"; }
if [ ! -e /root/mnt/made ]; then
    rm -rf /root/mnt/main && in_root cp -a /$data /mnt/main || echo failed
    printf 'local all all trust\n' > /root/mnt/main/pg_hba.conf; : > /root/mnt/main/pg_ident.conf
    printf "listen_addresses = ''\nunix_socket_directories = '/tmp'\nshared_buffers = 8MB\ncheckpoint_timeout = 30s\nmax_wal_size = 32MB\nmin_wal_size = 32MB\nwal_buffers = 1MB\n" > /root/mnt/main/postgresql.conf
    as_postgres /$bin/pg_checksums --enable -D /mnt/main >/dev/null 2>&1 || echo failed
    in_root touch /mnt/made; in_root sync
fi
as_postgres /$bin/pg_ctl -D /mnt/main -l /tmp/log -t 300 -w start >/dev/null || { echo failed; cat /root/tmp/log; }
"#;

/// Tells how many transactions are there. Each of them adds a row, and its number to a sum elsewhere.
const CHECK: &str = r#"
sql -c "create table if not exists rows(n bigint primary key, filler text); create table if not exists sums(total numeric);
    insert into sums select 0 where not exists (select from sums)"
sql -c "select 'found ' || count(*) || ' ' || coalesce(max(n), 0) || ' ' || coalesce(sum(n), 0) || ' ' || (select total from sums) || ' .' from rows"
as_postgres /$bin/pg_amcheck -h /tmp --heapallindexed --install-missing postgres && echo the indexes are whole
"#;

/// Writes transactions, and tells of each that Postgres has told to be stable, while others load the server and the disk.
const WRITE: &str = r#"
sql -c "create table if not exists noise(n int, filler text)"
while true; do
    sql -c "insert into noise select n, repeat(md5(n::text), 30) from generate_series(1, 300) n" -c 'vacuum noise' -c 'delete from noise' || echo failed
done &
n=$(sql -c "select coalesce(max(n), 0) from rows")
while true; do
    n=$((n + 1))
    echo "with new as (insert into rows values ($n, repeat(md5('$n'), 20)) returning n)
        update sums set total = total + (select n from new) returning 'has ' || $n || ' rows';"
done | sql || echo failed
"#;

/// Stops Postgres, and checks each page and the file system.
const END: &str = r#"
as_postgres /$bin/pg_ctl -D /mnt/main -m fast -t 300 -w stop >/dev/null || echo failed
as_postgres /$bin/pg_checksums --check -D /mnt/main | grep '^Bad'
in_root umount /mnt; in_root e2fsck -f -n /dev/vdb && echo the file system is whole
"#;

fn key() -> Key {
    Key::random(&[0x77; 32]).unwrap()
}

fn guest(volume: &Path, script: &str) -> support::linux::RunningGuest {
    let disk = Volume::open(volume, &key()).unwrap().into_disk();
    let guest = LinuxGuest::in_distribution(&format!("{START}{script}")).limit(LIMIT);
    guest.start(|builder| builder.memory_mib(512).disk(root_disk()).disk(disk))
}

/// Runs a VM and passes on what its guest says, until this process is killed.
fn run_until_killed(volume: &Path) {
    let guest = guest(volume, &format!("{CHECK}{WRITE}"));
    let (mut told, mut out, begun) = (0, std::io::stdout(), Instant::now());
    while begun.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(5));
        let text = guest.transcript.text();
        // Whole lines.
        let whole = text.rfind('\n').map_or(told, |last| last + 1);
        out.write_all(&text.as_bytes()[told..whole]).unwrap();
        told = whole;
    }
}

/// The transactions that a guest found: how many, the last one's number, the sum of all numbers, and that sum as it was kept.
fn found(text: &str) -> [u64; 4] {
    let numbers = between(text, "found ", " .").split(' ').map(|number| number.parse().unwrap());
    let numbers: Vec<u64> = numbers.collect();
    numbers.try_into().unwrap_or_else(|other| panic!("{other:?}"))
}

/// Checks what a guest found after a kill: all that it had told of, nothing of a transaction by half, and no gap.
fn check(text: &str, told: u64) -> u64 {
    let [count, last, sum, kept] = found(text);
    assert!(count == last && sum == kept && sum == last * (last + 1) / 2, "{:?}:\n{text}", found(text));
    assert!(last >= told, "{last} transactions are there, {told} were told of:\n{text}");
    assert!(text.contains("the indexes are whole") && !text.contains("failed") && !text.contains("ERROR"), "{text}");
    last
}

/// A number that is another one each time, below `limit`.
fn random(limit: u64) -> u64 {
    RandomState::new().hash_one(limit) % limit
}

/// Runs [`run_until_killed`] in a process of its own, which is killed at a random moment after its guest began to write.
fn kill_a_vmm(volume: &Path, told: u64) -> u64 {
    let mut vmm = Command::new(std::env::current_exe().unwrap());
    vmm.args(["--ignored", "--exact", "--nocapture", TEST]).env(KILLED, volume);
    let mut vmm = vmm.stdout(Stdio::piped()).spawn().unwrap();
    let (line_out, lines) = mpsc::channel();
    let output = BufReader::new(vmm.stdout.take().unwrap());
    let reader =
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| line_out.send(line).is_ok()));
    let (mut text, mut due, mut writes) = (String::new(), Instant::now() + LIMIT, false);
    loop {
        match lines.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if !writes && rows_in(&line) > 0 {
                    (writes, due) = (true, Instant::now() + Duration::from_millis(random(3000)));
                }
                text += &(line + "\n");
            }
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => panic!("the VMM ended by itself: {:?}\n{text}", vmm.wait()),
        }
    }
    vmm.kill().unwrap();
    vmm.wait().unwrap();
    reader.join().unwrap();
    text.extend(lines.iter().map(|line| line + "\n"));
    check(&text, told);
    let rows = rows_in(&text);
    assert!(rows > 0, "the guest never wrote:\n{text}");
    rows
}

/// The last transaction that a guest told of.
fn rows_in(text: &str) -> u64 {
    let told = text.lines().filter_map(|line| line.trim().strip_prefix("has ")?.strip_suffix(" rows")?.parse().ok());
    told.max().unwrap_or(0)
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn postgres_has_each_transaction_that_it_told_of_after_the_vmm_is_killed_time_and_again() {
    if let Some(volume) = std::env::var_os(KILLED) {
        return run_until_killed(Path::new(&volume));
    }
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("volume");
    Volume::create(&volume, SIZE, &key()).unwrap();
    let kills = if is_long() { 20 } else { 1 };
    let told = (0..kills).fold(0, |told, _| kill_a_vmm(&volume, told));
    let said = guest(&volume, &format!("{CHECK}{END}")).finish();
    check(&said, told);
    assert!(said.contains("Bad checksums:  0") && said.contains("the file system is whole"), "{said}");
}

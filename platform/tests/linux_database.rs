//! Postgres as the example deploys it, while the host program is killed, and as it was at a snapshot.

#[path = "support/cell.rs"]
mod cell;
#[path = "../../tests/support/mod.rs"]
mod library;

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cell::{Cell, Killed, copy_program, program, proxy_of, serve};
use library::is_long;
use library::linux::host;

const EXAMPLE: &str = include_str!("../examples/postgres.toml");
const START: &str = include_str!("../examples/postgres/start");
const PASSWORD: &str = "of the test's";
/// What the script and the server need beside the server's own programs.
const PROGRAMS: [&str; 7] = ["sh", "chown", "mkdir", "mv", "rm", "setpriv", "sync"];

/// Debian's Postgres as this host has it, with the example's script.
fn image(folder: &Path) {
    PROGRAMS.iter().for_each(|program| copy_program(folder, program));
    let tree = "cd /; tar c --exclude=*/bitcode --exclude=llvmjit* usr/lib/postgresql usr/share/postgresql usr/share/postgresql-common \
        usr/share/zoneinfo/UTC etc/passwd etc/group | tar x --no-same-owner -C \"$0\"";
    host("sh", &["-c", tree, folder.to_str().unwrap()]);
    let of_postgres = "for program in /usr/lib/postgresql/*/bin/* /usr/lib/postgresql/*/lib/*.so; do ldd $program; done | \
        grep -o '/[^ ]*' | grep -v : | sort -u | while read library; do mkdir -p \"$0\"$(dirname $library); cp -n $library \"$0\"$library; done";
    host("sh", &["-c", of_postgres, folder.to_str().unwrap()]);
    for made in ["tmp", "run", "var/lib/postgresql/data"] {
        std::fs::create_dir_all(folder.join(made)).unwrap();
    }
    let bin = folder.join("bin");
    if !bin.exists() {
        std::os::unix::fs::symlink("usr/bin", bin).unwrap();
    }
    std::fs::write(folder.join("start"), START).unwrap();
    std::fs::set_permissions(folder.join("start"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The example, but for its image, the size of its VM and its disk, and how long a slow host may take.
fn example() -> String {
    let changed = [
        ("image = \"postgres/postgres.tar\"", "image = \"postgres\""),
        ("size = \"medium\"", "size = \"small\""),
        ("size = \"10G\"", "size = \"256M\""),
        ("shared_buffers=128MB", "shared_buffers=16MB -c max_wal_size=64MB -c min_wal_size=32MB"),
    ];
    changed.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn deployed() -> Cell {
    let cell = Cell::new();
    let folder = cell.folder.path();
    image(&folder.join("postgres"));
    let mut set = program(folder);
    let set = set.args(["secrets", "set", "db", "POSTGRES_PASSWORD"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut set = set.spawn().unwrap();
    set.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    assert!(set.wait().unwrap().success());
    let app = folder.join("db.toml");
    std::fs::write(&app, example()).unwrap();
    cell.done(&["deploy", app.to_str().unwrap()]);
    cell
}

/// A program of Postgres's, as the superuser, by the app's port on this host.
fn client(program: &str, address: &str) -> Command {
    let (host, port) = address.rsplit_once(':').unwrap();
    let found = library::linux::host("sh", &["-c", &format!("ls -d /usr/lib/postgresql/*/bin/{program}")]);
    let mut command = Command::new(found.trim());
    command.env("PGHOST", host).env("PGPORT", port).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "20").stdin(Stdio::null());
    command
}

fn sql(address: &str, query: &str) -> Result<String, String> {
    let output = client("psql", address).args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", query]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn until_answers(cell: &Cell, address: &str) {
    cell.until("Postgres", |_| sql(address, "select 1").is_ok());
}

/// How many transactions pgbench was told of as committed.
fn told(said: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let number = line.unwrap_or_else(|| panic!("{said}")).split('/').next().unwrap();
    number.trim().parse().unwrap()
}

/// How many transactions there are. Each adds a row, and the same number to an account, a teller and a branch.
fn found(address: &str) -> u64 {
    let query = "select count(*), coalesce(sum(delta), 0), (select sum(abalance) from pgbench_accounts),
        (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches) from pgbench_history";
    let numbers = sql(address, query).unwrap();
    let numbers: Vec<i64> = numbers.split('|').map(|number| number.parse().unwrap()).collect();
    assert!(numbers[1..].iter().all(|sum| *sum == numbers[1]), "{numbers:?}");
    numbers[0].unsigned_abs()
}

fn benched(address: &str, seconds: u64) -> std::process::Child {
    let mut bench = client("pgbench", address);
    bench.args(["-n", "-c", "2", "-T", &seconds.to_string()]).stdout(Stdio::piped()).stderr(Stdio::null());
    bench.spawn().unwrap()
}

/// Kills `cell serve` while transactions come, and starts it again; returns how many are there then.
fn killed(cell: &mut Cell, address: &str, before: u64) -> u64 {
    let bench = benched(address, 100);
    let began = Instant::now();
    while found(address) < before + 3 {
        assert!(began.elapsed() < cell::LONG);
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(RandomState::new().hash_one(before) % 2000));
    assert_eq!(cell.end("KILL"), None);
    let said = String::from_utf8(bench.wait_with_output().unwrap().stdout).unwrap();
    cell.server = serve(cell.folder.path(), &[]);
    until_answers(cell, address);
    let (told, there) = (told(&said), found(address) - before);
    // One of each client may have been committed without anybody being told.
    assert!(told > 0 && (told..=told + 2).contains(&there), "{told} were told of, {there} are there:\n{said}");
    before + there
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_database_has_each_transaction_that_it_told_of_after_a_kill_and_is_restored_to_a_snapshot() {
    let mut cell = deployed();
    let (_proxy, address) = proxy_of(&cell, "db", 5432);
    let _: &Killed = &_proxy;
    assert!(sql(&address, "select 1").is_ok());
    let made = client("pgbench", &address).args(["-i", "-I", "dtGp", "-q"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut there = 0;
    for _ in 0..if is_long() { 10 } else { 1 } {
        there = killed(&mut cell, &address, there);
    }
    // The clock has taken one at the start, and the person takes another.
    let taken = cell.json(&["volumes", "snapshot", "db", "data"])["snapshot"].clone();
    let snapshots = cell.json(&["volumes", "list", "db"])[0]["snapshots"].clone();
    let made: Vec<&str> = snapshots.as_array().unwrap().iter().map(|one| one["made"].as_str().unwrap()).collect();
    assert_eq!(made, ["clock", "person"], "{snapshots}");
    sql(&address, "drop table pgbench_tellers").unwrap();
    cell.done(&["volumes", "restore", "db", "data", &taken.to_string()]);
    until_answers(&cell, &address);
    assert_eq!(found(&address), there);
}

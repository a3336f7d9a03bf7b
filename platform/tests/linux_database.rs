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

use cell::{Cell, Killed, copy_program, program, serve};
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
    let tree = "cd /; tar c --exclude=bitcode --exclude='llvmjit*' --exclude=man usr/lib/postgresql/*/bin/postgres \
        usr/lib/postgresql/*/bin/initdb usr/lib/postgresql/*/lib usr/share/postgresql etc/passwd etc/group | tar x --no-same-owner -C \"$0\"";
    host("sh", &["-c", tree, folder.to_str().unwrap()]);
    let libraries = "for program in /usr/lib/postgresql/*/bin/postgres /usr/lib/postgresql/*/bin/initdb; do ldd $program; done | \
        grep -o '/[^ ]*' | sort -u | while read library; do mkdir -p \"$0\"$(dirname $library); cp $library \"$0\"$library; done";
    host("sh", &["-c", libraries, folder.to_str().unwrap()]);
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
        ("every = \"1d\", keep = \"5d\"", "every = \"10s\", keep = \"10s\""),
        ("shared_buffers=128MB", "shared_buffers=16MB -c max_wal_size=64MB -c min_wal_size=32MB"),
    ];
    changed.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

/// Deploys the example.
fn deploy(cell: &Cell) {
    let folder = cell.folder.path();
    image(&folder.join("postgres"));
    let mut set = program(folder);
    let set = set.args(["secrets", "set", "db", "POSTGRES_PASSWORD"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut set = set.spawn().unwrap();
    set.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    assert!(set.wait().unwrap().success());
    let path = folder.join("db.toml");
    std::fs::write(&path, example()).unwrap();
    cell.done(&["deploy", path.to_str().unwrap()]);
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

/// The database, where it listens, and what pgbench needs in it.
fn benched_database() -> (Cell, Killed, String) {
    let cell = Cell::new();
    deploy(&cell);
    let (proxy, address) = cell.proxy_to("db", 5432);
    fill(&address);
    (cell, proxy, address)
}

fn fill(address: &str) {
    let made = client("pgbench", address).args(["-i", "-I", "dtGp", "-q"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_database_has_each_transaction_that_it_told_of_after_the_host_program_is_killed() {
    let (mut cell, _proxy, address) = benched_database();
    let mut there = 0;
    for _ in 0..if is_long() { 10 } else { 1 } {
        there = killed(&mut cell, &address, there);
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_database_is_restored_to_a_snapshot_while_the_clock_takes_and_removes_others() {
    let (cell, _proxy, address) = benched_database();
    let said = String::from_utf8(benched(&address, 5).wait_with_output().unwrap().stdout).unwrap();
    let there = found(&address);
    assert_eq!(there, told(&said), "{said}");
    let taken = cell.json(&["volumes", "snapshot", "db", "data"])["snapshot"].clone();
    sql(&address, "drop table pgbench_tellers").unwrap();
    // The clock has taken some meanwhile, while transactions came, and has removed all but the last ones.
    cell.until("a snapshot by the clock that is gone", |cell| {
        let told = cell.json(&["volumes", "list", "db"])[0].clone();
        assert!(told["trouble"].is_null(), "{told}");
        let by = |who: &str| told["snapshots"].as_array().unwrap().iter().filter(|one| one["made"] == who).count();
        (by("person"), by("clock")) == (1, 1) && !cell.folder.path().join("state/volumes/db.data.1.vol").exists()
    });
    cell.done(&["volumes", "restore", "db", "data", &taken.to_string()]);
    until_answers(&cell, &address);
    assert_eq!(found(&address), there);
}

//! Postgres as the example deploys it, and what is asked of it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cell::{Cell, copy_program, program};
use crate::library::linux::host;

pub const EXAMPLE: &str = include_str!("../../examples/postgres.toml");
pub const START: &str = include_str!("../../examples/postgres/start");
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

/// The example, but for its image, the size of its VM, its volume, and how much of that its log takes.
fn example(app: &str, volume: &str, options: &str) -> String {
    let options = format!("shared_buffers=16MB -c max_wal_size=64MB -c min_wal_size=32MB {options}");
    let changed = [
        ("name = \"db\"", format!("name = \"{app}\"")),
        ("image = \"postgres/postgres.tar\"", "image = \"postgres\"".to_owned()),
        ("size = \"medium\"", "size = \"small\"".to_owned()),
        ("size = \"10G\"\nsnapshots = { every = \"1d\", keep = \"5d\" }", volume.to_owned()),
        ("shared_buffers=128MB", options),
    ];
    changed.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

/// Deploys the example as an app of this name, with this in place of what it says of its volume, and these options of the server.
pub fn deploy(cell: &Cell, app: &str, volume: &str, options: &str) {
    let folder = cell.folder.path();
    image(&folder.join("postgres"));
    let mut set = program(folder);
    let set = set.args(["secrets", "set", app, "POSTGRES_PASSWORD"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut set = set.spawn().unwrap();
    set.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    assert!(set.wait().unwrap().success());
    let path = folder.join(format!("{app}.toml"));
    std::fs::write(&path, example(app, volume, options)).unwrap();
    cell.done(&["deploy", path.to_str().unwrap()]);
}

/// A program of Postgres's, as the superuser, by the app's port on this host.
pub fn client(program: &str, address: &str) -> Command {
    let (machine, port) = address.rsplit_once(':').unwrap();
    let found = host("sh", &["-c", &format!("ls -d /usr/lib/postgresql/*/bin/{program}")]);
    let mut command = Command::new(found.trim());
    command.env("PGHOST", machine).env("PGPORT", port).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "20").stdin(Stdio::null());
    command
}

pub fn sql(address: &str, query: &str) -> Result<String, String> {
    sql_by(PASSWORD, address, query)
}

/// What the database answers to whoever has this password.
pub fn sql_by(password: &str, address: &str, query: &str) -> Result<String, String> {
    let mut psql = client("psql", address);
    psql.env("PGPASSWORD", password).args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", query]);
    let output = psql.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

pub fn until_answers(cell: &Cell, address: &str) {
    cell.until("Postgres", |_| sql(address, "select 1").is_ok());
}

/// How many transactions pgbench was told of as committed.
pub fn told(said: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let number = line.unwrap_or_else(|| panic!("{said}")).split('/').next().unwrap();
    number.trim().parse().unwrap()
}

/// How many transactions there are. Each adds a row, and the same number to an account, a teller and a branch.
pub fn found(address: &str) -> u64 {
    let query = "select count(*), coalesce(sum(delta), 0), (select sum(abalance) from pgbench_accounts),
        (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches) from pgbench_history";
    let numbers = sql(address, query).unwrap();
    let numbers: Vec<i64> = numbers.split('|').map(|number| number.parse().unwrap()).collect();
    assert!(numbers[1..].iter().all(|sum| *sum == numbers[1]), "{numbers:?}");
    numbers[0].unsigned_abs()
}

pub fn benched(address: &str, seconds: u64) -> std::process::Child {
    let mut bench = client("pgbench", address);
    bench.args(["-n", "-c", "2", "-T", &seconds.to_string()]).stdout(Stdio::piped()).stderr(Stdio::null());
    bench.spawn().unwrap()
}

/// Makes what pgbench needs.
pub fn fill(address: &str) {
    let made = client("pgbench", address).args(["-i", "-I", "dtGp", "-q"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

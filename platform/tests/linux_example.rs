//! Postgres as somebody deploys it who follows `platform/examples/postgres.toml`: the image that the example's script makes, the example as it
//! stands, and the commands that it names.

#[path = "support/cell.rs"]
mod cell;
#[path = "../../tests/support/mod.rs"]
mod library;
#[path = "support/postgres.rs"]
mod postgres;

use std::process::Command;

use cell::Cell;
use library::linux::path_of;
use postgres::{EXAMPLE, sql_by};

/// The commands at the example's beginning.
fn commands() -> Vec<&'static str> {
    let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix("#   "));
    lines.map(|line| line.split("  #").next().unwrap_or(line).trim()).collect()
}

/// Runs a command of the example's in the folder that has the repository's files.
fn run(cell: &Cell, command: &str) -> String {
    let folder = cell.folder.path();
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
    let mut sh = Command::new("sh");
    sh.args(["-ec", command]).current_dir(folder).env("CELL_STATE", folder.join("state")).env("PATH", path);
    let output = sh.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command}: {said}\n{}", cell.logs());
    said
}

/// The example's files, where its commands look for them, and `cell` as a command.
fn laid_out() -> Cell {
    let folder = tempfile::tempdir().unwrap();
    let examples = folder.path().join("platform/examples");
    for made in [examples.join("postgres"), folder.path().join("bin")] {
        std::fs::create_dir_all(made).unwrap();
    }
    std::fs::write(examples.join("postgres.toml"), EXAMPLE).unwrap();
    let link = |from: &str, to: &str| std::os::unix::fs::symlink(path_of(from), folder.path().join(to)).unwrap();
    link("VMCELL_POSTGRES", "platform/examples/postgres/postgres.tar");
    link("VMCELL_CELL", "bin/cell");
    Cell::with(folder, &[])
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn the_example_is_deployed_as_it_stands_and_restored_by_the_commands_that_it_names() {
    let cell = laid_out();
    let [image, password, secret, deploy, proxy, psql, list, restore] = commands()[..] else {
        panic!("{:?}", commands())
    };
    // It was run before, where there is a network.
    assert_eq!(image, "platform/examples/postgres/image");
    for command in [password, secret] {
        run(&cell, command);
    }
    let said = run(&cell, deploy);
    assert!(said.contains("Release 1 of db is deployed"), "{said}");
    // Its port may be taken here, and psql may not be the host's: the rest of both commands stands.
    assert_eq!(proxy, "cell proxy db 5432");
    assert!(psql.starts_with("PGPASSWORD=$(cat password) psql -h 127.0.0.1 -U postgres"), "{psql}");
    let (_proxy, address) = cell.proxy_to("db", 5432);
    let password = std::fs::read_to_string(cell.folder.path().join("password")).unwrap();
    let ask = |query: &str| sql_by(password.trim_end(), &address, query);
    let refused = sql_by("another", &address, "select 1").unwrap_err();
    assert!(refused.contains("password authentication failed"), "{refused}");
    assert_eq!(ask("show shared_buffers"), Ok("128MB".into()));
    ask("create table kept as select n, repeat(n::text, 100) as text from generate_series(1, 10000) n").unwrap();
    // A query that Postgres would have compiled, if it could.
    let costly = "set jit_above_cost = 0; set jit_inline_above_cost = 0; select count(*), sum(n) from kept";
    assert_eq!(ask(costly), Ok("10000|50005000".into()));
    let inside =
        cell.done(&["exec", "db", "--", "/bin/sh", "-c", "nproc; df -k --output=size /var/lib/postgresql/data"]);
    let numbers: Vec<u64> = inside.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(matches!(numbers[..], [2, 9_500_000..=10_485_760]), "{inside}");

    let taken = cell.json(&["volumes", "snapshot", "db", "data"])["snapshot"].clone();
    ask("delete from kept where n > 10; checkpoint").unwrap();
    let listed = run(&cell, list);
    assert!(listed.contains(&taken.to_string()) && listed.contains("clock"), "{listed}");
    let (restore, number) = restore.rsplit_once(' ').unwrap();
    assert_eq!(number, "3");
    run(&cell, &format!("{restore} {taken}"));
    cell.until("Postgres", |_| ask("select 1").is_ok());
    assert_eq!(ask("select count(*) from kept"), Ok("10000".into()));
}

//! SQLite on a volume of one host, read at another one, and promoted there when the first one is killed.

#[path = "support/cell.rs"]
mod cell;
#[path = "../../tests/support/mod.rs"]
mod library;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cell::{Cell, copy_program, serve, two_hosts};

/// Answers a line of SQL, and says so once it is committed.
const ANSWER: &str =
    "#!/bin/sh\nread -r line\nprintf '%s\\n' \"$line\" | sqlite3 -bail /data/notes.db 2>&1 && echo done\n";

/// Deploys an app that answers SQL on a volume, which is what `volume` says beside its name and place.
fn deploy(cell: &Cell, app: &str, volume: &str) {
    let image = cell.folder.path().join("sqlite");
    ["sh", "socat", "sqlite3"].iter().for_each(|program| copy_program(&image, program));
    if !image.join("bin").exists() {
        std::os::unix::fs::symlink("usr/bin", image.join("bin")).unwrap();
    }
    std::fs::write(image.join("answer"), ANSWER).unwrap();
    std::fs::set_permissions(image.join("answer"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "name = \"{app}\"\nimage = \"sqlite\"\n\
         command = [\"/usr/bin/socat\", \"TCP6-LISTEN:5000,fork,reuseaddr,ipv6only=0\", \"EXEC:/answer\"]\n\
         [[services]]\nport = 5000\ncheck = {{ grace = \"110s\", timeout = \"20s\", interval = \"5s\" }}\n\
         [[volumes]]\nname = \"data\"\npath = \"/data\"\n{volume}\n"
    );
    let path = cell.folder.path().join(format!("{app}.toml"));
    std::fs::write(&path, text).unwrap();
    cell.done(&["deploy", path.to_str().unwrap()]);
}

/// What a line of SQL is answered by; an error if it was not said to be done.
fn sql(address: &str, line: &str) -> Result<String, String> {
    let asked = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        writeln!(stream, "{line}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer = asked().map_err(|why: std::io::Error| why.to_string())?;
    answer.strip_suffix("done\n").map(|answer| answer.trim().to_owned()).ok_or(answer)
}

/// Two hosts of a mesh, of which the first has notes in a database, and the second one a copy; and the first one's arguments.
fn two_with_notes() -> (Cell, Cell, Vec<String>) {
    let (alpha, beta, first) = two_hosts();
    deploy(&alpha, "notes", "size = \"32M\"\nreplicate = { to = \"beta\", every = \"2s\" }");
    (alpha, beta, first)
}

/// Waits until all that is there now is at the other host.
fn until_copied(alpha: &Cell, address: &str) {
    // A snapshot is taken only if something was written.
    alpha.until_copied("notes", || drop(sql(address, "pragma user_version = 1;").unwrap()));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn an_app_at_another_host_reads_what_the_database_was_told_a_moment_ago() {
    let (alpha, beta, _) = two_with_notes();
    let (_proxy, address) = alpha.proxy_to("notes", 5000);
    sql(&address, "create table notes(text); insert into notes values ('first');").unwrap();
    until_copied(&alpha, &address);
    deploy(&beta, "reads", "replica_of = \"notes\"");
    let (_proxy_there, there) = beta.proxy_to("reads", 5000);
    let read = |address: &str| sql(address, "select group_concat(text) from notes;");
    beta.until("what was copied", |_| read(&there).is_ok_and(|text| text == "first"));
    sql(&address, "insert into notes values ('second');").unwrap();
    beta.until("what was written later", |_| read(&there).is_ok_and(|text| text == "first,second"));
    assert_eq!(read(&address).unwrap(), "first,second");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_copy_is_promoted_with_all_that_had_come_and_the_host_that_comes_back_is_told() {
    let (mut alpha, beta, mesh) = two_with_notes();
    let (_proxy, address) = alpha.proxy_to("notes", 5000);
    sql(&address, "create table notes(number integer primary key);").unwrap();
    let add = || sql(&address, "insert into notes values (null); select count(*) from notes;").unwrap();
    let add_five = || (0..5).fold(0, |_, _| add().parse::<u64>().unwrap());
    let before = add_five();
    until_copied(&alpha, &address);
    let last = add_five();
    assert_eq!((before, last, alpha.end("KILL")), (5, 10, None));
    let early = beta.run(&["volumes", "snapshot", "notes", "data"]);
    assert!(String::from_utf8_lossy(&early.stderr).contains("is a copy of that of alpha"), "{early:?}");
    let promoted = beta.json(&["volumes", "promote", "notes", "data"])["snapshot"].to_string();
    // As long as the first host is one of the mesh, the app's name is its.
    beta.done(&["volumes", "fork", "notes", "data", &promoted, "second", "data"]);
    deploy(&beta, "second", "size = \"32M\"");
    let (_proxy_there, there) = beta.proxy_to("second", 5000);
    let after: u64 = sql(&there, "select count(*) from notes;").unwrap().parse().unwrap();
    assert!((before..=last).contains(&after), "{before} were there before the copy was made, {after} are there");
    assert_eq!(sql(&there, "pragma integrity_check;").unwrap(), "ok");
    sql(&there, "insert into notes values (100);").unwrap();
    alpha.server = serve(alpha.folder.path(), &mesh);
    alpha.until("the news", |alpha| {
        let status = alpha.run(&["status", "notes"]);
        String::from_utf8_lossy(&status.stdout).contains("the copy at beta was promoted (generation 1)")
    });
}

//! `cell` as a person uses it: apps of Debian's programs in VMs of Debian's kernel, deployed, asked, replaced and found again.

#[path = "support/cell.rs"]
mod cell;
#[path = "../../tests/support/mod.rs"]
mod library;
#[path = "support/pebble.rs"]
mod pebble;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cell::{Cell, SERVE, curl, serve};
use library::linux::host;
use serde_json::Value;

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn an_app_is_deployed_asked_entered_and_found_again_after_the_host_program_was_killed() {
    let page = format!("127.0.0.1:{}", pebble::port());
    let mut cell = Cell::with(tempfile::tempdir().unwrap(), &["--ui".to_owned(), page.clone()]);
    let said = cell.done(&["deploy", &cell.app("hello", "")]);
    assert!(said.contains("VM 1 is healthy") && said.contains("Release 1 of web is deployed"), "{said}");
    let (_proxy, address) = cell.proxy();
    assert_eq!(curl(&address), Ok("hello".into()));
    let entered = cell.run(&["exec", "web", "--", "/bin/sh", "-c", "echo $GREETING out; echo err >&2; exit 7"]);
    assert_eq!(entered.status.code(), Some(7), "{entered:?}");
    assert_eq!((entered.stdout.as_slice(), entered.stderr.as_slice()), (&b"hello out\n"[..], &b"err\n"[..]));
    assert_eq!(cell.done(&["exec", "web", "--", "/bin/date", "-s", "@1000000000", "+%s"]), "1000000000\n");
    let year = |cell: &Cell| cell.done(&["exec", "web", "--", "/bin/date", "+%Y"]).trim().parse::<u32>().unwrap();
    cell.until("the host's time", |cell| year(cell) > 2024);
    cell.done(&["scale", "web", "2"]);
    let own =
        cell.done(&["exec", "web", "--vm", "1", "--", "curl", "-sS", "--max-time", "60", "http://web.internal:8080/"]);
    assert_eq!(own, "hello", "the other VM, by its name in the private network");
    assert_eq!(cell.json(&["status", "web"])[0]["vms"][0]["phase"], "healthy");
    // What the page shows: a VM with some of its memory, and what it has read of its root.
    let seen = |figure: usize| {
        let told: Value = serde_json::from_str(&host("curl", &["-sS", &format!("http://{page}/api/status")])).unwrap();
        let of_app = told["history"]["apps"]["web"].as_array().unwrap();
        of_app.iter().filter_map(|row| row[figure].as_u64()).max().unwrap_or(0)
    };
    let (cpu, memory, read, sent) = (seen(0), seen(1), seen(2), seen(5));
    assert!(cpu > 0 && memory > 8 << 20 && memory < 1 << 30 && read > 0 && sent > 0, "{cpu} {memory} {read} {sent}");
    assert_eq!(cell.end("KILL"), None);
    cell.server = serve(cell.folder.path(), &[]);
    cell.until("the app again", |cell| {
        let status = cell.run(&["--json", "status", "web"]);
        String::from_utf8_lossy(&status.stdout).contains("\"healthy\"")
    });
    assert_eq!(curl(&address), Ok("hello".into()));
    assert_eq!(cell.end("TERM"), Some(0), "{}", cell.logs());
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_new_release_takes_over_without_a_refused_connection_and_a_bad_one_is_rolled_back() {
    let cell = Arc::new(Cell::new());
    cell.done(&["deploy", &cell.app("one", "")]);
    let (_proxy, address) = cell.proxy();
    let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let asker = {
        let (over, answers, address) = (Arc::clone(&over), Arc::clone(&answers), address.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                answers.lock().unwrap().push(curl(&address));
                // The guests share what CPUs there are.
                std::thread::sleep(Duration::from_millis(100));
            }
        })
    };
    cell.done(&["deploy", &cell.app("two", "")]);
    let bad = cell.app("three", "").replace("app.toml", "bad.toml");
    let text = std::fs::read_to_string(cell.folder.path().join("app.toml")).unwrap();
    std::fs::write(&bad, text.replace(SERVE, "echo I cannot; exit 3")).unwrap();
    let refused = cell.run(&["deploy", &bad]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        why.contains("release 3 of web failed, and release 2 goes on: VM ") && why.contains("exit status 3"),
        "{why}"
    );
    assert!(cell.done(&["logs", "web"]).contains("I cannot"), "{}", cell.logs());
    over.store(true, Ordering::Relaxed);
    asker.join().unwrap();
    let answers = answers.lock().unwrap();
    let wrong = answers.iter().find(|answer| !matches!(answer.as_deref(), Ok("one" | "two")));
    assert!(wrong.is_none(), "{wrong:?} among {} answers", answers.len());
    assert_eq!((answers.first(), answers.last()), (Some(&Ok("one".into())), Some(&Ok("two".into()))));
    let releases = cell.json(&["releases", "web"]);
    let statuses: Vec<&str> =
        releases.as_array().unwrap().iter().map(|release| release["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["failed", "active", "replaced"]);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_volume_keeps_its_data_a_snapshot_is_restored_and_an_idle_vm_sleeps() {
    let cell = Cell::new();
    let volume = "[[volumes]]\nname = \"data\"\npath = \"/data\"\nsize = \"32M\"\n";
    let app = cell.app("hello", "idle = \"3s\"");
    let text = std::fs::read_to_string(&app).unwrap();
    std::fs::write(&app, text + volume).unwrap();
    cell.done(&["deploy", &app]);
    let inside = |script: &str| cell.done(&["exec", "web", "--", "/bin/sh", "-c", script]);
    inside("echo first >/data/file; cat /data/file; sync");
    let taken = cell.json(&["volumes", "snapshot", "web", "data"])["snapshot"].clone();
    assert_eq!(inside("echo second >/data/file; cat /data/file"), "second\n");
    cell.until("sleep", |cell| cell.json(&["status", "web"])[0]["vms"][0]["phase"] == "suspended");
    let (_proxy, address) = cell.proxy();
    assert_eq!(curl(&address), Ok("hello".into()));
    cell.done(&["volumes", "restore", "web", "data", &taken.to_string()]);
    assert_eq!(inside("cat /data/file"), "first\n");
}

/// The commands of the documentation, from nothing to a page.
fn walk(replaced: &[(&str, &str)]) -> [String; 2] {
    let (_, section) = include_str!("../../docs/platform.md").split_once("## From nothing to a page").unwrap();
    let mut blocks = section.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned());
    [blocks.next().unwrap(), blocks.next().unwrap()].map(|mut block| {
        replaced.iter().for_each(|(from, to)| block = block.replace(from, to));
        block
    })
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_person_comes_from_nothing_to_a_page_by_https_as_the_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let ports = pebble::Ports { http: pebble::port(), https: pebble::port() };
    let acme = pebble::Pebble::start(folder.path(), &ports, &[], 7_776_000);
    let (http, https) = (format!("127.0.0.1:{}", ports.http), format!("127.0.0.1:{}", ports.https));
    let page = format!("www.example.com:{}", ports.https);
    let [serve, others] = walk(&[
        ("0.0.0.0:80", &http),
        ("0.0.0.0:443", &https),
        ("https://acme-v02.api.letsencrypt.org/directory", &acme.directory),
        (
            "curl https://www.example.com/",
            &format!("curl -sS --insecure --include --resolve {page}:127.0.0.1 https://{page}/"),
        ),
    ]);
    let more: Vec<_> = serve.split_whitespace().skip_while(|word| *word != "--http").map(str::to_owned).collect();
    let roots = ["--acme-roots".to_owned(), acme.roots.to_str().unwrap().to_owned()];
    let cell = Cell::with(folder, &[more, roots.to_vec()].concat());
    let (others, ask) = others.trim_end().rsplit_once('\n').unwrap();
    assert!(others.lines().count() < 16 && ask.starts_with("curl "), "{others}\n{ask}");
    let run = |script: &str| {
        let mut sh = Command::new("sh");
        sh.args(["-ec", script]).current_dir(cell.folder.path()).env("CELL_STATE", cell.folder.path().join("state"));
        let programs = library::linux::path_of("VMCELL_CELL").parent().unwrap().to_owned();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let output = sh.env("PATH", path).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let said = run(others);
    assert!(said.contains("Release 1 of web is deployed"), "{said}\n{}", cell.logs());
    cell.until("a certificate", |cell| cell.json(&["status"])[0]["certificates"][0]["ends"].is_u64());
    let answer = run(ask);
    assert!(answer.starts_with("HTTP/2 200") && answer.ends_with("\r\n\r\nhello\n"), "{answer}\n{}", cell.logs());
    let ask = |scheme: &str, name: &str, port: u16| {
        let resolved = format!("{name}:{port}:127.0.0.1");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--insecure", "--include", "--max-time", "60", "--resolve", &resolved]);
        let output = curl.arg(format!("{scheme}://{name}:{port}/")).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let answer = ask("http", "www.example.com", ports.http);
    let to = format!("location: https://www.example.com:{}/", ports.https);
    assert!(answer.starts_with("HTTP/1.1 308") && answer.contains(&to), "{answer}");
    assert!(ask("https", "other.example.com", ports.https).starts_with("curl: (35)"));
}

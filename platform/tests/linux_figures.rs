//! Figures of the platform with Debian's kernel: `cargo xtask bench platform` prints them. As a test, it runs with few apps.

#[path = "support/cell.rs"]
mod cell;
#[path = "../../tests/support/mod.rs"]
mod library;
#[path = "support/pebble.rs"]
mod pebble;

use std::process::Command;
use std::time::{Duration, Instant};

use cell::{Cell, LONG};

const NAME: &str = "www.example.com";
/// Apps beside the first one; more if there is time.
const APPS: (usize, usize) = (0, 99);
/// Requests to a VM that sleeps, and to one that is awake.
const REQUESTS: usize = 3;

/// Asks once by HTTPS; the seconds until the first byte of the answer, from the start of the connection.
fn ask(port: u16) -> Option<f64> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--insecure", "--fail", "--max-time", "60", "--output", "/dev/null"]);
    curl.args(["--resolve", &format!("{NAME}:{port}:127.0.0.1"), "--write-out", "%{time_starttransfer}"]);
    let output = curl.arg(format!("https://{NAME}:{port}/")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| told.trim().parse().unwrap())
}

/// Memory of the host program, in MiB: all that is resident, divided by those who share it, and of that what is on no file.
fn memory(cell: &Cell) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", cell.server.id())).unwrap();
    let of = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    (of("Pss:"), of("Pss_Anon:"))
}

fn sleeps(cell: &Cell, app: &str) -> bool {
    cell.json(&["status", app])[0]["vms"][0]["phase"] == "suspended"
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn a_deploy_a_request_that_wakes_and_the_memory_of_apps_that_sleep_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let ports = pebble::Ports { http: pebble::port(), https: pebble::port() };
    let acme = pebble::Pebble::start(folder.path(), &ports, &[], 7_776_000);
    let here = |port: u16| format!("127.0.0.1:{port}");
    let roots = acme.roots.to_str().unwrap().to_owned();
    let more =
        ["--http", &here(ports.http), "--https", &here(ports.https), "--acme", &acme.directory, "--acme-roots", &roots];
    let cell = Cell::with(folder, &more.map(str::to_owned));
    let alone = memory(&cell);

    let path = cell.app("hello", "idle = \"2s\"\nsize = \"tiny\"");
    let text = std::fs::read_to_string(&path).unwrap();
    let public = text.replace("port = 8080\n", &format!("port = 8080\nnames = [\"{NAME}\"]\n"));
    std::fs::write(&path, public).unwrap();
    let began = Instant::now();
    cell.done(&["deploy", &path]);
    let deployed = began.elapsed();
    while ask(ports.https).is_none() {
        assert!(began.elapsed() < LONG, "no answer by HTTPS:\n{}", cell.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "figure: from cell deploy to the first byte by HTTPS, with a certificate of pebble's: {:.2} s, of which the deploy took {:.2} s",
        began.elapsed().as_secs_f64(),
        deployed.as_secs_f64()
    );

    let (mut waking, mut awake) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        cell.until("sleep", |cell| sleeps(cell, "web"));
        waking.push(ask(ports.https).unwrap());
        awake.push(ask(ports.https).unwrap());
    }
    for (what, mut figures) in [("that sleeps", waking), ("that is awake", awake)] {
        figures.sort_by(f64::total_cmp);
        println!(
            "figure: a request by HTTPS to a VM {what}, to the first byte: {:.0} ms (the median of {REQUESTS})",
            figures[REQUESTS / 2] * 1000.0
        );
    }

    let apps = if std::env::var_os("VMCELL_LONG").is_some() { APPS.1 } else { APPS.0 };
    for number in 0..apps {
        let other = text.replace("name = \"web\"", &format!("name = \"app-{number}\""));
        std::fs::write(&path, other).unwrap();
        cell.done(&["deploy", &path]);
    }
    for app in (0..apps).map(|number| format!("app-{number}")).chain(["web".to_owned()]) {
        cell.until("sleep", |cell| sleeps(cell, &app));
    }
    let all = memory(&cell);
    println!(
        "figure: memory of cell serve: {:.1} MiB without an app, {:.1} MiB with {} apps of 128 MiB that sleep, {:.1} MiB of them on no file",
        alone.0,
        all.0,
        apps + 1,
        all.1
    );
    let of_one = (all.0 - alone.0) / (apps + 1) as f64;
    assert!(of_one < 64.0, "their memory was not given back: {all:?}, {alone:?} before");
}

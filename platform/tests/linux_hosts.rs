//! Two hosts that are one platform, each a `cell serve` in a network of its own, with a wire between them: apps are reached at both, one
//! host is killed and comes back, and what is not allowed reaches nothing.

#[path = "support/cell.rs"]
mod cell;
#[path = "../../tests/support/mod.rs"]
mod library;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cell::{Cell, LONG, image};
use library::linux::{host, path_of};
use serde_json::Value;
use tempfile::TempDir;

const NAMES: [&str; 2] = ["alpha", "beta"];
/// How long a death may go unnoticed, on an emulated host.
const SECONDS: Duration = Duration::from_secs(20);
/// Says a word, and answers by the addresses of the VM, which have its host's number.
const WHERE: &str = concat!(
    "echo here; socat TCP6-LISTEN:8080,fork,reuseaddr,ipv6only=0 ",
    r#"SYSTEM:'read line; printf \"HTTP/1.0 200 OK\\r\\n\\r\\n\"; cat /proc/net/if_inet6'"#
);

fn address(number: usize) -> String {
    format!("10.215.0.{}:7000", number + 1)
}

/// Two networks, and a wire from one to the other.
fn plug_in() {
    for name in NAMES {
        let _ = Command::new("ip").args(["netns", "delete", name]).output();
        host("ip", &["netns", "add", name]);
    }
    host("ip", &["link", "add", "wire", "netns", "alpha", "type", "veth", "peer", "name", "wire", "netns", "beta"]);
    for (number, name) in NAMES.iter().enumerate() {
        let own = format!("10.215.0.{}/24", number + 1);
        host("ip", &["-n", name, "address", "add", &own, "dev", "wire"]);
        host("ip", &["-n", name, "link", "set", "wire", "up"]);
        host("ip", &["-n", name, "link", "set", "lo", "up"]);
    }
}

/// `cell serve` in the network of this host.
fn serve(folder: &TempDir, number: usize) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.path().join("serve.log")).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", NAMES[number]]).arg(path_of("VMCELL_CELL"));
    command.arg("--state").arg(folder.path().join("state")).arg("serve");
    command.args(["--mesh", &address(number), "--name", NAMES[number]]);
    command.arg("--kernel").arg(path_of("VMCELL_KERNEL_ELF")).arg("--modules").arg(path_of("VMCELL_MODULES"));
    command.arg("--init").arg(path_of("VMCELL_CELL_INIT"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("cell starts")
}

fn start(folder: TempDir, number: usize) -> Cell {
    image(&folder.path().join("image"));
    let server = serve(&folder, number);
    let cell = Cell { folder, server };
    cell.until("its socket", |cell| cell.run(&["hosts", "list"]).status.success());
    cell
}

/// The second host: it joins, and then serves.
fn join(token: &str) -> Cell {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", NAMES[1]])
        .arg(path_of("VMCELL_CELL"))
        .arg("--state")
        .arg(folder.path().join("state"));
    let joined = command.args(["join", token, "--mesh", &address(1), "--name", NAMES[1]]).output().unwrap();
    assert!(joined.status.success(), "{joined:?}");
    start(folder, 1)
}

fn deploy(cell: &Cell, name: &str, hosts: &str, more: &str) {
    let text = format!(
        "name = \"{name}\"\nimage = \"image\"\nhosts = {hosts}\ncommand = [\"/bin/sh\", \"-c\", '''{WHERE}''']\n\
         [[services]]\nport = 8080\n{more}\ncheck = {{ path = \"/\", grace = \"110s\", timeout = \"20s\", interval = \"5s\" }}\n"
    );
    let path = cell.folder.path().join("app.toml");
    std::fs::write(&path, text).unwrap();
    cell.done(&["deploy", path.to_str().unwrap()]);
}

/// The number of the host whose VM answers, asked by a VM.
fn ask(cell: &Cell, from: &str) -> Result<u16, String> {
    let curl = ["curl", "-sS", "--max-time", "10", "http://web.internal:8080/"];
    let output = cell.run(&[&["exec", from, "--"], &curl[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find(|line| line.starts_with("fd")).and_then(|line| line.get(18..22));
    found.and_then(|number| u16::from_str_radix(number, 16).ok()).ok_or_else(|| format!("{output:?}"))
}

/// Asks until this is so.
fn ask_until(cell: &Cell, what: &str, limit: Duration, is_so: impl Fn(&[Result<u16, String>]) -> bool) {
    let (began, mut answers) = (Instant::now(), Vec::new());
    while !is_so(&answers) {
        assert!(began.elapsed() < limit, "{what} did not come: {answers:?}\n{}", cell.logs());
        answers.push(ask(cell, "front"));
    }
}

fn heard(answers: &[Result<u16, String>]) -> BTreeSet<u16> {
    answers.iter().flatten().copied().collect()
}

fn hosts_of(cell: &Cell) -> Vec<String> {
    let status = cell.json(&["status", "web"]);
    let vms = status[0]["vms"].as_array().unwrap().iter();
    vms.filter(|vm| vm["phase"] == "healthy").map(|vm| vm["host"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[ignore = "needs root and a KVM that runs Linux: cargo xtask test"]
fn an_app_at_two_hosts_is_reached_by_those_that_may_while_one_host_is_killed_and_comes_back() {
    plug_in();
    let alpha = start(tempfile::tempdir().unwrap(), 0);
    let token = alpha.done(&["hosts", "invite"]);
    let mut beta = join(token.trim());
    let alive = |cell: &Cell| {
        let hosts = cell.json(&["hosts", "list"]);
        hosts.as_array().unwrap().iter().filter(|host| host["alive"] == Value::Bool(true)).count()
    };
    alpha.until("the other host", |alpha| alive(alpha) == 2 && alive(&beta) == 2);
    deploy(&alpha, "web", "{ alpha = 1, beta = 1 }", "allow = [\"front\"]");
    alpha.until("both VMs", |alpha| hosts_of(alpha) == NAMES);
    deploy(&alpha, "front", "{ alpha = 1 }", "");
    ask_until(&alpha, "answers of both hosts", LONG, |answers| heard(answers).len() == 2);
    // Commands and logs are asked at any host, and pass on what comes of them.
    let said = beta.run(&["exec", "front", "--", "sh", "-c", "cat; exit 7"]);
    assert_eq!(said.status.code(), Some(7), "{said:?}");
    let logs = beta.done(&["logs", "web"]);
    let is_said =
        |host: &str| logs.lines().any(|line| line.contains(&format!("at {host} | ")) && line.ends_with("here"));
    assert!(NAMES.iter().all(|host| is_said(host)), "{logs}");
    // One that may not reaches neither the name nor a VM of either host.
    deploy(&beta, "other", "{ beta = 1 }", "");
    let status = alpha.json(&["status", "web"]);
    let addresses =
        status[0]["vms"].as_array().unwrap().iter().map(|vm| format!("[{}]", vm["address"].as_str().unwrap()));
    for there in addresses.chain(["web.internal".to_owned()]) {
        let url = format!("http://{there}:8080/");
        let asked = beta.run(&["exec", "other", "--", "curl", "-sS", "--max-time", "4", &url]);
        assert_eq!(asked.status.code(), Some(28), "{url}: {asked:?}");
    }
    assert_eq!(beta.end("KILL"), None);
    ask_until(&alpha, "the living", SECONDS, |answers| {
        answers.len() >= 3 && answers.iter().rev().take(3).all(|answer| *answer == Ok(1))
    });
    alpha.until("the death", |alpha| alive(alpha) == 1 && hosts_of(alpha) == ["alpha"]);
    let logs = alpha.run(&["logs", "web"]);
    let why = String::from_utf8_lossy(&logs.stderr).into_owned();
    assert!(!logs.status.success() && why.contains("VMs at beta have said"), "{logs:?}");
    beta.server = serve(&beta.folder, 1);
    alpha.until("its return", |alpha| hosts_of(alpha) == NAMES);
    ask_until(&alpha, "answers of both hosts again", LONG, |answers| heard(answers).len() == 2);
}

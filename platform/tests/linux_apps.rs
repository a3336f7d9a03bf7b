//! Apps that others made, as `cell` runs them: Debian's nginx and a web app in Python, what they reach of each other, and a laptop.

#[path = "support/cell.rs"]
mod cell;
#[path = "../../tests/support/mod.rs"]
mod library;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use cell::{Cell, Killed, copy_program, program};
use library::linux::host;

const NGINX: &str = "daemon off; pid /run/nginx.pid; error_log stderr; worker_processes 1; events {}
http { access_log /dev/stdout; client_body_temp_path /run/body; proxy_temp_path /run/proxy; fastcgi_temp_path /run/fastcgi;
uwsgi_temp_path /run/uwsgi; scgi_temp_path /run/scgi; server { listen [::]:80; root /srv; } }";
/// Answers with what nginx says, and the secret's length.
const FRONT: &str = "
import os, urllib.request
from bottle import route, run
@route('/')
def index():
    page = urllib.request.urlopen('http://web.internal/', timeout=20).read().decode()
    return 'front of ' + page.strip() + ' %d' % len(os.environ['TOKEN'])
@route('/health')
def health():
    return 'well'
run(host='::', port=8000)
";

fn nginx(folder: &Path) -> &'static str {
    let image = folder.join("nginx");
    copy_program(&image, "nginx");
    for made in ["etc", "srv", "run", "tmp", "usr/share/nginx", "var/log/nginx", "var/lib/nginx"] {
        std::fs::create_dir_all(image.join(made)).unwrap();
    }
    std::fs::write(image.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n").unwrap();
    std::fs::write(image.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    std::fs::write(image.join("etc/nginx.conf"), NGINX).unwrap();
    std::fs::write(image.join("srv/index.html"), "nginx's page\n").unwrap();
    "name = \"web\"\nimage = \"nginx\"\ncommand = [\"/usr/sbin/nginx\", \"-c\", \"/etc/nginx.conf\", \"-g\", \"user nobody nogroup;\"]\n\
     [[services]]\nport = 80\nallow = [\"front\"]\ncheck = { path = \"/\", grace = \"110s\", timeout = \"20s\", interval = \"10s\" }\n"
}

fn python(folder: &Path) -> &'static str {
    let image = folder.join("python");
    copy_program(&image, "python3");
    let libraries = "cd /; tar c $(ls -d usr/lib/python3.* usr/lib/python3) | tar x -C \"$0\"; rm -rf \"$0\"/usr/lib/python3.*/test";
    host("sh", &["-c", libraries, image.to_str().unwrap()]);
    std::fs::write(image.join("front.py"), FRONT).unwrap();
    "name = \"front\"\nimage = \"python\"\ncommand = [\"/usr/bin/python3\", \"-u\", \"/front.py\"]\nsecrets = [\"TOKEN\"]\n\
     [[services]]\nport = 8000\ncheck = { path = \"/health\", grace = \"110s\", timeout = \"20s\", interval = \"10s\" }\n"
}

fn deploy(cell: &Cell, text: &str) {
    let path = cell.folder.path().join("app.toml");
    std::fs::write(&path, text).unwrap();
    cell.done(&["deploy", path.to_str().unwrap()]);
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn nginx_and_an_app_in_python_reach_what_is_allowed_and_a_stranger_reaches_neither() {
    let cell = Cell::new();
    let folder = cell.folder.path();
    deploy(&cell, nginx(folder));
    let mut follow = program(folder);
    let mut follow = Killed(follow.args(["logs", "web", "-f"]).stdout(Stdio::piped()).spawn().unwrap());
    let token = folder.join("token");
    std::fs::write(&token, "a secret").unwrap();
    let set =
        program(folder).args(["secrets", "set", "front", "TOKEN"]).stdin(std::fs::File::open(token).unwrap()).status();
    assert!(set.unwrap().success());
    deploy(&cell, python(folder));
    let asks = "import urllib.request as r; print(r.urlopen('http://[::1]:8000/', timeout=60).read().decode())";
    let answer = cell.done(&["exec", "front", "--", "/usr/bin/python3", "-c", asks]);
    assert_eq!(answer, "front of nginx's page 8\n");
    let mut lines = BufReader::new(follow.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("GET / HTTP/1.1\" 200 13 \"-\" \"Python-urllib")));
    deploy(
        &cell,
        &std::fs::read_to_string(cell.app("hello", "")).unwrap().replace("name = \"web\"", "name = \"other\""),
    );
    for there in ["http://web.internal/", "http://front.internal:8000/health"] {
        let asked = cell.run(&["exec", "other", "--", "curl", "-sS", "--max-time", "4", there]);
        let said = String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.code() == Some(28) && said.contains("timed out"), "{there}: {asked:?}");
    }
    let terminal = format!(
        "{} --state {} exec other -- /bin/sh -c 'test -t 0 && test -t 1 && echo a terminal'",
        library::linux::path_of("VMCELL_CELL").display(),
        folder.join("state").display()
    );
    assert_eq!(host("script", &["-qec", &terminal, "/dev/null"]), "a terminal\r\n");
}

/// A command in the laptop's network.
fn on_laptop(arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", "laptop"]).args(arguments).stdin(Stdio::null());
    command
}

fn laptop_asks(address: &str) -> (Option<i32>, String) {
    let output = on_laptop(&["curl", "-sS", "--max-time", "8", &format!("http://{address}/")]).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A network of its own, with a wire to this one.
fn plug_in() {
    let script = "ip netns add laptop; ip link add home type veth peer name eth0 netns laptop; ip address add 192.0.2.1/24 dev home
        ip link set home up; ip -n laptop address add 192.0.2.2/24 dev eth0; ip -n laptop link set eth0 up; ip -n laptop link set lo up";
    host("sh", &["-ec", script]);
}

/// What `wg-quick` does with a configuration, by wireguard-go.
fn come_in(cell: &Cell) -> Killed {
    let file = cell.folder.path().join("laptop.conf");
    let text = cell.done(&["wireguard", "create", "laptop"]);
    std::fs::write(&file, &text).unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.split_once('=').unwrap().1.split(',').next().unwrap().trim().to_owned()
    };
    let running =
        on_laptop(&["wireguard-go", "--foreground", "wg0"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn();
    let running = Killed(running.unwrap());
    cell.until("wireguard-go", |_| on_laptop(&["wg", "show", "wg0"]).output().unwrap().status.success());
    std::fs::create_dir_all("/etc/netns/laptop").unwrap();
    std::fs::write("/etc/netns/laptop/resolv.conf", format!("nameserver {}\n", field("DNS"))).unwrap();
    let script = "wg-quick strip \"$0\" >\"$0.stripped\"; ip netns exec laptop wg setconf wg0 \"$0.stripped\"
        ip -n laptop address add \"$1\" dev wg0; ip -n laptop link set wg0 mtu 1420 up; ip -n laptop route add \"$2\" dev wg0";
    host("sh", &["-ec", script, file.to_str().unwrap(), &field("Address"), &field("AllowedIPs")]);
    running
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_laptop_by_wireguard_go_reaches_the_service_and_nothing_else_until_it_is_taken_out() {
    plug_in();
    let cell = Cell::with(tempfile::tempdir().unwrap(), &["--wireguard", "192.0.2.1:51820"].map(str::to_owned));
    cell.done(&["deploy", &cell.app("hello", "")]);
    let _running = come_in(&cell);
    assert_eq!(laptop_asks("web.internal:8080"), (Some(0), "hello".into()));
    let vm = cell.json(&["status", "web"])[0]["vms"][0]["address"].as_str().unwrap().to_owned();
    for address in ["web.internal:22", &format!("[{vm}]:8080")] {
        assert_eq!(laptop_asks(address), (Some(28), String::new()), "{address}");
    }
    cell.done(&["wireguard", "remove", "laptop"]);
    assert_ne!(laptop_asks("web.internal:8080").0, Some(0));
}

/// A file system of 64 MiB in the folder of the state.
struct Small<'a>(&'a Path);

impl Small<'_> {
    fn fill(&self) {
        host(
            "sh",
            &[
                "-c",
                "head -c 80M /dev/zero >\"$0/filler\" 2>/dev/null; test -s \"$0/filler\"",
                self.0.to_str().unwrap(),
            ],
        );
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        host("umount", &["--lazy", self.0.to_str().unwrap()]);
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn on_a_full_disk_each_change_is_refused_with_the_reason_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    host("mount", &["-t", "tmpfs", "-o", "size=64M,mode=0700", "small", state.to_str().unwrap()]);
    let small = Small(&state);
    let mut cell = Cell::with(folder, &[]);
    let app = cell.app("hello", "count = 0");
    cell.done(&["deploy", &app]);
    small.fill();
    std::fs::write(cell.folder.path().join("image/new"), vec![7; 1 << 20]).unwrap();
    let secret = |cell: &Cell| {
        let value = std::fs::File::open(cell.folder.path().join("app.toml")).unwrap();
        program(cell.folder.path()).args(["secrets", "set", "web", "TOKEN"]).stdin(value).output().unwrap()
    };
    for refused in [cell.run(&["deploy", &app]), secret(&cell)] {
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && why.contains("No space left on device"), "{refused:?}");
    }
    let releases = |cell: &Cell| {
        let told = cell.json(&["releases", "web"]);
        let one = |release: &serde_json::Value| format!("{} {}", release["release"], release["status"]);
        told.as_array().unwrap().iter().map(one).collect::<Vec<_>>()
    };
    let before = releases(&cell);
    small.free();
    assert_eq!(cell.end("KILL"), None);
    cell.server = cell::serve(cell.folder.path(), &[]);
    cell.until("its socket", |cell| cell.run(&["status"]).status.success());
    assert_eq!((releases(&cell), before.len()), (before.clone(), 1), "{before:?}");
    cell.done(&["deploy", &app]);
    assert_eq!(releases(&cell).len(), 2);
}

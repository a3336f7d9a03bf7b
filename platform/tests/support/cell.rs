//! `cell` as a person uses it, and an app of Debian's programs.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::library::linux::{host, path_of};
use serde_json::Value;
use tempfile::TempDir;

/// For whatever takes a guest's boot, on an emulated host.
pub const LONG: Duration = Duration::from_secs(120);
/// What the app is made of, besides what these need themselves.
pub const PROGRAMS: [&str; 6] = ["socat", "sh", "cat", "sync", "curl", "date"];
/// Serves one greeting over HTTP, by IPv4 and IPv6.
pub const SERVE: &str = concat!(
    "socat TCP6-LISTEN:8080,fork,reuseaddr,ipv6only=0 ",
    r#"SYSTEM:'read line; printf \"HTTP/1.0 200 OK\\r\\n\\r\\n$GREETING\"'"#
);

/// A `cell serve` with a folder of its own.
pub struct Cell {
    pub folder: TempDir,
    pub server: Child,
}

/// `cell` with the state in this folder.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(path_of("VMCELL_CELL"));
    command.arg("--state").arg(folder.join("state")).stdin(Stdio::null());
    command
}

/// Starts `cell serve`; what it says goes to `serve.log`.
pub fn serve(folder: &Path, more: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("serve.log")).unwrap();
    let mut command = program(folder);
    command
        .arg("serve")
        .arg("--kernel")
        .arg(path_of("VMCELL_KERNEL_ELF"))
        .arg("--modules")
        .arg(path_of("VMCELL_MODULES"));
    command.arg("--init").arg(path_of("VMCELL_CELL_INIT")).args(more);
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("cell starts")
}

/// Copies a program of this host's into an image, with the libraries that it needs.
pub fn copy_program(image: &Path, program: &str) {
    let copy = |from: &str| {
        let to = image.join(from.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap_or_else(|why| panic!("{from}: {why}"));
    };
    let path = host("sh", &["-c", &format!("command -v {program}")]);
    copy(path.trim());
    let libraries = host("ldd", &[path.trim()]);
    libraries.split_whitespace().filter(|word| word.starts_with('/')).for_each(copy);
}

/// The image of an app that serves a greeting.
pub fn image(folder: &Path) {
    PROGRAMS.iter().for_each(|program| copy_program(folder, program));
    let bin = folder.join("bin");
    if !bin.exists() {
        std::os::unix::fs::symlink("usr/bin", bin).unwrap();
    }
}

impl Cell {
    pub fn new() -> Self {
        Self::with(tempfile::tempdir().unwrap(), &[])
    }

    pub fn with(folder: TempDir, more: &[String]) -> Self {
        image(&folder.path().join("image"));
        let server = serve(folder.path(), more);
        let cell = Self { folder, server };
        cell.until("its socket", |cell| cell.run(&["status"]).status.success());
        cell
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        program(self.folder.path()).args(arguments).output().expect("cell starts")
    }

    /// Its standard output; it has to succeed.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}{error}\n{}", self.logs());
        said
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[&["--json"], arguments].concat())).expect("JSON")
    }

    pub fn logs(&self) -> String {
        let text = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let mut logs = text(self.folder.path().join("serve.log"));
        let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries(self.folder.path().join("state/logs")).flat_map(|app| entries(app.path())) {
            logs += &format!("-- {}\n{}", entry.path().display(), text(entry.path()));
        }
        logs
    }

    /// Writes the app's description; returns its path.
    pub fn app(&self, greeting: &str, more: &str) -> String {
        let text = format!(
            "name = \"web\"\nimage = \"image\"\ncommand = [\"/bin/sh\", \"-c\", '''{SERVE}''']\n{more}\n\
             [env]\nGREETING = \"{greeting}\"\n\
             [[services]]\nport = 8080\ncheck = {{ path = \"/\", grace = \"110s\", timeout = \"20s\", interval = \"5s\" }}\n"
        );
        let path = self.folder.path().join("app.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let limit = if crate::library::is_long() { 5 * LONG } else { LONG };
            assert!(began.elapsed() < limit, "{what} did not come:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `cell proxy` to the app that serves a greeting, and the address where it listens.
    pub fn proxy(&self) -> (Killed, String) {
        self.proxy_to("web", 8080)
    }

    /// `cell proxy` to a port of an app, and the address where it listens.
    pub fn proxy_to(&self, app: &str, port: u16) -> (Killed, String) {
        let mut command = program(self.folder.path());
        let mut child =
            command.args(["--json", "proxy", app, &format!("0:{port}")]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        (Killed(child), told["listening"].as_str().unwrap().to_owned())
    }

    /// The snapshot that another host has of the first volume of an app.
    fn copied(&self, app: &str) -> Option<u64> {
        self.json(&["volumes", "list", app])[0]["copies"][0]["snapshot"].as_u64()
    }

    /// Waits until all that the first volume of an app has now is at another host, while something is written to it.
    pub fn until_copied(&self, app: &str, write: impl Fn()) {
        let snapshots = self.json(&["volumes", "list", app])[0]["snapshots"].clone();
        let numbers = snapshots.as_array().unwrap().iter().map(|one| one["snapshot"].as_u64().unwrap());
        // The next one that is taken has it all.
        let newest = numbers.chain(self.copied(app)).max().unwrap_or(0);
        self.until("a copy", |cell| {
            write();
            cell.copied(app) > Some(newest)
        });
    }

    pub fn end(&mut self, signal: &str) -> Option<i32> {
        host("kill", &[&format!("-{signal}"), &self.server.id().to_string()]);
        self.server.wait().unwrap().code()
    }
}

/// What `cell serve` is told of a host's place in its mesh.
fn mesh(name: &str) -> Vec<String> {
    let address = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    vec!["--mesh".to_owned(), address, "--name".to_owned(), name.to_owned()]
}

/// The hosts alpha and beta of a mesh, and the arguments of alpha's `cell serve`.
pub fn two_hosts() -> (Cell, Cell, Vec<String>) {
    let (first, second) = (mesh("alpha"), mesh("beta"));
    let alpha = Cell::with(tempfile::tempdir().unwrap(), &first);
    let token = alpha.json(&["hosts", "invite"])["token"].as_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let joined = program(folder.path()).args(["join", &token]).args(&second).status().unwrap();
    assert!(joined.success());
    let beta = Cell::with(folder, &second);
    (alpha, beta, first)
}

impl Drop for Cell {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A program that is killed with this.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an address answers, or what curl says.
pub fn curl(address: &str) -> Result<String, String> {
    let output =
        Command::new("curl").args(["-sS", "--max-time", "60", &format!("http://{address}/")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

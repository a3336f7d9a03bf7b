//! A program that serves the API, and a client of it.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod compare;
pub mod script;
pub mod walk;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vmcell::testing::TinyGuest;

/// For whatever takes a moment.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The program, with a folder for its files, that is killed when this is dropped.
pub struct Program {
    pub folder: TempDir,
    child: Child,
}

impl Program {
    /// Starts it with an API socket, and waits for that.
    pub fn new(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        Self::in_folder(folder, arguments)
    }

    pub fn in_folder(folder: TempDir, arguments: &[&str]) -> Self {
        Self::of(program(), folder, arguments)
    }

    /// The same with another program that has this command line.
    pub fn of(mut command: Command, folder: TempDir, arguments: &[&str]) -> Self {
        let socket = folder.path().join("api");
        command.arg("--api-sock").arg(&socket).args(arguments).current_dir(folder.path());
        let stdout = std::fs::File::create(folder.path().join("stdout")).expect("a file");
        let stderr = std::fs::File::create(folder.path().join("stderr")).expect("a file");
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().expect("the program starts");
        let mut program = Self { folder, child };
        program.until("its socket", |program| UnixStream::connect(program.socket()).is_ok());
        program
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text_of(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes a tiny guest, and names its file.
    pub fn guest(&self, guest: &TinyGuest) -> String {
        let path = self.path("kernel");
        guest.write_to(&path).expect("the guest is written");
        path.to_str().expect("a plain path").to_owned()
    }

    pub fn socket(&self) -> PathBuf {
        self.path("api")
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("the socket takes a client");
        stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
        stream.set_write_timeout(Some(LIMIT)).expect("a time limit");
        stream
    }

    /// Sends a request, on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        ask(&mut self.connect(), method, path, body)
    }

    /// The same for what has to be done without a word.
    pub fn done(&self, method: &str, path: &str, body: &str) {
        let answer = self.ask(method, path, body);
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (204, ""),
            "{method} {path} {body}: {}",
            self.text_of("stdout")
        );
    }

    /// The same for what is refused; returns the fault.
    pub fn refused(&self, method: &str, path: &str, body: &str) -> String {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, 400, "{method} {path} {body}: {}", answer.text);
        answer.fault()
    }

    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    /// Describes the least of a machine with this guest.
    pub fn describe(&self, guest: &TinyGuest) {
        let kernel = self.guest(guest);
        self.done("PUT", "/machine-config", r#"{"vcpu_count": 1, "mem_size_mib": 16}"#);
        self.done(
            "PUT",
            "/boot-source",
            &format!(r#"{{"kernel_image_path": "{kernel}", "boot_args": "console=ttyS0"}}"#),
        );
    }

    pub fn start(&self) {
        self.done("PUT", "/actions", r#"{"action_type": "InstanceStart"}"#);
    }

    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let gone = self.child.try_wait().expect("its status");
            let said = (self.text_of("stdout"), self.text_of("stderr"));
            assert!(gone.is_none(), "it ended ({gone:?}) before {what}: {said:?}");
            assert!(began.elapsed() < LIMIT, "{what} did not come: {said:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(began.elapsed() < LIMIT, "it did not end: {}", self.text_of("stdout"));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill starts").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, or the one that the environment names.
pub fn program() -> Command {
    Command::new(std::env::var_os("VMCELL_SERVED").unwrap_or_else(|| env!("CARGO_BIN_EXE_vmcell-firecracker").into()))
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {}", self.text))
    }

    pub fn fault(&self) -> String {
        let json = self.json();
        let members = json.as_object().expect("an object");
        assert_eq!(members.len(), 1, "{json}");
        members["fault_message"].as_str().expect("a text").to_owned()
    }
}

/// Sends a request and reads its answer, on a connection that may be used again.
pub fn ask(stream: &mut UnixStream, method: &str, path: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}");
    stream.write_all(text.as_bytes()).expect("the request is taken");
    read_answer_to(method, stream)
}

pub fn read_answer(stream: &mut impl Read) -> Answer {
    read_answer_to("GET", stream)
}

/// As clients read it: there is no body behind the answer to a `HEAD`.
fn read_answer_to(method: &str, stream: &mut impl Read) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    let head = String::from_utf8(head).expect("ASCII");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).filter(|_| method != "HEAD");
    let mut body = vec![0; length.map_or(0, |text| text.parse().expect("a length"))];
    stream.read_exact(&mut body).expect("a body");
    Answer { status, head, text: String::from_utf8(body).expect("UTF-8") }
}

/// A disk image of so many bytes.
pub fn image(folder: &Path, name: &str, bytes: u64) -> String {
    let path = folder.join(name);
    std::fs::File::create(&path).and_then(|file| file.set_len(bytes)).expect("an image");
    path.to_str().expect("a plain path").to_owned()
}

//! Images of a folder and of an OCI archive run under Debian's kernel: the first program mounts them, runs their command, and serves the
//! host.

#[path = "../../tests/support/mod.rs"]
mod library;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use library::Transcript;
use library::linux::{BOOT_LIMIT, host, path_of};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use vmcell::{Boot, Disk, Exit, Seccomp, Vm, VsockConfig};
use vmcell_platform::guest::{
    CONTROL_PORT, EXEC_PORT, Ended, Exec, FORWARD_PORT, Message, Settings, Size, Stop, Volume,
};
use vmcell_platform::image::{Image, Limits, build, initrd};

/// A machine that runs an image, and the connection on which its first program is told what to do.
struct Machine {
    vm: Vm,
    transcript: Transcript,
    control: UnixStream,
}

impl Machine {
    /// Starts one in `folder`, where the image is `root.img`.
    fn start(folder: &Path, data: Option<&Path>, settings: Settings) -> Self {
        let start = folder.join("initrd");
        let (init, kernel, modules) =
            (path_of("VMCELL_CELL_INIT"), path_of("VMCELL_KERNEL_ELF"), path_of("VMCELL_MODULES"));
        initrd(&init, &kernel, Some(&modules), &start).unwrap_or_else(|fault| panic!("{fault}"));
        let boot = Boot::linux(&kernel).initrd(&start).cmdline("console=ttyS0 quiet panic=-1");
        let transcript = Transcript::default();
        let root = Disk::open(folder.join("root.img")).unwrap().read_only(true).serial("root");
        let mut builder = Vm::builder().memory_mib(256).boot(boot).seccomp(Seccomp::Kill).disk(root);
        if let Some(data) = data {
            builder = builder.disk(Disk::open(data).unwrap().serial("data"));
        }
        let vm = builder
            .vsock(VsockConfig::new(3))
            .console(transcript.console())
            .build()
            .unwrap_or_else(|e| panic!("{}", e.chain()));
        vm.start().unwrap();
        let mut control = vm
            .vsock()
            .unwrap()
            .connect_timeout(CONTROL_PORT, BOOT_LIMIT)
            .unwrap_or_else(|e| panic!("{e}:\n{}", transcript.text()));
        control.set_nonblocking(false).unwrap();
        control.set_read_timeout(Some(BOOT_LIMIT)).unwrap();
        Message::Start(Box::new(settings)).write(&mut control).unwrap();
        let machine = Self { vm, transcript, control };
        assert_eq!(machine.hear(), Message::Ready, "{}", machine.transcript.text());
        machine
    }

    /// The next that its first program says.
    fn hear(&self) -> Message {
        let heard = Message::read(&mut &self.control);
        heard.unwrap_or_else(|e| panic!("{e}:\n{}", self.transcript.text())).expect("a message")
    }

    fn connect(&self, port: u32) -> UnixStream {
        let stream = self.vm.vsock().unwrap().connect_timeout(port, BOOT_LIMIT).unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(BOOT_LIMIT)).unwrap();
        stream
    }

    /// Runs a command: its output, its error output, and its end.
    fn exec(&self, exec: Exec, input: &[u8]) -> (String, String, Message) {
        let mut stream = self.connect(EXEC_PORT);
        Message::Exec(Box::new(exec)).write(&mut stream).unwrap();
        Message::Input(input.to_vec()).write(&mut stream).unwrap();
        Message::InputEnd.write(&mut stream).unwrap();
        let (mut out, mut error) = (Vec::new(), Vec::new());
        loop {
            match Message::read(&mut stream).unwrap().expect("a message") {
                Message::Output(bytes) => out.extend(bytes),
                Message::ErrorOutput(bytes) => error.extend(bytes),
                last => return (String::from_utf8(out).unwrap(), String::from_utf8(error).unwrap(), last),
            }
        }
    }

    fn shell(&self, script: &str) -> (String, String, Message) {
        self.exec(Exec { command: command(script), ..Exec::default() }, b"")
    }

    /// The end of its command, and what it printed. The machine turns itself off then.
    fn finish(self) -> (Message, String) {
        let last = self.hear();
        drop(self.control);
        match self.vm.wait_timeout(BOOT_LIMIT) {
            Ok(Exit::Shutdown) => (last, self.transcript.text()),
            other => panic!("{other:?} after:\n{}", self.transcript.text()),
        }
    }
}

fn command(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(String::from).into()
}

/// Copies programs of this host with their libraries.
fn fill(root: &Path, programs: &[&str]) {
    for folder in ["usr/bin", "etc", "srv"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for program in programs {
        let found = host("sh", &["-c", &format!("command -v {program}")]);
        let found = fs::canonicalize(found.trim()).unwrap();
        fs::copy(&found, root.join("usr/bin").join(program)).unwrap();
        let libraries = host("ldd", &[found.to_str().unwrap()]);
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(library, to).unwrap();
        }
    }
    symlink("usr/bin", root.join("bin")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
}

fn image(source: &Path, folder: &Path) -> Image {
    build(source, &folder.join("root.img"), &Limits::default()).unwrap_or_else(|fault| panic!("{fault}"))
}

/// A disk for data that nobody has written to.
fn data(folder: &Path) -> PathBuf {
    let path = folder.join("data.img");
    File::create(&path).unwrap().set_len(32 << 20).unwrap();
    path
}

fn volume() -> Vec<Volume> {
    vec![Volume { serial: "data".into(), path: "/srv/data".into(), read_only: false, is_new: false }]
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_folder_s_command_runs_and_the_host_runs_others_and_reaches_its_ports() {
    let folder = TempDir::new().unwrap();
    let source = folder.path().join("source");
    fill(&source, &["sh", "cat", "id", "sleep", "socat", "stty", "tty"]);
    image(&source, folder.path());
    let begins = "echo user $(id -u) $(pwd) $WHAT $HOME; echo name $(cat /etc/hostname) $HOSTNAME; \
                  exec socat TCP4-LISTEN:8080,fork,reuseaddr SYSTEM:cat";
    let settings = Settings {
        root: "root".into(),
        command: command(begins),
        env: [("WHAT".to_owned(), "this".to_owned())].into(),
        secrets: [("KEY".to_owned(), "hidden".to_owned())].into(),
        working_dir: Some("/srv".into()),
        hostname: Some("one".into()),
        services: vec![8080],
        ..Settings::default()
    };
    let machine = Machine::start(folder.path(), None, settings);
    machine.transcript.expect("user 0 /srv this /root\nname one one\n", BOOT_LIMIT);
    commands_end_as_they_do(&machine);
    forwards(&machine);
    forwards(&machine);
    // This socat listens by IPv4 alone.
    machine.transcript.expect("port 8080 takes connections by IPv4 or from this VM alone", BOOT_LIMIT);
    closing_kills(&machine);
    Message::Stop(Stop { grace_millis: 60_000 }).write(&mut &machine.control).unwrap();
    // The status that socat itself ends with by SIGTERM.
    assert_eq!(machine.finish().0, Message::Ended(Ended::Exited(143)));
}

/// With output, error output and input, as another user, in a terminal.
fn commands_end_as_they_do(machine: &Machine) {
    let script = "echo $KEY $EXTRA; cat; echo wrong >&2; exit 7";
    let env = [("EXTRA".to_owned(), "more".to_owned())].into();
    let exec = Exec { command: command(script), env, user: Some("web".into()), ..Exec::default() };
    let (out, error, last) = machine.exec(exec, b"input");
    let expected = ("hidden more\ninput", "wrong\n", Message::Ended(Ended::Exited(7)));
    assert_eq!((out.as_str(), error.as_str(), last), expected);
    let size = Some(Size { rows: 30, columns: 100 });
    let script = "stty size; tty; echo $HOME";
    let exec = Exec { command: command(script), terminal: size, user: Some("web".into()), ..Exec::default() };
    assert_eq!(machine.exec(exec, b"").0.replace('\r', ""), "30 100\n/dev/pts/0\n/srv\n");
    assert_eq!(machine.shell("kill -9 $$").2, Message::Ended(Ended::Killed(9)));
    let missing = machine.exec(Exec { command: vec!["nothing".into()], ..Exec::default() }, b"");
    assert_eq!(missing.2, Message::Ended(Ended::Exited(127)));
    assert!(missing.1.contains("cell-init: cannot run nothing: No such file or directory"), "{}", missing.1);
}

/// Bytes go to a port of the guest's loopback and back, with both half closes.
fn forwards(machine: &Machine) {
    let mut stream = machine.connect(FORWARD_PORT);
    Message::Forward(8080).write(&mut stream).unwrap();
    assert_eq!(Message::read(&mut stream).unwrap(), Some(Message::Connected));
    let noise: Vec<u8> = (0..300_000_u32).map(|number| ((number * 31) >> 3) as u8).collect();
    let mut sender = stream.try_clone().unwrap();
    let mut echo = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(&noise).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut echo).unwrap();
    });
    assert!(echo == noise, "{} bytes came back of {}", echo.len(), noise.len());
    let mut refused = machine.connect(FORWARD_PORT);
    Message::Forward(9).write(&mut refused).unwrap();
    let Some(Message::Failed(why)) = Message::read(&mut refused).unwrap() else { panic!("connected") };
    assert_eq!(why, "nothing answers at port 9 of the loopback: Connection refused (os error 111)");
}

fn closing_kills(machine: &Machine) {
    let mut stream = machine.connect(EXEC_PORT);
    let exec = Exec { command: command("echo runs; exec sleep 12345"), ..Exec::default() };
    Message::Exec(Box::new(exec)).write(&mut stream).unwrap();
    assert_eq!(Message::read(&mut stream).unwrap(), Some(Message::Output(b"runs\n".to_vec())));
    drop(stream);
    let looks = "for line in /proc/[0-9]*/cmdline; do case $(cat $line 2>/dev/null) in sleep*) echo there;; esac; done 2>/dev/null";
    let began = std::time::Instant::now();
    while machine.shell(looks).0.contains("there") {
        assert!(began.elapsed() < BOOT_LIMIT, "the command was not killed");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_volume_is_made_keeps_what_is_written_and_grows_with_its_disk() {
    let folder = TempDir::new().unwrap();
    let source = folder.path().join("source");
    fill(&source, &["sh", "cat", "df", "ls"]);
    image(&source, folder.path());
    let disk = data(folder.path());
    let run = |script: &str| {
        let settings =
            Settings { root: "root".into(), command: command(script), volumes: volume(), ..Settings::default() };
        let (last, text) = Machine::start(folder.path(), Some(&disk), settings).finish();
        assert_eq!(last, Message::Ended(Ended::Exited(5)), "{text}");
        text
    };
    run("ls -A /srv/data; echo kept > /srv/data/file; exit 5");
    File::options().write(true).open(&disk).unwrap().set_len(96 << 20).unwrap();
    let text = run("cat /srv/data/file; df -k --output=size /srv/data; exit 5");
    let size = text.lines().filter_map(|line| line.trim().parse::<u32>().ok()).next_back();
    assert!(text.contains("kept\n") && size.is_some_and(|kib| kib > 80_000), "{text}");
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn an_oci_archive_s_own_command_runs_as_its_user() {
    let folder = TempDir::new().unwrap();
    let source = folder.path().join("source");
    fill(&source, &["sh", "cat", "id", "ls", "sha256sum", "wc"]);
    let sums = many(&source.join("srv/many"));
    fs::write(source.join("srv/old"), "old").unwrap();
    let mut lower = tar::Builder::new(Vec::new());
    lower.follow_symlinks(false);
    lower.append_dir_all(".", &source).unwrap();
    let mut upper = tar::Builder::new(Vec::new());
    for (path, content) in [("srv/.wh.old", ""), ("srv/new", "new\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_uid(33);
        header.set_gid(33);
        header.set_mtime(0);
        upper.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let archive = folder.path().join("image.tar");
    fs::write(&archive, layout(&[lower.into_inner().unwrap(), upper.into_inner().unwrap()])).unwrap();
    let Image { command, env, working_dir, user, .. } = image(&archive, folder.path());
    let settings = Settings { root: "root".into(), command, env, working_dir, user, ..Settings::default() };
    let (last, text) = Machine::start(folder.path(), None, settings).finish();
    assert_eq!(last, Message::Ended(Ended::Exited(3)), "{text}");
    assert!(text.contains("\n33 many new\nnew\n2007\n"), "{text}");
    assert!(text.contains(&sums), "{text}\nand not\n{sums}");
}

/// Files of many sizes, and so many that their folder takes several blocks. Gives the sums of those with content.
fn many(folder: &Path) -> String {
    fs::create_dir(folder).unwrap();
    (0..2000).for_each(|number| fs::write(folder.join(format!("file number {number}")), "x").unwrap());
    let mut sums = String::new();
    for size in [0_u32, 1, 2048, 2049, 4096, 6144, 100_000] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let name = format!("size{size:06}");
        fs::write(folder.join(&name), &content).unwrap();
        let sum: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        sums += &format!("{sum}  {name}\n");
    }
    sums
}

/// An OCI image layout in an archive.
fn layout(layers: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    let digest = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut blob = |kind: &str, bytes: &[u8]| {
        put(&format!("blobs/sha256/{}", digest(bytes)), bytes);
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len()})
    };
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
    let layers: Vec<_> = layers.iter().map(|layer| blob("layer.v1.tar", layer)).collect();
    let runs = json!({"Entrypoint": ["sh", "-c"], "Cmd": ["echo $(id -u) $(ls); cat new; cd many; ls | wc -l; sha256sum size*; exit 3"], "WorkingDir": "/srv", "User": "web"});
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}, "config": runs});
    let config = blob("config.v1+json", config.to_string().as_bytes());
    let manifest = blob(
        "manifest.v1+json",
        json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().as_bytes(),
    );
    put("index.json", json!({"schemaVersion": 2, "manifests": [manifest]}).to_string().as_bytes());
    put("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#);
    archive.into_inner().unwrap()
}

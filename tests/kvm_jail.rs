//! The launcher in its jail: what it still has, and that guests do as they did.

mod support;

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::Kernel;
use vmcell::testing::TinyGuest;

const LIMIT: Duration = Duration::from_secs(30);

struct Launched(Child);

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Launched {
    /// Runs a guest that prints for ever, until it prints.
    fn new(more: &[&str]) -> (Self, Kernel) {
        let kernel = Kernel::new(&TinyGuest::flood(b'x'));
        let mut launcher = support::launcher();
        launcher.arg("--kernel").arg(&kernel.path).args(["--memory", "16"]).args(more);
        let child = launcher.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the launcher starts");
        let mut launched = Self(child);
        let mut first = [0];
        launched.0.stdout.as_mut().unwrap().read_exact(&mut first).expect("the guest prints");
        (launched, kernel)
    }

    fn path(&self, inside: &str) -> String {
        format!("/proc/{}/{inside}", self.0.id())
    }

    fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(self.path("status")).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap().trim().to_owned()
    }
}

/// What the launcher says on standard error that it has no jail for, and what its guest printed.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the launcher starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_launched_vm_has_neither_rights_nor_files_nor_a_network_beyond_its_own() {
    let (launched, _kernel) = Launched::new(&[]);
    for none in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(launched.status(none), "0000000000000000", "{none}");
    }
    assert_eq!((launched.status("NoNewPrivs").as_str(), launched.status("Seccomp").as_str()), ("1", "2"));
    let limits = fs::read_to_string(launched.path("limits")).unwrap();
    let core: Vec<_> = limits.lines().find(|line| line.starts_with("Max core")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    let link = |of: &str, name: &str| fs::read_link(format!("/proc/{of}/ns/{name}")).unwrap();
    let id = launched.0.id().to_string();
    if link(&id, "user") == link("self", "user") {
        return skip("the host makes no user namespaces");
    }
    for name in ["net", "ipc", "uts", "cgroup", "mnt"] {
        assert_ne!(link(&id, name), link("self", name), "{name}");
    }
    assert_eq!(fs::read_dir(launched.path("root")).unwrap().count(), 0);
    let mounts = fs::read_to_string(launched.path("mounts")).unwrap();
    assert!(mounts.lines().count() == 1 && mounts.starts_with("vmcell / tmpfs ro,nosuid,nodev,noexec"), "{mounts}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn without_a_jail_the_launcher_is_where_it_was() {
    let (launched, _kernel) = Launched::new(&["--no-jail", "--seccomp", "off"]);
    let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/user")).unwrap();
    assert_eq!(link(&launched.0.id().to_string()), link("self"));
    assert_eq!(launched.status("NoNewPrivs"), "0");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_descriptor_that_the_launcher_inherited_is_closed() {
    let (reader, writer) = std::io::pipe().unwrap();
    let kernel = Kernel::new(&TinyGuest::spin());
    // The shell gives its descriptor 9 on.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 9<&0 </dev/null"]).arg(support::launcher().get_program());
    shell.arg("--kernel").arg(&kernel.path).args(["--memory", "16"]);
    let launched = Launched(shell.stdin(OwnedFd::from(reader)).spawn().unwrap());
    let begun = Instant::now();
    let is_open = || fs::read_link(launched.path("fd/9")).is_ok();
    // The shell has it from some moment on, and the launcher until it is jailed.
    while is_open() || launched.status("NoNewPrivs") == "0" {
        assert!(begun.elapsed() < LIMIT, "descriptor 9 is open");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(writer);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn logs_of_a_limited_size_go_on_in_the_folder_that_is_kept_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let limited = format!("{},max=4096,keep=2", log.display());
    let (mut launched, _kernel) = Launched::new(&["--log", &limited]);
    let mut stdout = launched.0.stdout.take().unwrap();
    let begun = Instant::now();
    while !folder.path().join("log.2").exists() {
        assert!(launched.0.try_wait().unwrap().is_none(), "the launcher has ended");
        assert!(begun.elapsed() < LIMIT, "no log was renamed");
        stdout.read_exact(&mut [0; 4096]).unwrap();
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn guests_with_a_disk_and_a_console_on_a_file_end_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, console) = (folder.path().join("disk"), folder.path().join("console"));
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    fs::write(&console, "old").unwrap();
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let mut launcher = support::launcher();
    launcher.arg("--kernel").arg(&kernel.path).args(["--memory", "16", "--vcpus", "2"]);
    launcher.arg("--disk").arg(&disk).arg("--console").arg(&console);
    let (status, _, said) = run(&mut launcher);
    assert_eq!((status, fs::read_to_string(&console).unwrap().as_str()), (0, "hello"), "{said}");
}

/// One that may use KVM is needed, and files that it can read.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_user_without_privileges_gets_the_same_jail_or_is_told_what_is_missing() {
    if !is_root() {
        return skip("only root can become somebody else; the other tests ran as a plain user");
    }
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let folder = kernel.path.parent().unwrap();
    let launcher = folder.join("launch");
    fs::copy(support::launcher().get_program(), &launcher).unwrap();
    for path in [folder, &kernel.path, &launcher] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let group = std::os::unix::fs::MetadataExt::gid(&fs::metadata("/dev/kvm").unwrap());
    let as_nobody = |more: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", &format!("--regid={group}"), "--clear-groups", "--inh-caps=-all"]);
        command.args(["--bounding-set=-all"]).arg(&launcher).arg("--kernel").arg(&kernel.path);
        command.args(["--memory", "16"]).args(more);
        run(&mut command)
    };
    let (status, printed, said) = as_nobody(&[]);
    if said.contains("cannot open /dev/kvm") || said.contains("Permission denied") && status == 1 {
        return skip(&said);
    }
    assert_eq!((status, printed.as_str()), (0, "hello"), "{said}");
    let is_complete = said.is_empty();
    assert!(is_complete || said.starts_with("launch: jailed without ") && said.lines().count() == 1, "{said}");
    let (status, printed, said) = as_nobody(&["--jail"]);
    match is_complete {
        true => assert_eq!((status, printed.as_str(), said.as_str()), (0, "hello", "")),
        false => {
            assert!(status == 1 && printed.is_empty() && said.starts_with("launch: the launcher is jailed without "))
        }
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_host_that_does_not_give_all_is_refused_if_all_was_asked_for_and_named_in_a_line_otherwise() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    // With no `/proc/self/uid_map` that it may write, there is no user namespace.
    let hidden = |more: &[&str]| {
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""]);
        shell
            .arg(support::launcher().get_program())
            .arg("--kernel")
            .arg(&kernel.path)
            .args(["--memory", "16"])
            .args(more);
        run(&mut shell)
    };
    if !is_root() || !Path::new("/usr/bin/unshare").exists() {
        return skip("only root can hide /proc");
    }
    let (status, printed, said) = hidden(&[]);
    assert_eq!((status, printed.as_str()), (0, "hello"), "{said}");
    assert!(said.starts_with("launch: jailed without ") && said.contains("a user namespace"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let (status, printed, said) = hidden(&["--jail"]);
    assert_eq!((status, printed.as_str()), (1, ""), "{said}");
    assert!(said.starts_with("launch: the launcher is jailed without "), "{said}");
}

#[test]
fn a_jail_and_none_cannot_both_be_asked_for() {
    let (status, _, said) = run(support::launcher().args(["--kernel", "k", "--jail", "--no-jail"]));
    assert_eq!(status, 2, "{said}");
}

/// A cgroup of version 2 that is removed with this.
struct OwnCgroup(std::path::PathBuf);

impl OwnCgroup {
    fn new(name: &str) -> Option<Self> {
        let lines = fs::read_to_string("/proc/self/cgroup").unwrap();
        let at = lines.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| Path::new(root).join(at));
        let parent = roots.into_iter().find(|root| root.join("cgroup.controllers").is_file())?;
        let folder = parent.join(format!("vmcell-{name}-{}", std::process::id()));
        fs::create_dir(&folder).ok().map(|()| Self(folder))
    }

    fn left(&self) -> Vec<std::path::PathBuf> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        self.left().iter().for_each(|left| _ = fs::remove_dir(left));
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_cgroup_of_a_vm_is_removed_from_within_the_jail() {
    let Some(cgroup) = OwnCgroup::new("jail") else {
        return skip("there is no cgroup of version 2 in which the tests may make others");
    };
    let kernel = Kernel::new(&TinyGuest::print("printed"));
    let folder = cgroup.0.display().to_string();
    for more in [&["--seccomp", "kill"][..], &["--seccomp", "kill", "--no-jail"], &["--seccomp", "off"]] {
        let mut launcher = support::launcher();
        launcher.arg("-v").arg("--kernel").arg(&kernel.path).args(["--memory", "16", "--cgroup", &folder]).args(more);
        let (status, printed, said) = run(&mut launcher);
        assert!(status == 0 && printed.contains("printed"), "{more:?}: {status} {printed} {said}");
        assert!(!said.contains("was not removed"), "{more:?}: {said}");
        assert!(cgroup.left().is_empty(), "{more:?}: {:?}", cgroup.left());
    }
}

//! A program in a cgroup of its own, on a host whose cgroups are of version 2 with their controllers.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::Program;
use tempfile::TempDir;
use vmcell::testing::TinyGuest;

/// A hierarchy that is mounted for the test.
struct Hierarchy(TempDir);

impl Hierarchy {
    fn new() -> Self {
        let hierarchy = Self(tempfile::tempdir().unwrap());
        let mounted =
            Command::new("mount").args(["-t", "cgroup2", "cgroup2"]).arg(hierarchy.0.path()).status().unwrap();
        assert!(mounted.success());
        fs::create_dir(hierarchy.parent()).unwrap();
        fs::write(hierarchy.0.path().join("cgroup.subtree_control"), "+memory +pids")
            .expect("the host has the controllers");
        hierarchy
    }

    fn parent(&self) -> std::path::PathBuf {
        self.0.path().join("machines")
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.parent());
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
#[ignore = "needs cgroups of version 2: cargo xtask test"]
fn a_jailed_program_is_in_a_cgroup_of_its_name_with_limits_and_leaves_it_empty() {
    let (hierarchy, folder) = (Hierarchy::new(), tempfile::tempdir().unwrap());
    let (jail, parent) = (folder.path().to_str().unwrap().to_owned(), hierarchy.parent());
    let mut arguments = vec!["--id", "vm-1", "--jail", &jail, "--parent-cgroup", parent.to_str().unwrap()];
    arguments.extend(["--cgroup", "memory.max=268435456", "--cgroup", "pids.max=50"]);
    let mut program = Program::in_folder(folder, &arguments);
    program.describe(&TinyGuest::spin());
    program.start();
    let own = parent.join("vm-1");
    let read = |file: &str| fs::read_to_string(own.join(file)).unwrap().trim().to_owned();
    assert_eq!((read("memory.max"), read("pids.max")), ("268435456".to_owned(), "50".to_owned()));
    // KVM may have a thread of the kernel there for the VM, which has no command line.
    let is_program = |pid: &&str| !fs::read(format!("/proc/{pid}/cmdline")).unwrap().is_empty();
    assert_eq!(read("cgroup.procs").lines().filter(is_program).collect::<Vec<_>>(), [program.pid().to_string()]);
    program.signal("TERM");
    assert_eq!(program.wait().code(), Some(0));
    fs::remove_dir(&own).unwrap();
    refuses(&parent);
}

/// A block device that there is not. Which controllers there are is up to all mounts of the host's one hierarchy.
fn refuses(parent: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let mut program = support::program();
    program.arg("--jail").arg(folder.path()).arg("--parent-cgroup").arg(parent);
    let output = program.args(["--cgroup", "io.max=9999:9999 rbps=1"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(153) && said.contains("cannot write 9999:9999 rbps=1 to "), "{said}");
    fs::remove_dir(parent.join("anonymous-instance")).unwrap();
}

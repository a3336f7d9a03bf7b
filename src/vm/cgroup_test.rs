//! In a cgroup of version 2 of the host's, if there is one that the tests may make cgroups in: placing threads takes no controllers.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use super::*;
use crate::sys::current_thread_id;

/// The cgroup that the process is in, unless it may not make others there.
fn own_cgroup() -> Option<PathBuf> {
    let lines = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = lines.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let found = roots.into_iter().map(|root| root.join(&path)).find(|path| path.join("cgroup.procs").is_file());
    let probe = found.as_ref().map(|found| found.join(unique("probe")));
    let is_ours = probe.is_some_and(|probe| fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok());
    if !is_ours {
        skip("the tests may not make cgroups where they run");
    }
    found.filter(|_| is_ours)
}

#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

fn unique(name: &str) -> String {
    format!("vmcell-test-{name}-{}", std::process::id())
}

fn make(config: &CgroupConfig) -> Result<VmCgroup> {
    VmCgroup::make(config, "", &Logger::default())
}

/// A thread that has joined, and ends when it is told so.
fn joins(cgroup: &std::sync::Arc<VmCgroup>) -> (JoinHandle<()>, std::sync::mpsc::Sender<()>, String) {
    let ((release, released), (tells, told)) = (channel::<()>(), channel());
    let cgroup = std::sync::Arc::clone(cgroup);
    let thread = std::thread::spawn(move || {
        cgroup.join("test").unwrap();
        drop(cgroup);
        tells.send(current_thread_id()).unwrap();
        let _ = Receiver::recv(&released);
    });
    let tid = told.recv().unwrap().to_string();
    (thread, release, tid)
}

#[test]
fn threads_are_in_it_alone_and_it_is_gone_behind_them() {
    let Some(folder) = own_cgroup() else { return };
    let config = CgroupConfig::new(&folder).name(unique("alone"));
    let path = folder.join(unique("alone"));
    let cgroup = std::sync::Arc::new(make(&config).unwrap());
    let (thread, release, tid) = joins(&cgroup);
    assert_eq!(fs::read_to_string(path.join("cgroup.type")).unwrap(), "threaded\n");
    assert_eq!(fs::read_to_string(path.join("cgroup.threads")).unwrap(), format!("{tid}\n"));
    let again = make(&config).err().unwrap();
    assert_eq!(again.kind(), ErrorKind::Host);
    assert!(again.to_string().contains("it is there already"), "{again}");
    assert!(path.is_dir(), "the first one's is still there");
    drop(release);
    thread.join().unwrap();
    drop(cgroup);
    assert!(!path.exists());
}

#[test]
fn a_thread_that_does_not_end_is_moved_back() {
    let Some(folder) = own_cgroup() else { return };
    let cgroup = std::sync::Arc::new(make(&CgroupConfig::new(&folder).name(unique("stuck"))).unwrap());
    let (thread, release, tid) = joins(&cgroup);
    drop(cgroup);
    assert!(!folder.join(unique("stuck")).exists());
    let threads = fs::read_to_string(folder.join("cgroup.threads")).unwrap();
    assert!(threads.lines().any(|thread| thread == tid), "{tid} is not in {threads}");
    drop(release);
    thread.join().unwrap();
}

#[test]
fn a_share_of_the_cpu_without_the_controller_is_refused_and_leaves_nothing() {
    let Some(folder) = own_cgroup() else { return };
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap();
    if controllers.split_whitespace().any(|controller| controller == "cpu") {
        return skip("the controller cpu is there");
    }
    let error = make(&CgroupConfig::new(&folder).name(unique("share")).cpu(CpuShare::fraction(1, 4))).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Host);
    assert!(error.to_string().contains("needed is cpu: the cgroup above it must have it"), "{error}");
    assert!(!folder.join(unique("share")).exists());
}

#[test]
fn what_is_no_cgroup_of_the_process_is_refused() {
    let plain = tempfile::tempdir().unwrap();
    let refused = |folder: &Path| {
        let error = make(&CgroupConfig::new(folder).name("a")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    };
    assert!(refused(plain.path()).contains("is not the folder of a cgroup, needed is that of a cgroup of version 2"));
    assert!(refused(&plain.path().join("none")).starts_with("cannot open the cgroup"));
    if Path::new("/sys/fs/cgroup/memory/tasks").is_file() {
        assert!(refused(Path::new("/sys/fs/cgroup/memory")).contains("of version 1, needed is"));
    }
    let Some(folder) = own_cgroup() else { return };
    let other = folder.join(unique("other"));
    fs::create_dir(&other).unwrap();
    let told = refused(&other);
    fs::remove_dir(&other).unwrap();
    assert!(told.contains("the process is not in the cgroup"), "{told}");
}

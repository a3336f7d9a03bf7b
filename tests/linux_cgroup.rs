//! Cgroups of version 2 with their controllers, as a host has them on which nothing uses version 1.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::linux::host;
use support::{Kernel, tiny};
use tempfile::TempDir;
use vmcell::testing::TinyGuest;
use vmcell::{CgroupConfig, CpuShare, Disk, JailCgroup, JailIo, Vm};

/// A hierarchy that is mounted for a test, with a folder for VMs.
struct Hierarchy(TempDir);

impl Drop for Hierarchy {
    fn drop(&mut self) {
        // A process that is in one of its cgroups leaves it.
        let _ = fs::write(self.0.path().join("cgroup.procs"), "0");
        let _ = fs::remove_dir(self.vms());
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

impl Hierarchy {
    fn new() -> Self {
        let hierarchy = Self(tempfile::tempdir().unwrap());
        let root = hierarchy.0.path();
        host("mount", &["-t", "cgroup2", "cgroup2", root.to_str().unwrap()]);
        fs::write(root.join("cgroup.subtree_control"), "+cpu +memory +pids +io").expect("the host has the controllers");
        fs::create_dir(hierarchy.vms()).unwrap();
        hierarchy
    }

    fn vms(&self) -> PathBuf {
        self.0.path().join("vms")
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.vms().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }
}

fn cpu_time(hierarchy: &Hierarchy) -> Duration {
    let stat = hierarchy.read("web/cpu.stat");
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
    Duration::from_micros(usage.parse().unwrap())
}

fn spinning(kernel: &Kernel, hierarchy: &Hierarchy, share: CpuShare) -> Vm {
    let cgroup = CgroupConfig::new(hierarchy.vms()).cpu(share).weight(50);
    let disk = Disk::backend(vmcell::block::FileBackend::new(vmcell::testing::memory_disk(4096)).unwrap());
    let vm =
        tiny(kernel).name("web").vcpus(2).disk(disk).cgroup(cgroup).build().unwrap_or_else(|e| panic!("{}", e.chain()));
    vm.start().unwrap();
    vm
}

#[test]
#[ignore = "needs cgroups of version 2: cargo xtask test"]
fn a_spinning_guest_has_the_quarter_of_a_cpu_that_it_may_have() {
    let (hierarchy, kernel) = (Hierarchy::new(), Kernel::new(&TinyGuest::spin()));
    JailCgroup::new(hierarchy.vms()).memory_max(2 << 30).memory_high(1 << 30).pids_max(100).join().unwrap();
    let vm = spinning(&kernel, &hierarchy, CpuShare::fraction(1, 4).burst(Duration::from_millis(5)));
    let files = ["memory.max", "memory.high", "pids.max", "web/cpu.max", "web/cpu.max.burst", "web/cpu.weight"];
    let values = files.map(|file| hierarchy.read(file).trim().to_owned());
    assert_eq!(values, ["2147483648", "1073741824", "100", "25000 100000", "5000", "50"]);
    let threads = hierarchy.read("web/cgroup.threads");
    let own: Vec<_> = vm.threads().iter().map(|thread| thread.tid.to_string()).collect();
    assert_eq!(own.len(), 4);
    assert!(own.iter().all(|tid| threads.lines().any(|line| line == tid)), "{own:?} in {threads:?}");
    assert!(!threads.lines().any(|line| line == std::process::id().to_string()), "the main thread: {threads:?}");

    std::thread::sleep(Duration::from_secs(1));
    let (begun, before) = (Instant::now(), cpu_time(&hierarchy));
    std::thread::sleep(Duration::from_secs(10));
    let part = (cpu_time(&hierarchy) - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!((0.225..=0.275).contains(&part), "the guest had {part} of a CPU");
    drop(vm);
    assert!(!hierarchy.vms().join("web").exists());
}

#[test]
#[ignore = "needs cgroups of version 2: cargo xtask test"]
fn a_vm_that_has_used_up_its_share_stops_at_once() {
    let (hierarchy, kernel) = (Hierarchy::new(), Kernel::new(&TinyGuest::spin()));
    JailCgroup::new(hierarchy.vms()).join().unwrap();
    // Without the limit being lifted, it would stand still for nearly a second.
    let vm = spinning(&kernel, &hierarchy, CpuShare::fraction(1, 50).period(Duration::from_secs(1)));
    let throttled = || !hierarchy.read("web/cpu.stat").contains("nr_throttled 0\n");
    while !throttled() {
        std::thread::sleep(Duration::from_millis(10));
    }
    // In the middle of a period.
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    vm.stop().unwrap_or_else(|e| panic!("{e} after {:?}", begun.elapsed()));
    drop(vm);
    assert!(!hierarchy.vms().join("web").exists());
}

#[test]
#[ignore = "needs cgroups of version 2: cargo xtask test"]
fn what_a_block_device_gives_is_limited_for_the_process() {
    let hierarchy = Hierarchy::new();
    let devices: Vec<_> = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path()).collect();
    let disk = devices.iter().find(|path| path.join("device").exists()).expect("the host has a disk");
    let number = fs::read_to_string(disk.join("dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    let device = (major.parse().unwrap(), minor.parse().unwrap());
    let limits = JailIo::new().read_bytes(1 << 20).write_operations(50);
    JailCgroup::new(hierarchy.vms()).io_max(device, limits).join().unwrap();
    assert_eq!(hierarchy.read("io.max"), format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=50\n"));
    let none = JailCgroup::new(hierarchy.vms()).io_max((major.parse().unwrap(), 4095), limits).join().unwrap_err();
    assert!(none.to_string().contains("without the cgroup's limit of I/O"), "{none}");
}

#[test]
#[ignore = "needs cgroups of version 2: cargo xtask test"]
fn a_folder_in_which_the_process_is_not_is_refused() {
    let (hierarchy, kernel) = (Hierarchy::new(), Kernel::new(&TinyGuest::spin()));
    let cgroup = CgroupConfig::new(hierarchy.vms()).cpu(CpuShare::cpus(1));
    let outside = tiny(&kernel).name("web").cgroup(cgroup).build().err().unwrap().chain();
    assert!(outside.contains("the process is not in the cgroup"), "{outside}");
    // The other way round, Linux keeps processes out of a cgroup that divides memory among those in it.
    fs::write(hierarchy.vms().join("cgroup.subtree_control"), "+memory").unwrap();
    let refused = JailCgroup::new(hierarchy.vms()).join().unwrap_err().to_string();
    assert!(refused.contains("a cgroup with controllers for whole processes"), "{refused}");
}

fn launch(config: &Path, cgroup: &str) -> (Option<i32>, String, String) {
    let mut launcher = support::launcher();
    launcher.arg("-v").arg("--config").arg(config).args([
        "--console",
        "stdio",
        "--seccomp",
        "kill",
        "--cgroup",
        cgroup,
    ]);
    let output = launcher.stdin(Stdio::null()).output().expect("the launcher starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
#[ignore = "needs cgroups of version 2: cargo xtask test"]
fn a_launcher_has_the_memory_that_it_may_have_and_leaves_nothing() {
    let (hierarchy, kernel) = (Hierarchy::new(), Kernel::new(&TinyGuest::print_cmdline()));
    let config = kernel.path.with_extension("json");
    let json = format!(
        r#"{{ "boot": {{ "kernel": {:?}, "cmdline": "printed" }}, "memory": {{ "mib": 128, "prealloc": true }} }}"#,
        kernel.path
    );
    fs::write(&config, json).unwrap();
    let vms = hierarchy.vms();
    let (status, printed, said) = launch(&config, &format!("{},cpu=2,memory={}", vms.display(), 512 << 20));
    assert!(status == Some(0) && printed.contains("printed"), "{status:?}: {printed}{said}");
    assert!(!said.contains("cgroup"), "{said}");
    let left = || fs::read_dir(&vms).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!((hierarchy.read("memory.max").trim(), left()), ("536870912", 0));
    let (status, printed, said) = launch(&config, &format!("{},name=web,memory={}", vms.display(), 64 << 20));
    assert!(status.is_none() && !printed.contains("printed"), "{status:?}: {printed}{said}");
    assert!(hierarchy.read("memory.events").lines().any(|line| line == "oom_kill 1"));
    // What a killed launcher left behind is refused rather than taken.
    let (status, _, said) = launch(&config, &format!("{},name=web,memory={}", vms.display(), 512 << 20));
    assert!(status == Some(1) && said.contains("it is there already"), "{status:?}: {said}");
    fs::remove_dir(vms.join("web")).unwrap();
}

//! The threads of a VM: their names, where they run, and what a host program does on each of them first.

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Footprint, Kernel, Transcript, tiny};
use vmcell::testing::{TinyGuest, memory_disk};
use vmcell::{Affinity, Disk, ErrorKind, Exit, IoThread, Status, ThreadRole, Vm, VmThread};

/// What the kernel calls a thread.
fn comm(tid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm")).expect("the thread is there");
    text.trim_end().to_owned()
}

fn allowed_cpus(tid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/status")).expect("the thread is there");
    let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list of CPUs");
    line.trim().to_owned()
}

fn names(vm: &Vm) -> Vec<(ThreadRole, String)> {
    vm.threads().into_iter().map(|VmThread { role, tid, .. }| (role, comm(tid))).collect()
}

/// A disk with an I/O thread of its own.
fn disk_apart() -> Disk {
    Disk::backend(vmcell::block::FileBackend::new(memory_disk(4096)).unwrap())
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn threads_carry_the_name_of_their_vm() {
    use ThreadRole::{DeviceIo, Io, Vcpu};
    let kernel = Kernel::new(&TinyGuest::spin());
    let vm = tiny(&kernel).name("a-tenant-s-web-1").vcpus(2).disk(disk_apart()).build().unwrap();
    let of_devices = [(Io, "a-tenant-s-w:io".to_owned()), (DeviceIo(0), "a-tenant-s-:io0".to_owned())];
    assert_eq!(names(&vm), of_devices);
    vm.start().unwrap();
    let of_vcpus = [(Vcpu(0), "a-tenant-:vcpu0".to_owned()), (Vcpu(1), "a-tenant-:vcpu1".to_owned())];
    assert_eq!(names(&vm), [of_vcpus, of_devices].concat());
    let shared = IoThread::new("shared").unwrap();
    let unnamed = tiny(&kernel).io_thread(shared.clone()).build().unwrap();
    unnamed.start().unwrap();
    assert_eq!(names(&unnamed), [(Vcpu(0), "vmcell-vcpu0".to_owned())]);
    assert_eq!(comm(shared.tid()), "shared");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn messages_name_the_vm() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let vm = tiny(&kernel).name("web-1").build().unwrap();
    assert_eq!(vm.name(), "web-1");
    assert_eq!(vm.pause().unwrap_err().to_string(), r#"cannot pause the VM "web-1", which was not started"#);
    vm.start().unwrap();
    let error = vm.wait_timeout(Duration::ZERO).unwrap_err();
    assert_eq!(error.to_string(), r#"the VM "web-1" had not ended when the time limit passed"#);
    let unnamed = tiny(&kernel).build().unwrap();
    assert_eq!(unnamed.pause().unwrap_err().to_string(), "cannot pause a VM that was not started");
    let error = tiny(&kernel).name("a\nb").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn threads_run_on_the_cpus_that_they_were_given_and_others_anywhere() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let everywhere = allowed_cpus(std::process::id().try_into().unwrap());
    let cpu: u32 = everywhere.split(['-', ',']).next_back().unwrap().parse().unwrap();
    let affinity = Affinity::new().vcpu(1, [cpu]).io([cpu]);
    let vm = tiny(&kernel).vcpus(2).affinity(affinity).disk(disk_apart()).build().unwrap();
    vm.start().unwrap();
    let found: Vec<String> = vm.threads().into_iter().map(|thread| allowed_cpus(thread.tid)).collect();
    let one = cpu.to_string();
    assert_eq!(found, [everywhere.as_str(), &one, &one, &one]);
    let refused = tiny(&kernel).affinity(Affinity::new().vcpu(0, [4000])).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
    let text = format!("CPU 4000 was asked for vCPU 0, allowed by the host are {everywhere} for this process");
    assert_eq!(refused.to_string(), text);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_host_program_is_called_on_each_thread_before_any_guest_runs() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let (transcript, calls) = (Transcript::default(), Arc::new(Mutex::new(Vec::new())));
    let (seen, printed) = (calls.clone(), transcript.clone());
    let vm = tiny(&kernel)
        .vcpus(2)
        .disk(disk_apart())
        .console(transcript.console())
        .on_thread_start(move |role| {
            if role == ThreadRole::Vcpu(1) {
                // As long as a guest would take to print all that it has.
                std::thread::sleep(Duration::from_millis(100));
                assert_eq!(printed.len(), 0, "a guest ran before all of its threads were ready");
            }
            let tid = std::fs::read_link("/proc/thread-self")?.file_name().unwrap().to_str().unwrap().parse().unwrap();
            seen.lock().unwrap().push((role, tid));
            Ok(())
        })
        .build()
        .unwrap();
    assert_eq!(calls.lock().unwrap().len(), 2);
    vm.start().unwrap();
    let mut calls = calls.lock().unwrap().clone();
    calls.sort();
    let mut threads: Vec<(ThreadRole, i32)> =
        vm.threads().into_iter().map(|thread| (thread.role, thread.tid)).collect();
    threads.sort();
    assert_eq!(calls, threads);
    assert!(matches!(vm.wait().unwrap(), Exit::Shutdown));
    assert_eq!(transcript.text(), "hello");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_callback_that_fails_or_panics_ends_the_build_or_the_start_and_leaves_no_thread() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let before = Footprint::now();
    for fails_at in [ThreadRole::Io, ThreadRole::DeviceIo(0), ThreadRole::Vcpu(0), ThreadRole::Vcpu(1)] {
        for panics in [false, true] {
            let transcript = Transcript::default();
            let built = tiny(&kernel)
                .vcpus(3)
                .disk(disk_apart())
                .console(transcript.console())
                .name("web")
                .on_thread_start(move |role| match role == fails_at {
                    true if panics => panic!("on purpose"),
                    true => Err(io::ErrorKind::PermissionDenied.into()),
                    false => Ok(()),
                })
                .build();
            let error = match built {
                Ok(vm) => {
                    let error = vm.start().unwrap_err();
                    assert!(matches!(vm.status(), Status::Ending | Status::Ended));
                    let Exit::Failed(reason) = vm.wait_timeout(Duration::from_secs(30)).unwrap() else { panic!() };
                    assert_eq!(vm.status(), Status::Ended);
                    assert_eq!(reason.to_string(), error.to_string());
                    error
                }
                Err(error) => {
                    assert!(matches!(fails_at, ThreadRole::Io | ThreadRole::DeviceIo(_)), "{error}");
                    error
                }
            };
            assert_eq!(error.kind(), ErrorKind::Host);
            let thread = match fails_at {
                ThreadRole::Io => "thread web:io",
                ThreadRole::DeviceIo(_) => "disk 0 (on a backend): thread web:io0",
                ThreadRole::Vcpu(0) => "thread web:vcpu0",
                _ => "thread web:vcpu1",
            };
            let what = if panics { "panicked" } else { "failed" };
            assert_eq!(error.to_string(), format!("{thread} was not started, because on_thread_start {what}"));
            assert_eq!(transcript.len(), 0, "no guest ran");
        }
    }
    assert_eq!(Footprint::now(), before);
}

/// Another VM of the same process is not disturbed, and a shared thread is not asked.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_thread_of_the_caller_s_is_left_as_it_is() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let shared = IoThread::new("shared").unwrap();
    let before = allowed_cpus(shared.tid());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = calls.clone();
    let vm = tiny(&kernel)
        .io_thread(shared.clone())
        .affinity(Affinity::new().io([0]))
        .on_thread_start(move |role| {
            seen.lock().unwrap().push(role);
            Ok(())
        })
        .build()
        .unwrap();
    vm.start().unwrap();
    vm.wait().unwrap();
    assert_eq!(*calls.lock().unwrap(), [ThreadRole::Vcpu(0)]);
    assert_eq!((comm(shared.tid()), allowed_cpus(shared.tid())), ("shared".to_owned(), before));
}

/// By which cookie the kernel decides what may share a core with a thread.
fn core_cookie(tid: i32) -> rustix::io::Result<u64> {
    use rustix::thread::{CoreSchedulingScope, Pid, core_scheduling_cookie};
    core_scheduling_cookie(Pid::from_raw(tid).expect("no thread is 0"), CoreSchedulingScope::Thread)
}

/// On a host that has nothing to schedule by cores, a VM is built that needs it not; on one that lacks it, none is.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_threads_of_a_vm_share_a_core_with_no_others_if_that_is_asked_for() {
    let kernel = Kernel::new(&TinyGuest::spin());
    let own = core_cookie(rustix::thread::gettid().as_raw_nonzero().get());
    let said = Arc::new(Mutex::new(Vec::new()));
    let sink = said.clone();
    let builder = || tiny(&kernel).vcpus(2).disk(disk_apart()).core_scheduling(true);
    let built = builder().log(move |record| sink.lock().unwrap().push(record.message.to_string())).build();
    let Ok(own) = own else {
        let smt = std::fs::read_to_string("/sys/devices/system/cpu/smt/active").unwrap_or_default();
        if smt.trim() == "0" {
            built.unwrap().start().unwrap();
            let said = said.lock().unwrap();
            assert!(
                said[0].starts_with("needs no core scheduling, because no two hyperthreads share a core"),
                "{said:?}"
            );
        } else {
            let error = built.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Host);
            assert!(error.to_string().starts_with("core scheduling was asked for, which the kernel lacks"), "{error}");
        }
        return;
    };
    let shared = IoThread::new("shared").unwrap();
    let vms = [built.unwrap(), builder().io_thread(shared.clone()).build().unwrap()];
    let cookies = vms.iter().map(|vm| {
        vm.start().unwrap();
        let mut cookies: Vec<u64> = vm.threads().iter().map(|thread| core_cookie(thread.tid).unwrap()).collect();
        assert!(cookies.len() >= 3);
        cookies.dedup();
        cookies
    });
    let mut cookies: Vec<u64> = cookies.flatten().chain([own]).collect();
    assert_eq!(cookies.len(), 3, "one for each VM: {cookies:?}");
    cookies.sort_unstable();
    cookies.dedup();
    assert_eq!(cookies.len(), 3, "the VMs have different ones");
    assert_eq!(core_cookie(shared.tid()).unwrap(), own);
    let apart = tiny(&kernel).build().unwrap();
    apart.start().unwrap();
    assert!(apart.threads().iter().all(|thread| core_cookie(thread.tid).unwrap() == own));
}

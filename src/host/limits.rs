//! How many VMs this process may have, and by which means their disks may work.

use std::io;

use super::finding::Finding;
use super::root::{Root, Told};

/// What a VM without devices has, with an I/O thread of its own; the README says the same.
const FILES_OF_A_VM: u64 = 12;
const MAPPINGS_OF_A_VM: u64 = 11;

/// A host that allows fewer VMs in a process is told so.
const MANY_VMS: u64 = 1000;

const URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";
const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";

/// Whether this process may have an io_uring; `made` says what came of making one.
pub(super) fn io_uring(root: &Root, made: &io::Result<()>) -> Finding {
    const NAME: &str = "io-uring";
    let Err(error) = made else { return Finding::fine(NAME, "this process may use it") };
    let policy = match root.text(URING_DISABLED).as_deref() {
        Ok("0") | Err(_) => {
            "let it through in the seccomp filter of this process or its container, on Linux 6.0 or later".to_owned()
        }
        Ok(value) => {
            format!("kernel.io_uring_disabled is {value}: set it to 0, or to 1 with a group in kernel.io_uring_group")
        }
    };
    let found = format!("this process may not use it ({error}), so disks work by system calls");
    Finding::advice(NAME, found, policy)
}

/// How many VMs the limit of open files leaves room for.
pub(super) fn open_files(root: &Root, limit: u32) -> Finding {
    const NAME: &str = "open-files";
    let open = match root.count("/proc/self/fd") {
        Ok(open) => open as u64,
        Err(why) => return Finding::unknown(NAME, why),
    };
    let left = u64::from(limit).saturating_sub(open);
    let found = format!("{left} of {limit} are left (RLIMIT_NOFILE)");
    room(
        NAME,
        found,
        left / FILES_OF_A_VM,
        "raise it: ulimit -n, or LimitNOFILE= in systemd; a thousand VMs want 16384",
    )
}

/// How many VMs the limit of mappings leaves room for.
pub(super) fn mappings(root: &Root) -> Finding {
    const NAME: &str = "mappings";
    let told: Told = root.text(MAX_MAP_COUNT);
    let most = match told.as_ref().map(|text| text.parse::<u64>()) {
        Ok(Ok(most)) => most,
        Ok(Err(_)) => return Finding::unknown(NAME, format!("{MAX_MAP_COUNT} says {:?}", told.unwrap_or_default())),
        Err(why) => return Finding::unknown(NAME, why),
    };
    let found = format!("a process may have {most} (vm.max_map_count)");
    room(NAME, found, most / MAPPINGS_OF_A_VM, "raise it: sysctl vm.max_map_count=65530")
}

fn room(name: &str, found: String, vms: u64, advice: &str) -> Finding {
    let found = format!("{found}, for {vms} VMs without devices");
    match vms {
        0 => Finding::problem(name, found, advice),
        few if few < MANY_VMS => Finding::advice(name, found, advice),
        _ => Finding::fine(name, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::{Advice, Fine, Problem, Unknown};
    use super::super::tree::{Tree, expect, nothing};
    use super::*;

    #[test]
    fn io_uring_that_is_forbidden_says_by_what() {
        expect(&io_uring(nothing().root(), &Ok(())), Fine, "may use it");
        let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
        let by_sysctl = io_uring(Tree::new().with(URING_DISABLED, "2\n").root(), &refused());
        expect(&by_sysctl, Advice, "may not use it (Operation not permitted");
        assert!(by_sysctl.advice.unwrap().starts_with("kernel.io_uring_disabled is 2"));
        for tree in [Tree::new().with(URING_DISABLED, "0\n"), nothing()] {
            let otherwise = io_uring(tree.root(), &refused());
            assert!(otherwise.advice.unwrap().contains("seccomp"));
        }
    }

    #[test]
    fn files_that_are_left_are_counted_in_vms() {
        let tree = (0..4).fold(Tree::new(), |tree, fd| tree.with(&format!("/proc/self/fd/{fd}"), ""));
        expect(&open_files(tree.root(), 12_004), Fine, "12000 of 12004 are left (RLIMIT_NOFILE), for 1000 VMs");
        expect(&open_files(tree.root(), 12_003), Advice, "for 999 VMs");
        expect(&open_files(tree.root(), 16), Advice, "for 1 VMs");
        expect(&open_files(tree.root(), 15), Problem, "11 of 15 are left");
        expect(&open_files(tree.root(), 1), Problem, "0 of 1 are left");
        expect(&open_files(nothing().root(), 1024), Unknown, "/proc/self/fd cannot be read");
    }

    #[test]
    fn mappings_are_counted_in_vms() {
        let of = |text| mappings(Tree::new().with(MAX_MAP_COUNT, text).root());
        expect(&of("65530\n"), Fine, "a process may have 65530 (vm.max_map_count), for 5957 VMs");
        expect(&of("10999\n"), Advice, "for 999 VMs");
        expect(&of("10\n"), Problem, "for 0 VMs");
        expect(&of("many\n"), Unknown, "\"many\"");
        expect(&of(""), Unknown, "\"\"");
        expect(&mappings(nothing().root()), Unknown, "max_map_count cannot be read");
    }
}

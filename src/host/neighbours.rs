//! What other processes of the host may do to this one, and how it can be bounded.

use super::finding::Finding;
use super::root::Root;

const PTRACE_SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";
const CGROUP: &str = "/sys/fs/cgroup";

/// Whether another program of the same user can read this process, and so its guests.
pub(super) fn ptrace(root: &Root) -> Finding {
    const NAME: &str = "ptrace";
    match root.text(PTRACE_SCOPE).as_deref() {
        Ok("0") => Finding::advice(
            NAME,
            "any program of the same user can read the memory of guests (kernel.yama.ptrace_scope is 0)",
            "give this process a user of its own, or set it to 1",
        ),
        Ok(scope @ ("1" | "2" | "3")) => {
            Finding::fine(NAME, format!("not every program of the same user can read the memory of guests ({scope})"))
        }
        Ok(other) => Finding::unknown(NAME, format!("{PTRACE_SCOPE} says {other:?}")),
        Err(why) => Finding::unknown(NAME, why.clone()),
    }
}

/// Whether CPU time, memory and I/O of VMs can be bounded by cgroups of version 2.
pub(super) fn cgroup(root: &Root) -> Finding {
    const NAME: &str = "cgroup";
    if let Ok(controllers) = root.text(&format!("{CGROUP}/cgroup.controllers")) {
        return Finding::fine(NAME, format!("version 2, with {controllers}"));
    }
    match root.names(CGROUP) {
        Ok(names) if !names.is_empty() => Finding::advice(
            NAME,
            "version 1",
            "use version 2 (systemd.unified_cgroup_hierarchy=1): the threads of one VM can have a cgroup of their own there",
        ),
        Ok(_) => Finding::unknown(NAME, format!("{CGROUP} is empty")),
        Err(why) => Finding::unknown(NAME, why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::{Advice, Fine, Unknown};
    use super::super::tree::{Tree, expect, nothing};
    use super::*;

    #[test]
    fn a_host_that_lets_any_program_read_this_one_is_told() {
        let of = |text| ptrace(Tree::new().with(PTRACE_SCOPE, text).root());
        expect(&of("0\n"), Advice, "any program of the same user");
        expect(&of("1\n"), Fine, "not every program");
        expect(&of("3\n"), Fine, "not every program");
        expect(&of("4\n"), Unknown, "\"4\"");
        expect(&ptrace(nothing().root()), Unknown, "ptrace_scope cannot be read");
    }

    #[test]
    fn cgroups_of_the_old_kind_are_told() {
        let tree = Tree::new().with("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
        expect(&cgroup(tree.root()), Fine, "version 2, with cpuset cpu io memory pids");
        expect(&cgroup(Tree::new().with("/sys/fs/cgroup/memory/tasks", "").root()), Advice, "version 1");
        let empty = Tree::new();
        std::fs::create_dir_all(empty.root().path(CGROUP)).unwrap();
        expect(&cgroup(empty.root()), Unknown, "is empty");
        expect(&cgroup(nothing().root()), Unknown, "/sys/fs/cgroup cannot be read");
    }
}

//! What the host has to confine a process and its threads by.

use std::io;

use super::finding::Finding;
use super::root::Root;

const SECCOMP: &str = "/proc/sys/kernel/seccomp/actions_avail";
const USER_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";
/// Of Debian's kernels.
const UNPRIVILEGED: &str = "/proc/sys/kernel/unprivileged_userns_clone";
/// Of Ubuntu's kernels.
const APPARMOR: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// The version of Landlock from which on each of its layers is there (Linux 6.12).
const WHOLE: i64 = 6;

/// Whether system calls can be filtered.
pub(super) fn seccomp(root: &Root) -> Finding {
    const NAME: &str = "seccomp";
    match root.text(SECCOMP) {
        Ok(actions) => Finding::fine(NAME, format!("system calls can be filtered ({actions})")),
        Err(why) => Finding::unknown(NAME, why),
    }
}

/// Whether a process without privileges gets a user namespace, on which the other namespaces and the empty root of a jail depend.
pub(super) fn user_namespaces(root: &Root) -> Finding {
    const NAME: &str = "user-namespaces";
    let most = match root.text(USER_NAMESPACES) {
        Ok(most) => most,
        Err(why) => return Finding::unknown(NAME, why),
    };
    let is = |path: &str, value: &str| root.text(path).is_ok_and(|text| text == value);
    let (found, advice) = if most == "0" {
        (
            "there are none, so a jail has neither namespaces nor an empty root",
            "sysctl -w user.max_user_namespaces=10000",
        )
    } else if is(UNPRIVILEGED, "0") {
        ("only root makes them", "start the process as root, or: sysctl -w kernel.unprivileged_userns_clone=1")
    } else if is(APPARMOR, "1") {
        (
            "AppArmor gives programs without a profile no rights in them",
            "give the program a profile with userns, or start it as root",
        )
    } else {
        return Finding::fine(NAME, format!("any process makes them, {most} in all"));
    };
    Finding::advice(NAME, found, advice)
}

/// Which Landlock the kernel has.
pub(super) fn landlock(version: &io::Result<i64>) -> Finding {
    const NAME: &str = "landlock";
    match version {
        Ok(version @ WHOLE..) => Finding::fine(NAME, format!("version {version}: files, TCP, and signals")),
        Ok(version) => {
            let found = format!(
                "version {version}, which {}",
                if *version >= 4 { "has no signals" } else { "has files alone" }
            );
            Finding::advice(NAME, found, "all of a jail takes Linux 6.12")
        }
        Err(error) => Finding::advice(
            NAME,
            format!("the kernel has none ({error}), so a jail forbids files by an empty root alone"),
            "use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and landlock in the kernel's parameter lsm=",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::{Advice, Fine, Unknown};
    use super::super::tree::{Tree, expect, nothing};
    use super::*;

    #[test]
    fn user_namespaces_may_be_forbidden_in_three_ways() {
        let host = || Tree::new().with(USER_NAMESPACES, "96365\n");
        expect(&user_namespaces(host().root()), Fine, "any process makes them, 96365 in all");
        expect(&user_namespaces(Tree::new().with(USER_NAMESPACES, "0\n").root()), Advice, "there are none");
        expect(&user_namespaces(host().with(UNPRIVILEGED, "0\n").root()), Advice, "only root");
        expect(&user_namespaces(host().with(UNPRIVILEGED, "1\n").with(APPARMOR, "1\n").root()), Advice, "AppArmor");
        expect(&user_namespaces(nothing().root()), Unknown, "max_user_namespaces cannot be read");
    }

    #[test]
    fn landlock_is_told_by_its_version() {
        expect(&landlock(&Ok(7)), Fine, "version 7: files, TCP, and signals");
        expect(&landlock(&Ok(4)), Advice, "version 4, which has no signals");
        expect(&landlock(&Ok(1)), Advice, "version 1, which has files alone");
        expect(&landlock(&Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))), Advice, "the kernel has none");
    }

    #[test]
    fn filters_are_told_by_what_they_can_do() {
        expect(
            &seccomp(Tree::new().with(SECCOMP, "kill_process errno allow\n").root()),
            Fine,
            "(kill_process errno allow)",
        );
        expect(&seccomp(nothing().root()), Unknown, "actions_avail cannot be read");
    }
}

//! The user that the program becomes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{getegid, geteuid, getgid, getgroups, getuid};
use vmcell::InheritedDescriptors;

/// What is done before the program executes itself as another user, and not once more after that.
const DONE: [&str; 4] = ["--uid", "--gid", "--cgroup", "--parent-cgroup"];

/// Has the process execute the program anew as this user, in this group alone, with its other options, without variables of the
/// environment and without descriptors that it was started with beyond 2. Returns if the process is that user already, by all of its numbers.
///
/// A process that only changed its user would get no user namespace from the kernel, and a jail without most of its layers.
///
/// # Errors
/// If the host refuses: only root becomes another user, or leaves groups.
pub fn become_user(uid: u32, gid: u32) -> Result<(), String> {
    let own = Ids::own()?;
    if own.are(uid, gid) {
        return Ok(());
    }
    // Groups are left by one who was root before it executed this.
    if own.users != [0, 0] {
        let Ids { users: [real, user], groups: [_, group], others } = own;
        return Err(format!(
            "only root becomes another user or leaves groups, and this is user {user} (started by {real}) of group {group}, also in the groups {others:?}"
        ));
    }
    InheritedDescriptors::close_on_exec().map_err(|error| error.chain())?;
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| "vmcell-firecracker".into());
    let mut anew = Command::new("/proc/self/exe");
    let why = anew.arg0(name).args(left(words)).env_clear().gid(gid).uid(uid).exec();
    Err(format!("cannot execute the program as that user: {why}"))
}

/// Who the process is. The kernel makes the saved numbers the effective ones when a program is executed, and this one changes none.
struct Ids {
    /// The real one and the effective one.
    users: [u32; 2],
    groups: [u32; 2],
    /// Groups that it is in besides.
    others: Vec<u32>,
}

impl Ids {
    fn own() -> Result<Self, String> {
        let others = getgroups().map_err(|why| format!("cannot find the groups of the process: {why}"))?;
        Ok(Self {
            users: [getuid().as_raw(), geteuid().as_raw()],
            groups: [getgid().as_raw(), getegid().as_raw()],
            others: others.into_iter().map(|group| group.as_raw()).collect(),
        })
    }

    /// Whether they are this user and this group, and nothing else.
    fn are(&self, uid: u32, gid: u32) -> bool {
        self.users == [uid; 2] && self.groups == [gid; 2] && self.others.iter().all(|group| *group == gid)
    }
}

/// The words of the command line that are still to be obeyed.
fn left(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut left = Vec::new();
    let mut words = words;
    while let Some(word) = words.next() {
        if DONE.iter().any(|name| word == *name) {
            // Its value is the next word.
            words.next();
        } else if !DONE.iter().any(|name| has_value(&word, name)) {
            left.push(word);
        }
    }
    left
}

/// Whether it is `--name=VALUE`.
fn has_value(word: &OsStr, name: &str) -> bool {
    word.as_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_already_is_left_out_with_its_values() {
        let words = "--jail /a --uid 5 --gid=6 --id vm --cgroup pids.max=7 --parent-cgroup=/b --resource-limit no-file=9 --cgroup x=1";
        let left = left(words.split(' ').map(OsString::from));
        assert_eq!(left.join(OsStr::new(" ")), "--jail /a --id vm --resource-limit no-file=9");
    }

    #[test]
    fn a_user_with_another_number_or_group_is_another_user() {
        let is = |users, groups, others: &[u32]| Ids { users, groups, others: others.to_vec() }.are(5, 6);
        assert!(is([5, 5], [6, 6], &[]) && is([5, 5], [6, 6], &[6]));
        assert!(!is([0, 5], [6, 6], &[]) && !is([5, 0], [6, 6], &[]));
        assert!(!is([5, 5], [0, 6], &[]) && !is([5, 5], [6, 0], &[]));
        assert!(!is([5, 5], [6, 6], &[6, 7]) && !is([5, 5], [6, 6], &[0]));
    }
}

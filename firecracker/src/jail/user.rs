//! The user that the program becomes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{getegid, geteuid};

/// What is done before the program executes itself as another user, and not once more after that.
const DONE: [&str; 4] = ["--uid", "--gid", "--cgroup", "--parent-cgroup"];

/// Has the process execute the program anew as this user and this group alone, with its other options. Returns if the process is that
/// user already.
///
/// A process that only changed its user would get no user namespace from the kernel, and a jail without most of its layers.
///
/// # Errors
/// If the host refuses: only root becomes another user.
pub fn become_user(uid: u32, gid: u32) -> Result<(), String> {
    let (own, group) = (geteuid().as_raw(), getegid().as_raw());
    if (own, group) == (uid, gid) {
        return Ok(());
    }
    if own != 0 {
        return Err(format!("only root becomes another user, and this is user {own} of group {group}"));
    }
    let why = Command::new("/proc/self/exe").args(left(std::env::args_os().skip(1))).gid(gid).uid(uid).exec();
    Err(format!("cannot execute the program as that user: {why}"))
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
    fn the_present_user_is_not_changed() {
        become_user(geteuid().as_raw(), getegid().as_raw()).unwrap();
    }
}

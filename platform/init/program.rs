use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::process::{chdir, chroot, ioctl_tiocsctty, setsid};
use rustix::termios::isatty;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Makes a new process of this program one of the image's.
pub const RUN: &str = "--run";
/// In front of the names of the command's environment, so that it does not change what becomes of the process before.
const PREFIX: &str = "cell:";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As shells have it: there is no such program, and it cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// What is to be run, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub has_terminal: bool,
}

impl Program {
    /// The process that becomes it.
    pub fn command(&self) -> Command {
        let mut command = Command::new("/init");
        let terminal = if self.has_terminal { "terminal" } else { "" };
        let set = |text: &Option<String>| text.clone().unwrap_or_default();
        command.args([RUN, &set(&self.user), &set(&self.working_dir), terminal]).args(&self.command);
        command.env_clear().envs(self.env.iter().map(|(name, value)| (format!("{PREFIX}{name}"), value)));
        command.stdin(Stdio::null());
        command
    }
}

/// What a user is.
#[derive(Debug, Default, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: String,
}

/// Goes on as the program that the arguments name; returns if that fails.
pub fn become_it(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (code, why) = match try_become(arguments) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    eprintln!("cell-init: {why}");
    ExitCode::from(code)
}

fn try_become(mut arguments: impl Iterator<Item = OsString>) -> Result<std::convert::Infallible, (u8, String)> {
    let mut text = || arguments.next().unwrap_or_default().to_string_lossy().into_owned();
    let (user, working_dir, terminal) = (text(), text(), text());
    let program = arguments.next().ok_or((NOT_RUN, "there is no command".to_owned()))?;
    let failed = |what: &str, error: &dyn std::fmt::Display| (NOT_RUN, format!("{what}: {error}"));
    setsid().map_err(|error| failed("a session", &error))?;
    if !terminal.is_empty() {
        ioctl_tiocsctty(std::io::stdin()).map_err(|error| failed("the terminal", &error))?;
    }
    chroot(".").and_then(|()| chdir("/")).map_err(|error| failed("the root", &error))?;
    let found = find_user(&user, &read("/etc/passwd"), &read("/etc/group")).map_err(|why| (NOT_RUN, why))?;
    give_streams(&found);
    let folder = if working_dir.is_empty() { "/" } else { &working_dir };
    chdir(folder).map_err(|error| failed(&format!("the working directory {folder}"), &error))?;
    become_user(&found).map_err(|error| failed(&format!("the user {user}"), &error))?;
    let mut env: BTreeMap<OsString, OsString> =
        std::env::vars_os().filter_map(|(name, value)| Some((plain(&name)?, value))).collect();
    env.entry("PATH".into()).or_insert_with(|| PATH.into());
    env.entry("HOME".into()).or_insert_with(|| found.home.clone().into());
    let error = Command::new(&program).args(arguments).env_clear().envs(env).exec();
    let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
    Err((code, format!("cannot run {}: {error}", program.to_string_lossy())))
}

fn plain(name: &OsStr) -> Option<OsString> {
    name.as_bytes().strip_prefix(PREFIX.as_bytes()).map(|name| OsString::from_vec(name.to_vec()))
}

fn read(path: &str) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Pipes and the terminal, so that the user can open `/dev/stdout`. Nothing else is the user's.
fn give_streams(user: &User) {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    give(&std::io::stdin(), uid, gid);
    give(&std::io::stdout(), uid, gid);
    give(&std::io::stderr(), uid, gid);
}

fn give(stream: &impl AsFd, uid: Uid, gid: Gid) {
    let is_pipe = fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if is_pipe || isatty(stream) {
        // The program can use it as it is, too.
        let _ = fchown(stream, Some(uid), Some(gid));
    }
}

fn become_user(user: &User) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    // This process has one thread.
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Finds `NAME`, `UID`, `NAME:GROUP` or the like in the image's own files.
fn find_user(text: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, wanted_group) = text.split_once(':').map_or((text, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let number: Option<u32> = name.parse().ok();
    let lines = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let field = |line: &[&str], at: usize| line.get(at).and_then(|field| field.parse::<u32>().ok());
    let line = lines()
        .find(|line| line.first() == Some(&name))
        .or_else(|| lines().find(|line| number.is_some() && field(line, 2) == number));
    let (uid, gid, home, login) = match &line {
        Some(line) => (
            field(line, 2),
            field(line, 3),
            line.get(5).copied().unwrap_or("/"),
            line.first().copied().unwrap_or_default(),
        ),
        None => (number, number.map(|_| 0), if number == Some(0) { "/root" } else { "/" }, ""),
    };
    let uid = uid.ok_or_else(|| format!("there is no user `{name}` in the image's /etc/passwd"))?;
    let groups: Vec<Vec<&str>> = group.lines().map(|line| line.split(':').collect()).collect();
    let gid = match wanted_group {
        None => gid.unwrap_or(0),
        Some(wanted) => {
            let named = groups.iter().find(|line| line.first() == Some(&wanted)).and_then(|line| field(line, 2));
            named
                .or_else(|| wanted.parse().ok())
                .ok_or_else(|| format!("there is no group `{wanted}` in the image's /etc/group"))?
        }
    };
    let is_member = |line: &&Vec<&str>| {
        !login.is_empty() && line.get(3).is_some_and(|members| members.split(',').any(|member| member == login))
    };
    let more = if wanted_group.is_none() {
        groups.iter().filter(is_member).filter_map(|line| field(line, 2)).collect()
    } else {
        Vec::new()
    };
    Ok(User { uid, gid, groups: [vec![gid], more].concat(), home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:40:other,web\n";

    fn user(text: &str) -> Result<User, String> {
        find_user(text, PASSWD, GROUP)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let web = User { uid: 33, gid: 34, groups: vec![34, 40], home: "/srv".into() };
        assert_eq!(user("web").unwrap(), web);
        assert_eq!(user("33").unwrap(), web);
        assert_eq!(user("web:logs").unwrap(), User { gid: 40, groups: vec![40], ..web });
        assert_eq!(user("1000:1001").unwrap(), User { uid: 1000, gid: 1001, groups: vec![1001], home: "/".into() });
        assert_eq!(user("").unwrap().home, "/root");
    }

    #[test]
    fn what_is_no_user_is_refused_by_name() {
        assert_eq!(user("nobody").unwrap_err(), "there is no user `nobody` in the image's /etc/passwd");
        assert_eq!(user("web:none").unwrap_err(), "there is no group `none` in the image's /etc/group");
        assert_eq!(find_user("", "", "").unwrap(), User { groups: vec![0], home: "/root".into(), ..User::default() });
    }
}

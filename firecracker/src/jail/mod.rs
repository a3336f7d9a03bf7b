//! The program gives up what its machine does not need, in two steps: what takes the rights of the user who starts it, and the rest.

mod cgroup;
mod user;

pub use cgroup::{CgroupLimit, make_and_join};
pub use user::become_user;

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmcell::{Jail, JailLayer, JailLimit, JailReport};

/// What a machine is made of, which is opened when it is started.
const DEVICES: [&str; 2] = ["/dev/kvm", "/dev/net/tun"];

/// A limit of the process, by the names that Firecracker's jailer has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    limit: JailLimit,
    most: u64,
}

impl ResourceLimit {
    /// Reads `no-file=NUMBER` or `fsize=BYTES`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let allowed = "allowed are no-file=NUMBER and fsize=BYTES";
        let (name, value) = text.split_once('=').ok_or(allowed)?;
        let limit = match name {
            "no-file" => JailLimit::OpenFiles,
            "fsize" => JailLimit::FileBytes,
            other => return Err(format!("there is no {other:?}, {allowed}")),
        };
        let most = number(value).ok_or_else(|| format!("{value:?} is no number, {allowed}"))?;
        Ok(Self { limit, most })
    }

    fn resource(self) -> Resource {
        if self.limit == JailLimit::OpenFiles { Resource::Nofile } else { Resource::Fsize }
    }
}

/// Digits alone, and no sign, which `parse` would take.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The last one of each name.
fn last_of_each(limits: &[ResourceLimit]) -> impl Iterator<Item = ResourceLimit> {
    let has_another = |limit, behind: &[ResourceLimit]| behind.iter().any(|other| other.limit == limit);
    let mut left = limits;
    std::iter::from_fn(move || {
        while let [one, behind @ ..] = left {
            left = behind;
            if !has_another(one.limit, behind) {
                return Some(*one);
            }
        }
        None
    })
}

/// Lets the process have as much later as these limits say, which takes the rights of the user who starts it. [`enter`] sets them.
///
/// # Errors
/// If the host does not let it.
pub fn raise(limits: &[ResourceLimit]) -> Result<(), String> {
    for limit in last_of_each(limits) {
        let Rlimit { current, maximum } = getrlimit(limit.resource());
        if maximum.is_some_and(|maximum| maximum < limit.most) {
            let raised = setrlimit(limit.resource(), Rlimit { current, maximum: Some(limit.most) });
            raised.map_err(|why| format!("{:?} cannot be {}: {why}", limit.limit, limit.most))?;
        }
    }
    Ok(())
}

/// Refuses what is no jail: files, the root, below which all files lie, and a path that leads back by `..`.
///
/// # Errors
/// What is wrong with a folder.
pub fn check(folders: &[PathBuf]) -> Result<(), String> {
    for folder in folders {
        let refused = |why: &str| format!("{}: {why}", folder.display());
        let found = fs::canonicalize(folder).map_err(|why| refused(&why.to_string()))?;
        if !found.is_dir() {
            return Err(refused("it is no folder"));
        }
        if found == Path::new("/") {
            return Err(refused(
                "all files lie below it, so that it would be no jail; name the folder of the machine's files",
            ));
        }
        if folder.components().any(|part| part == Component::ParentDir) {
            return Err(refused("it must be without .."));
        }
    }
    Ok(())
}

/// Leaves the program the files below these folders and the devices that machines are made of. The host's network stays, since TAP
/// devices are found there by their names.
///
/// # Errors
/// If the host gives neither an empty root nor Landlock, so that nothing would keep other files away, or does not give a limit.
pub fn enter(folders: &[PathBuf], limits: &[ResourceLimit]) -> Result<JailReport, String> {
    check(folders)?;
    let mut jail = Jail::new().without(JailLayer::NetworkNamespace).limit(JailLimit::CoreBytes, 0);
    for ResourceLimit { limit, most } in last_of_each(limits) {
        jail = jail.limit(limit, most);
    }
    for folder in folders {
        // As the program has it from where it works.
        let whole = std::path::absolute(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        jail = jail.keep_writable(whole);
    }
    for device in DEVICES.iter().filter(|device| Path::new(device).exists()) {
        jail = jail.keep_writable(device);
    }
    let report = jail.enter().map_err(|error| error.chain())?;
    if !limits.is_empty() && !report.has(JailLayer::Limits) {
        return Err(format!("the host does not give the limits of --resource-limit: jailed {report}"));
    }
    if report.has(JailLayer::EmptyRoot) || report.has(JailLayer::Files) {
        return Ok(report);
    }
    Err(format!("the host keeps no files away: jailed {report}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_folder_or_holds_all_of_them_is_no_jail() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = |path: &str| check(&[folder.path().to_owned(), path.into()]).unwrap_err();
        assert!(refused(file.to_str().unwrap()).ends_with("file: it is no folder"));
        assert!(refused("/none").starts_with("/none: No such file"));
        for root in ["/", "//", "/tmp/.."] {
            assert!(refused(root).contains("all files lie below it"), "{root}");
        }
        assert!(refused(&format!("{}/../tmp", std::env::temp_dir().display())).ends_with("it must be without .."));
        check(&[folder.path().to_owned()]).unwrap();
    }

    #[test]
    fn a_limit_has_a_name_that_there_is_and_a_number() {
        let limit = |limit, most| Ok(ResourceLimit { limit, most });
        assert_eq!(ResourceLimit::parse("no-file=100"), limit(JailLimit::OpenFiles, 100));
        assert_eq!(ResourceLimit::parse("fsize=0"), limit(JailLimit::FileBytes, 0));
        for text in ["", "no-file", "no-file=", "no-file=-1", "files=1", "fsize=1k", "fsize=+5"] {
            assert!(
                ResourceLimit::parse(text).unwrap_err().ends_with("allowed are no-file=NUMBER and fsize=BYTES"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_last_limit_of_a_name_counts_and_what_the_process_may_have_is_not_changed() {
        let limits = ["no-file=9", "fsize=1", "no-file=7"].map(|text| ResourceLimit::parse(text).unwrap());
        assert_eq!(last_of_each(&limits).collect::<Vec<_>>(), limits[1..]);
        let before = getrlimit(Resource::Nofile);
        raise(&limits).unwrap();
        assert_eq!(getrlimit(Resource::Nofile), before);
    }
}

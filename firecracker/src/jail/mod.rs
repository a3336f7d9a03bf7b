//! The program gives up what its machine does not need, in two steps: what takes the rights of the user who starts it, and the rest.

mod cgroup;
mod user;

pub use cgroup::{CgroupLimit, make_and_join};
pub use user::become_user;

use std::fs;
use std::path::{Path, PathBuf};

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
        let most = value.parse().map_err(|_| format!("{value:?} is no number, {allowed}"))?;
        Ok(Self { limit, most })
    }
}

/// Refuses what is no jail: files, and the root, below which all files lie.
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
    for ResourceLimit { limit, most } in limits {
        jail = jail.limit(*limit, *most);
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
        check(&[folder.path().to_owned()]).unwrap();
    }

    #[test]
    fn a_limit_has_a_name_that_there_is_and_a_number() {
        let limit = |limit, most| Ok(ResourceLimit { limit, most });
        assert_eq!(ResourceLimit::parse("no-file=100"), limit(JailLimit::OpenFiles, 100));
        assert_eq!(ResourceLimit::parse("fsize=0"), limit(JailLimit::FileBytes, 0));
        for text in ["", "no-file", "no-file=", "no-file=-1", "files=1", "fsize=1k"] {
            assert!(
                ResourceLimit::parse(text).unwrap_err().ends_with("allowed are no-file=NUMBER and fsize=BYTES"),
                "{text}"
            );
        }
    }
}

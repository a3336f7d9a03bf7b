//! Kernel modules: which files to insert, in which order, for the modules that are wanted. Reads what depmod wrote.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exec::{self, Context, Error, Result};

/// The modules of one kernel.
pub struct Modules {
    root: PathBuf,
    /// Name to file and the files that it needs, as modules.dep has them, below `root`.
    files: HashMap<String, (String, Vec<String>)>,
    built_in: Vec<String>,
}

impl Modules {
    /// Reads `modules.dep` and `modules.builtin` in `root`, a /lib/modules/VERSION. A package that was only unpacked has no
    /// `modules.dep`; depmod then tells what would stand in it, and writes nothing.
    pub fn read(root: &Path) -> Result<Self> {
        let text = |name: &str| {
            let path = root.join(name);
            fs::read_to_string(&path).context(path.display())
        };
        let dep = if root.join("modules.dep").exists() { text("modules.dep")? } else { dependencies(root)? };
        Ok(Self::parse(root, &dep, &text("modules.builtin")?))
    }

    fn parse(root: &Path, dep: &str, built_in: &str) -> Self {
        let mut files = HashMap::new();
        for line in dep.lines() {
            // Behind these lines depmod prints others, of other forms.
            let Some((file, needs)) = line.split_once(':').filter(|(file, _)| is_module(file)) else { continue };
            let needs = needs.split_whitespace().map(String::from).collect();
            files.insert(name_of(file), (file.to_string(), needs));
        }
        Self { root: root.into(), files, built_in: built_in.lines().map(name_of).collect() }
    }

    /// The folder that they are in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The version of the kernel that they belong to.
    pub fn version(&self) -> Option<&str> {
        self.root.file_name()?.to_str()
    }

    /// Those of `names` that this kernel has neither as files nor built in.
    pub fn lacking<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        let lacks = |name: &&&str| {
            let name = name.replace('-', "_");
            !self.built_in.contains(&name) && !self.files.contains_key(&name)
        };
        names.iter().filter(lacks).copied().collect()
    }

    /// The files of `wanted` and of all their dependencies, each after those that it needs; a built-in module needs no
    /// file.
    pub fn resolve(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order: Vec<&str> = Vec::new();
        for name in wanted {
            let name = name.replace('-', "_");
            if self.built_in.contains(&name) {
                continue;
            }
            let Some((file, needs)) = self.files.get(&name) else {
                return Err(Error::new(format!("the kernel has no module {name} in {}", self.root.display())));
            };
            // modules.dep lists all dependencies, the deepest last.
            for file in needs.iter().rev().chain([file]) {
                if !order.contains(&file.as_str()) {
                    order.push(file);
                }
            }
        }
        Ok(order.into_iter().map(|file| self.root.join(file)).collect())
    }
}

/// What depmod would write into `modules.dep` and its other lists for `root`.
fn dependencies(root: &Path) -> Result<String> {
    let (Some(base), Some(version)) = (root.ancestors().nth(3), root.file_name()) else {
        return Err(Error::new(format!("{}: no lib/modules/VERSION", root.display())));
    };
    exec::capture_text(Command::new(depmod()).arg("-n").arg("-b").arg(base).arg(version))
}

/// depmod is in a directory that a user's PATH may lack.
pub fn depmod() -> &'static str {
    if Path::new("/usr/sbin/depmod").exists() { "/usr/sbin/depmod" } else { "/sbin/depmod" }
}

fn is_module(file: &str) -> bool {
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|ending| file.ends_with(ending))
}

/// The module's bytes, unpacked if it was shipped compressed.
pub fn load(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).context(file.display())?;
    let unpack = |program: &str| exec::filter(Command::new(program).arg("-dc"), &bytes);
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => unpack("xz"),
        Some("zst") => unpack("zstd"),
        Some("gz") => unpack("gzip"),
        _ => Ok(bytes),
    }
}

/// `kernel/drivers/net/virtio-net.ko.xz` is the module `virtio_net`.
pub fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/virtio_ring.ko:\n\
        kernel/virtio.ko: kernel/virtio_ring.ko\n\
        kernel/virtio_blk.ko: kernel/virtio.ko kernel/virtio_ring.ko\n\
        kernel/net_failover.ko.xz: kernel/failover.ko\n\
        kernel/virtio_net.ko: kernel/net_failover.ko.xz kernel/failover.ko kernel/virtio.ko kernel/virtio_ring.ko\n";

    fn resolve(wanted: &[&str]) -> Result<Vec<String>> {
        let modules = Modules::parse(Path::new("/m"), DEP, "kernel/fs/ext4/ext4.ko\nkernel/nvme-core.ko\n");
        let files = modules.resolve(wanted)?;
        Ok(files.iter().map(|file| name_of(&file.to_string_lossy())).collect())
    }

    #[test]
    fn each_module_comes_after_what_it_needs_and_once() {
        let order = resolve(&["virtio_blk", "virtio-net"]).unwrap();
        assert_eq!(order, ["virtio_ring", "virtio", "virtio_blk", "failover", "net_failover", "virtio_net"]);
    }

    #[test]
    fn only_what_is_neither_a_file_nor_built_in_is_lacking() {
        let modules = Modules::parse(Path::new("/m"), DEP, "kernel/fs/ext4/ext4.ko\n");
        assert_eq!(modules.lacking(&["ext4", "virtio-net", "floppy"]), ["floppy"]);
    }

    #[test]
    fn lines_of_other_lists_are_skipped() {
        let printed = format!("{DEP}# Aliases extracted from modules themselves.\nalias symbol:x virtio\n");
        let modules = Modules::parse(Path::new("/m"), &printed, "");
        assert_eq!(modules.files.len(), DEP.lines().count());
    }

    #[test]
    fn what_is_built_in_needs_no_file() {
        assert!(resolve(&["ext4", "nvme_core"]).unwrap().is_empty());
    }

    #[test]
    fn an_unknown_module_is_refused_by_name() {
        assert!(resolve(&["floppy"]).unwrap_err().to_string().contains("no module floppy"));
    }
}

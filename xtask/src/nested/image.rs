//! The nested host's second disk, made for each run: its programs, its modules, and room for the files that tests
//! write, which are holes until then.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exec::{self, Context, Result};
use crate::guest::{self, Assets, Guest};
use crate::scratch::Scratch;

/// Where the disk is mounted in the nested host.
pub const MOUNT: &str = "/run/vmcell";
/// The guests' root file system in the nested host: the third disk.
pub const ROOTFS: &str = "/dev/nvme2n1";

const INIT: &str = include_str!("init.sh");

/// A file on the disk, by its name there, which may have folders in it.
pub struct Item {
    pub name: String,
    pub from: PathBuf,
}

/// The guest's files under the names that they have in the nested host.
pub fn guest_items(guest: &Guest) -> Vec<Item> {
    let item = |name: &str, from: &Path| Item { name: name.into(), from: from.into() };
    let [kernel, elf, initrd] = [&guest.kernel, &guest.elf, &guest.initrd];
    vec![item("vmlinuz", kernel), item("vmlinux", elf), item("vmlinux-pc", &guest.pc_elf), item("initrd.img", initrd)]
}

/// Makes the disk with `items` in it; `main` is the shell script that the nested host runs when it is up.
pub fn make(scratch: &Scratch, assets: &Assets, items: &[Item], main: &str) -> Result<PathBuf> {
    let staging = scratch.path().join("disk");
    for dir in ["modules", "tmp"] {
        let dir = staging.join(dir);
        fs::create_dir_all(&dir).context(dir.display())?;
    }
    for item in items {
        copy(&item.from, &staging.join(&item.name))?;
    }
    for (number, file) in assets.host_modules.iter().enumerate() {
        let to = staging.join(format!("modules/{number:02}.ko"));
        fs::write(&to, guest::load_module(file)?).context(to.display())?;
    }
    script(&staging.join("init"), INIT)?;
    script(&staging.join("main"), main)?;
    let image = scratch.path().join("disk.ext4");
    let mut mke2fs = Command::new("/sbin/mke2fs");
    // Few inodes, with their tables written now (they are holes): no thread writes them later, during a test.
    mke2fs.args(["-q", "-F", "-t", "ext4", "-N", "8192", "-E", "lazy_itable_init=0,root_owner=0:0", "-d"]);
    exec::capture(mke2fs.arg(&staging).arg(&image).arg("20G"))?;
    fs::remove_dir_all(&staging).context(staging.display())?;
    Ok(image)
}

/// A link costs nothing, but needs the same file system.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).context(folder.display())?;
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)).context(from.display())
}

fn script(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).context(path.display())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context(path.display())
}

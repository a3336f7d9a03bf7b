//! The distribution's kernel: downloaded as a package, never installed here; its modules, and the ELF inside its bzImage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::bzimage;
use super::modules::{Modules, depmod};
use crate::cache::Cache;
use crate::distro::Distro;
use crate::exec::{self, Context, Error, Result};
use crate::packages;

/// A kernel in the cache.
pub struct Kernel {
    dir: PathBuf,
}

impl Kernel {
    /// As it is shipped.
    pub fn bzimage(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The ELF inside it, which starts fastest.
    pub fn elf(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// Names this kernel in the recipes of everything that is made from it.
    pub fn key(&self) -> String {
        self.dir.display().to_string()
    }

    /// Its modules.
    pub fn modules(&self) -> Result<Modules> {
        Modules::read(&only_child(&self.dir.join("lib/modules"))?)
    }
}

/// The newest kernel of the release for virtual machines, at the time that the cache entry was made.
pub fn prepare(cache: &Cache, distro: &Distro) -> Result<Kernel> {
    let meta = distro.kernel_metapackage();
    let recipe = format!("kernel 1 {} {} {meta}", distro.id, distro.codename);
    let dir = cache.entry("kernel", &recipe, |dir| build(dir, distro))?;
    Ok(Kernel { dir })
}

/// The ELF of the release's newest kernel for any PC, without modules.
pub fn prepare_pc(cache: &Cache, distro: &Distro) -> Result<PathBuf> {
    let meta = distro.pc_kernel_metapackage();
    let recipe = format!("kernel-pc 1 {} {} {meta}", distro.id, distro.codename);
    let entry = cache.entry("kernel-pc", &recipe, |dir| {
        download(dir, meta)?;
        elf_of(&dir.join("vmlinuz"), &dir.join("vmlinux"))?;
        fs::remove_file(dir.join("vmlinuz")).context("vmlinuz")?;
        fs::remove_dir_all(dir.join("lib")).context("lib")
    })?;
    Ok(entry.join("vmlinux"))
}

fn build(dir: &Path, distro: &Distro) -> Result<()> {
    let version = download(dir, distro.kernel_metapackage())?;
    exec::capture(Command::new(depmod()).arg("-b").arg(dir).arg(&version))?;
    elf_of(&dir.join("vmlinuz"), &dir.join("vmlinux"))
}

/// Puts vmlinuz and lib/modules/VERSION of the newest kernel into `dir`, and says which version that is.
fn download(dir: &Path, meta: &str) -> Result<String> {
    let packages = with_parts(&newest_image(meta)?)?;
    eprintln!("xtask: downloading the guest kernel: {}", packages.join(" "));
    let mut apt = Command::new("apt-get");
    // apt's own download user may not write here; the packages' signatures are checked all the same.
    apt.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(&packages).current_dir(dir);
    exec::capture(&mut apt)?;
    for deb in files_ending(dir, ".deb")? {
        exec::capture(Command::new("dpkg-deb").arg("-x").args([&deb, dir]))?;
        fs::remove_file(&deb).context(deb.display())?;
    }
    arrange(dir)
}

/// From the packages' layout to ours: vmlinuz and lib/modules/VERSION.
fn arrange(dir: &Path) -> Result<String> {
    // Newer releases ship modules under usr/lib.
    let (usr, lib) = (dir.join("usr/lib/modules"), dir.join("lib/modules"));
    if usr.is_dir() && !lib.is_dir() {
        fs::create_dir_all(dir.join("lib")).context("lib")?;
        fs::rename(&usr, &lib).context(usr.display())?;
    }
    let modules = only_child(&lib)?;
    let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The newest releases ship the image among the modules.
    let places = [dir.join("boot").join(format!("vmlinuz-{version}")), modules.join("vmlinuz")];
    let shipped = places.iter().find(|place| place.is_file());
    let shipped = shipped.ok_or_else(|| Error::new(format!("the packages of Linux {version} hold no vmlinuz")))?;
    fs::rename(shipped, dir.join("vmlinuz")).context(shipped.display())?;
    for rest in ["boot", "usr"] {
        let rest = dir.join(rest);
        if rest.is_dir() {
            fs::remove_dir_all(&rest).context(rest.display())?;
        }
    }
    Ok(version)
}

/// Writes the ELF that `kernel` is or carries to `to`.
pub fn elf_of(kernel: &Path, to: &Path) -> Result<()> {
    let image = fs::read(kernel).context(kernel.display())?;
    let elf = if bzimage::is_elf(&image) { image } else { unpack(&image).context(kernel.display())? };
    if !bzimage::is_elf(&elf) {
        return Err(Error::new(format!("{}: what it carries is no ELF file", kernel.display())));
    }
    fs::write(to, elf).context(to.display())
}

fn unpack(image: &[u8]) -> Result<Vec<u8>> {
    let (compression, payload) = bzimage::payload(image)?;
    let command = compression.command();
    exec::filter(Command::new(command[0]).args(&command[1..]), payload)
}

/// The package that the metapackage depends on, such as `linux-image-6.1.0-13-cloud-amd64`.
fn newest_image(meta: &str) -> Result<String> {
    let depends = || exec::capture_text(Command::new("apt-cache").args(["depends", meta]));
    if let Some(image) = depends().ok().as_deref().and_then(image_in) {
        return Ok(image);
    }
    // A fresh installation may have no lists yet.
    if exec::is_root() {
        eprintln!("xtask: apt does not know {meta} yet: apt-get update");
        packages::update()?;
    }
    let depends = depends()?;
    image_in(&depends).ok_or_else(|| Error::new(format!("apt knows no {meta}; run `sudo apt-get update` first")))
}

fn image_in(depends: &str) -> Option<String> {
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let versioned = |name: &&str| {
        name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    names.map(str::trim).find(versioned).map(String::from)
}

/// The packages that hold `image` and its modules: itself, and those of the same version that it depends on.
fn with_parts(image: &str) -> Result<Vec<String>> {
    let mut packages = vec![image.to_string()];
    let mut next = 0;
    while let Some(package) = packages.get(next) {
        let depends = exec::capture_text(Command::new("apt-cache").args(["depends", package]))?;
        for part in parts_in(&depends, image) {
            if !packages.contains(&part) {
                packages.push(part);
            }
        }
        next += 1;
    }
    Ok(packages)
}

fn parts_in(depends: &str, image: &str) -> Vec<String> {
    let version = image.trim_start_matches("linux-image-");
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let is_part = |name: &&str| name.starts_with("linux-") && name.ends_with(version);
    names.map(str::trim).filter(is_part).map(String::from).collect()
}

fn only_child(dir: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).context(dir.display())?;
    let children: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    match <[PathBuf; 1]>::try_from(children) {
        Ok([child]) => Ok(child),
        Err(children) => Err(Error::new(format!("{}: {} directories, one is wanted", dir.display(), children.len()))),
    }
}

fn files_ending(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).context(dir.display())?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(suffix)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_versioned_image_is_found_among_the_dependencies() {
        let depends = "linux-image-virtual\n  Depends: linux-image-6.8.0-1-generic\n  Depends: linux-modules-extra\n";
        assert_eq!(image_in(depends).as_deref(), Some("linux-image-6.8.0-1-generic"));
        assert_eq!(image_in("linux-image-generic\n  Depends: linux-image-extra\n"), None);
    }

    #[test]
    fn packages_of_the_same_version_belong_to_the_image() {
        let depends = "linux-image-6.8.0-1-generic\n  Depends: kmod\n  Depends: linux-modules-6.8.0-1-generic\n \
                       Depends: linux-base\n |Depends: linux-x-6.8.0-1-generic\n  Depends: linux-modules-6.9.0-1-generic\n";
        assert_eq!(parts_in(depends, "linux-image-6.8.0-1-generic"), ["linux-modules-6.8.0-1-generic"]);
    }

    #[test]
    fn an_image_is_found_in_boot_and_among_the_modules() {
        for (modules, image) in [
            ("lib/modules/6.1.0-1-amd64", "boot/vmlinuz-6.1.0-1-amd64"),
            ("usr/lib/modules/6.1.0-1-amd64", "usr/lib/modules/6.1.0-1-amd64/vmlinuz"),
        ] {
            let dir = Scratch::new(&std::env::temp_dir(), "xtask-kernel").unwrap();
            let dir = dir.path();
            fs::create_dir_all(dir.join(modules).join("kernel")).unwrap();
            fs::create_dir_all(dir.join("boot")).unwrap();
            fs::write(dir.join(image), "image").unwrap();
            assert_eq!(arrange(dir).unwrap(), "6.1.0-1-amd64");
            assert_eq!(fs::read(dir.join("vmlinuz")).unwrap(), b"image");
            assert!(dir.join("lib/modules/6.1.0-1-amd64/kernel").is_dir());
        }
    }

    #[test]
    fn packages_without_an_image_are_refused() {
        let dir = Scratch::new(&std::env::temp_dir(), "xtask-kernel").unwrap();
        fs::create_dir_all(dir.path().join("lib/modules/6.1.0-1-amd64")).unwrap();
        assert!(arrange(dir.path()).unwrap_err().to_string().contains("6.1.0-1-amd64 hold no vmlinuz"));
    }
}

//! A kernel of the user's: which version it is, and its modules, which lie beside it as a distribution's package has them.

use std::fs;
use std::path::{Path, PathBuf};

use super::initrd::{self, Wanted};
use super::kernel::Kernel;
use super::modules::Modules;
use crate::exec::{Context, Error, Result};

/// In front of the version in every Linux.
const BANNER: &[u8] = b"Linux version ";

/// Makes an initrd in `scratch` with the modules of `kernel`, whose ELF is `elf`; says which ones there are none of. `known` may
/// be the same version.
pub fn initrd(kernel: &Path, elf: &Path, known: &Kernel, wanted: Wanted<'_>, scratch: &Path) -> Result<PathBuf> {
    let version = version_of(&fs::read(elf).context(elf.display())?)
        .ok_or_else(|| Error::new(format!("{}: no Linux, as it does not name its version", kernel.display())))?;
    let places = places(kernel, &version);
    let beside = places.iter().find(|place| place.is_dir()).map(|place| Modules::read(place)).transpose()?;
    let modules = match beside {
        Some(modules) => Some(modules),
        None => Some(known.modules()?).filter(|modules| modules.version() == Some(&version)),
    };
    let Some(modules) = modules else {
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        let looked = places.join(", ");
        eprintln!(
            "xtask: Linux {version} boots without modules, as there are none in {looked}: it needs these built in:"
        );
        eprintln!("xtask: {}", wanted.load.join(", "));
        return initrd::make(scratch, None);
    };
    let lacking = modules.lacking(&[wanted.load, wanted.spare].concat());
    if !lacking.is_empty() {
        eprintln!("xtask: Linux {version} has no module {}, and boots without", lacking.join(", "));
    }
    let [load, spare] = [wanted.load, wanted.spare]
        .map(|names| names.iter().copied().filter(|name| !lacking.contains(name)).collect::<Vec<_>>());
    initrd::make(scratch, Some((&modules, Wanted { load: &load, spare: &spare })))
}

/// The version that a kernel names itself, such as `6.1.0-13-cloud-amd64`.
fn version_of(elf: &[u8]) -> Option<String> {
    let starts = elf.windows(BANNER.len()).enumerate().filter(|(_, window)| *window == BANNER);
    starts.filter_map(|(at, _)| elf.get(at + BANNER.len()..)).find_map(|rest| {
        let end = rest.iter().take(100).position(|byte| *byte == b' ')?;
        // In front of others of these words stands a format for the version.
        rest.first().filter(|first| first.is_ascii_digit())?;
        String::from_utf8(rest[..end].to_vec()).ok()
    })
}

/// Where modules of this version may lie: under the kernel's folder, or under the one that its folder is in, as with
/// `boot/vmlinuz-VERSION`; or the kernel is among them, as with `usr/lib/modules/VERSION/vmlinuz`.
fn places(kernel: &Path, version: &str) -> Vec<PathBuf> {
    let folder = kernel.parent().unwrap_or(Path::new("/"));
    let mut places = Vec::new();
    if folder.file_name().is_some_and(|name| name == version) {
        places.push(folder.to_path_buf());
    }
    for base in [Some(folder), folder.parent()].into_iter().flatten() {
        places.extend(["lib/modules", "usr/lib/modules"].map(|dir| base.join(dir).join(version)));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_banner() {
        let elf = b"\0%s version %s\0Linux version %s (x)\0\0Linux version 6.12.1+deb13-cloud-amd64 (builder) #1\n\0";
        assert_eq!(version_of(elf).as_deref(), Some("6.12.1+deb13-cloud-amd64"));
        assert_eq!(version_of(b"Linux version "), None);
        assert_eq!(version_of(b"\x7fELF"), None);
    }

    #[test]
    fn modules_are_looked_for_as_packages_have_them() {
        let of = |kernel: &str| places(Path::new(kernel), "6.1");
        assert!(of("/x/boot/vmlinuz-6.1").contains(&"/x/lib/modules/6.1".into()));
        assert!(of("/x/vmlinux").contains(&"/x/lib/modules/6.1".into()));
        assert_eq!(of("/x/usr/lib/modules/6.1/vmlinuz")[0], Path::new("/x/usr/lib/modules/6.1"));
    }
}

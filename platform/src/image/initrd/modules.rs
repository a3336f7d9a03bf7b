//! The modules that a kernel needs for our guests: which files, in which order, by what depmod has written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::fault::{Context, Fault, Result};

/// Without these, no guest begins.
const WANTED: [&str; 5] = ["virtio_mmio", "virtio_blk", "erofs", "overlay", "vmw_vsock_virtio_transport"];
/// These are taken if there are any: checksums that no list of dependencies names, volumes, the network, entropy.
const USEFUL: [&str; 7] =
    ["crc32c_generic", "libcrc32c", "crc32c_intel", "ext4", "virtio_net", "virtio_rng", "virtio_balloon"];
/// The most bytes of an unpacked module.
const MOST_BYTES: u64 = 64 << 20;
/// In front of the version in every Linux.
const BANNER: &[u8] = b"Linux version ";

/// Finds the folder of a kernel's modules: the one that is given, the system's, or one beside the kernel.
///
/// # Errors
/// If the kernel does not name its version, or there is no such folder.
pub fn folder(kernel: &Path, given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let bytes = fs::read(kernel).context(kernel.display())?;
    let version = version(&bytes)
        .ok_or_else(|| Fault::new(format!("{}: no Linux, as it does not name its version", kernel.display())))?;
    let near = kernel.ancestors().skip(1).take(2);
    let bases = [Path::new("/"), Path::new("/usr")].into_iter().chain(near);
    let places: Vec<PathBuf> = bases.map(|base| base.join("lib/modules").join(&version)).collect();
    let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    places.into_iter().find(|place| place.is_dir()).ok_or_else(|| {
        Fault::new(format!("no modules of Linux {version} in {}", looked.join(", "))).next("name their folder")
    })
}

/// The version that a kernel names, in the header of a bzImage or in the text of an ELF file.
fn version(bytes: &[u8]) -> Option<String> {
    let word = |bytes: &[u8]| {
        let end = bytes.iter().take(100).position(|byte| matches!(byte, b' ' | 0))?;
        let word = std::str::from_utf8(bytes.get(..end)?).ok()?;
        word.starts_with(|first: char| first.is_ascii_digit()).then(|| word.to_owned())
    };
    if bytes.get(0x202..0x206) == Some(b"HdrS") {
        let at: [u8; 2] = bytes.get(0x20e..0x210)?.try_into().ok()?;
        return word(bytes.get(usize::from(u16::from_le_bytes(at)).checked_add(0x200)?..)?);
    }
    let banners = bytes.windows(BANNER.len()).enumerate().filter(|(_, window)| *window == BANNER);
    banners.filter_map(|(at, _)| bytes.get(at.checked_add(BANNER.len())?..)).find_map(word)
}

/// The modules of `folder` that a guest needs, unpacked, in the order in which they are inserted.
///
/// # Errors
/// If the lists of depmod are not there; if the kernel has not all that a guest needs; if a module cannot be unpacked.
pub fn modules(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let list = |name: &str| {
        let path = folder.join(name);
        let help = "let depmod write the lists: depmod -b FOLDER VERSION";
        fs::read_to_string(&path).context(path.display()).map_err(|fault| fault.next(help))
    };
    let order = order(&list("modules.dep")?, &list("modules.builtin")?)
        .map_err(|fault| Fault::new(format!("{}: {}", folder.display(), fault.message)))?;
    order.iter().map(|file| Ok((name_of(file), load(&folder.join(file))?))).collect()
}

/// The files, each after those that it needs.
fn order(dependencies: &str, built_in: &str) -> Result<Vec<String>> {
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    let files: BTreeMap<String, (&str, &str)> = lines.map(|(file, needs)| (name_of(file), (file, needs))).collect();
    let built_in: BTreeSet<String> = built_in.lines().map(name_of).collect();
    let missing: Vec<&str> =
        WANTED.into_iter().filter(|name| !files.contains_key(*name) && !built_in.contains(*name)).collect();
    if !missing.is_empty() {
        return Err(Fault::new(format!("the kernel has no {}, which every guest needs", missing.join(", "))));
    }
    let mut order: Vec<String> = Vec::new();
    for name in USEFUL.into_iter().chain(WANTED).filter(|name| !built_in.contains(*name)) {
        let Some((file, needs)) = files.get(name) else { continue };
        // All that it needs is listed, the deepest last.
        for file in needs.split_whitespace().rev().chain([*file]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

fn load(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).context(file.display())?;
    let read_all = |unpacked: &mut dyn Read| {
        let mut all = Vec::new();
        unpacked.take(MOST_BYTES).read_to_end(&mut all).map(|_| all).context(file.display())
    };
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => {
            let mut all = Vec::new();
            lzma_rs::xz_decompress(&mut bytes.as_slice(), &mut all)
                .map_err(|error| Fault::new(format!("{}: {error:?}", file.display())))?;
            Ok(all)
        }
        Some("gz" | "zst") => read_all(&mut crate::image::stream::unpacked(bytes.as_slice())?),
        _ => Ok(bytes),
    }
}

/// `kernel/drivers/net/virtio-net.ko.xz` is the module `virtio_net`.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/virtio_ring.ko:\nkernel/virtio.ko: kernel/virtio_ring.ko\n\
        kernel/virtio_mmio.ko.xz: kernel/virtio.ko kernel/virtio_ring.ko\nkernel/virtio-blk.ko: kernel/virtio.ko kernel/virtio_ring.ko\n\
        kernel/erofs.ko: kernel/libcrc32c.ko\nkernel/libcrc32c.ko:\nkernel/overlay.ko:\nkernel/floppy.ko:\n";

    #[test]
    fn each_module_comes_once_and_after_what_it_needs() {
        let order = order(DEPENDENCIES, "kernel/vmw_vsock_virtio_transport.ko\n").unwrap();
        let names: Vec<String> = order.iter().map(|file| name_of(file)).collect();
        assert_eq!(names, ["libcrc32c", "virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "erofs", "overlay"]);
    }

    #[test]
    fn a_kernel_without_what_a_guest_needs_is_refused_by_name() {
        let fault = order("kernel/overlay.ko:\n", "kernel/virtio_mmio.ko\nkernel/virtio_blk.ko").unwrap_err();
        assert_eq!(fault.message, "the kernel has no erofs, vmw_vsock_virtio_transport, which every guest needs");
    }

    #[test]
    fn the_version_is_read_from_a_bzimage_and_from_an_elf_file() {
        let elf = b"\0%s version %s\0Linux version %s (x)\0\0Linux version 6.12.1+deb13-cloud-amd64 (builder) #1\n\0";
        assert_eq!(version(elf).as_deref(), Some("6.12.1+deb13-cloud-amd64"));
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x308].copy_from_slice(b"6.1.0 (x");
        assert_eq!(version(&image).as_deref(), Some("6.1.0"));
        assert_eq!(version(b"\x7fELF"), None);
    }

    #[test]
    fn packed_modules_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let mut xz = Vec::new();
        lzma_rs::xz_compress(&mut &b"module"[..], &mut xz).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(&b"module"[..], ruzstd::encoding::CompressionLevel::Fastest);
        for (name, bytes) in [("a.ko", &b"module"[..]), ("a.ko.xz", &xz), ("a.ko.zst", &zstd)] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            assert_eq!(load(&path).unwrap(), b"module", "{name}");
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            assert!(name == "a.ko" || load(&path).is_err(), "{name}");
        }
    }
}

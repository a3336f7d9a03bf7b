use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ::tar::EntryType;

use super::made_test::{Archive, gzip, zstd};
use super::{built, files_of, of_bytes};
use crate::image::{Limits, build};

#[test]
fn owners_modes_times_and_attributes_of_an_archive_are_kept() {
    let archive = Archive::new()
        .folder("./")
        .folder("./usr/bin/")
        .pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n="),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("uid", b"70000"),
        ])
        .entry("./usr/bin/ping", EntryType::Regular, 0o4755, "", b"program")
        .symlink("./bin", "usr/bin")
        .link("./usr/bin/ping6", "./usr/bin/ping")
        .entry("./run/pipe", EntryType::Fifo, 0o600, "", b"");
    let files = files_of(&archive.bytes());
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["/", "/bin", "/run", "/run/pipe", "/usr", "/usr/bin", "/usr/bin/ping", "/usr/bin/ping6"]);
    let ping = &files["/usr/bin/ping"];
    assert_eq!((ping.mode, ping.uid, ping.gid, ping.mtime), (0o104_755, 70_000, 100, 1_700_000_000));
    assert_eq!(
        (ping.content.as_slice(), ping.links, ping.number),
        (&b"program"[..], 2, files["/usr/bin/ping6"].number)
    );
    assert_eq!(&ping.xattrs[12..], b"\x0a\x06\x06\0capability\x01\0\0\x02\n=");
    assert_eq!((files["/bin"].mode, files["/bin"].content.as_slice()), (0o120_777, &b"usr/bin"[..]));
    assert_eq!((files["/run/pipe"].mode, files["/run"].mode, files["/run"].uid), (0o010_600, 0o040_755, 0));
    assert_eq!((files["/"].links, files["/usr"].links), (4, 3));
}

#[test]
fn contents_of_every_size_arrive() {
    let sizes = [0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 6000, 6200, 100_000];
    let content = |size: usize| -> Vec<u8> { (0..size).map(|at| (at * 7 + size) as u8).collect() };
    let archive = sizes.iter().fold(Archive::new(), |archive, size| archive.file(&size.to_string(), &content(*size)));
    let files = files_of(&archive.bytes());
    sizes.iter().for_each(|size| assert_eq!(files[&format!("/{size}")].content, content(*size), "{size}"));
}

#[test]
fn a_folder_of_thousands_is_found_whole() {
    let archive =
        (0..3000).fold(Archive::new(), |archive, number| archive.file(&format!("many/file number {number}"), b"x"));
    assert_eq!(files_of(&archive.bytes()).len(), 3002);
}

#[test]
fn long_paths_of_gnu_and_pax_are_read() {
    let long = format!("{}end", "a folder with a name/".repeat(40));
    let mut gnu = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    gnu.append_data(&mut header, &long, &b"1"[..]).unwrap();
    assert_eq!(files_of(&gnu.into_inner().unwrap())[&format!("/{long}")].content, b"1");
    let pax = Archive::new().pax(&[("path", long.as_bytes()), ("mtime", b"12.5")]).file("short", b"2");
    assert_eq!(files_of(&pax.bytes())[&format!("/{long}")].mtime, 12);
}

#[test]
fn the_same_files_give_the_same_image_however_they_are_packed() {
    let plain = Archive::new().file("a", &[7; 50_000]).folder("b").symlink("c", "a").bytes();
    let image = |bytes: &[u8]| of_bytes(bytes, &Limits::default()).unwrap();
    let first = image(&plain);
    assert_eq!(first, image(&plain));
    assert_eq!(first, image(&gzip(&plain)));
    assert_eq!(first, image(&zstd(&plain)));
}

#[test]
fn device_nodes_under_dev_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a.tar");
    let archive = Archive::new().folder("dev").entry("dev/null", EntryType::Char, 0o666, "", b"").entry(
        "dev/vda",
        EntryType::Block,
        0o600,
        "",
        b"",
    );
    std::fs::write(&source, archive.bytes()).unwrap();
    let (image, files) = built(&source);
    assert_eq!((image.left_out, files.len()), (2, 2));
}

fn filled(folder: &Path) {
    std::fs::create_dir(folder.join("bin")).unwrap();
    std::fs::write(folder.join("bin/sh"), b"#!").unwrap();
    std::fs::set_permissions(folder.join("bin/sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::hard_link(folder.join("bin/sh"), folder.join("bin/ash")).unwrap();
    symlink("/etc/shadow", folder.join("outside")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    std::fs::hard_link(folder.join("socket"), folder.join("socket-of-another-name")).unwrap();
}

#[test]
fn a_folder_belongs_to_root_and_its_links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let (image, files) = built(folder.path());
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["/", "/bin", "/bin/ash", "/bin/sh", "/outside"]);
    let (sh, outside) = (&files["/bin/sh"], &files["/outside"]);
    assert_eq!((sh.mode, sh.uid, sh.links, sh.content.as_slice()), (0o100_755, 0, 2, &b"#!"[..]));
    assert_eq!((outside.mode & 0o170_000, outside.content.as_slice()), (0o120_000, &b"/etc/shadow"[..]));
    assert_eq!((image.left_out, image.command.len()), (2, 0));
}

#[test]
fn a_folder_that_changes_while_it_is_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (source, into) = (folder.path().join("source"), folder.path().join("root.img"));
    std::fs::create_dir(&source).unwrap();
    // Large enough that it changes while it is read.
    std::fs::File::create(source.join("large")).unwrap().set_len(64 << 20).unwrap();
    let done = AtomicBool::new(false);
    let fault = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = std::fs::File::options().write(true).open(source.join("large")).unwrap();
            for second in 0.. {
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let fault = build(&source, &into, &Limits::default()).unwrap_err();
        done.store(true, Ordering::Relaxed);
        fault
    });
    assert!(fault.message.contains("it changed while it was read"), "{fault}");
    assert!(!into.exists());
}

#[test]
fn an_image_whose_last_inode_ends_with_a_block_is_whole_for_fsck() {
    // With 103 files it does: 1,600 bytes of the root, and 64 of each, are two blocks.
    for files in 95..110 {
        let archive = (0..files).fold(Archive::new(), |archive, number| archive.file(&format!("{number:02}"), b""));
        assert_eq!(files_of(&archive.bytes()).len(), files + 1);
    }
}

use ::tar::{EntryType, Header};

use super::made_test::{Archive, gzip};
use super::{files_of, of_bytes};
use crate::image::Limits;

fn refused(archive: Archive) -> String {
    refused_bytes(&archive.bytes())
}

fn refused_bytes(bytes: &[u8]) -> String {
    let message = of_bytes(bytes, &Limits::default()).unwrap_err().message;
    message.split_once("/source: ").expect("the source is named").1.to_owned()
}

#[test]
fn paths_that_lead_outside_are_refused() {
    assert_eq!(refused(Archive::new().file("../x", b"")), "the entry `../x`: a path leads upwards by `..`");
    let absolute = "the entry `/x`: a path is absolute; allowed are paths below the root of the archive";
    assert_eq!(refused(Archive::new().file("/x", b"")), absolute);
    let behind = Archive::new().symlink("out", "../../etc").file("out/passwd", b"");
    assert_eq!(refused(behind), "the entry `out/passwd`: it lies behind a symbolic link that leads outside");
    let loops = Archive::new().symlink("a", "b").symlink("b", "a").file("a/c", b"");
    assert_eq!(refused(loops), "the entry `a/c`: it lies behind more than 40 symbolic links");
}

#[test]
fn a_link_inside_is_followed_inside() {
    let files = files_of(&Archive::new().folder("usr/lib").symlink("lib", "/usr/lib").file("lib/x", b"1").bytes());
    assert_eq!(files["/usr/lib/x"].content, b"1");
}

#[test]
fn hard_links_to_what_is_not_in_the_archive_are_refused() {
    assert_eq!(
        refused(Archive::new().link("a", "b")),
        "the entry `a`: a hard link to `b`, which is not in the archive before it"
    );
    let outside = refused(Archive::new().link("a", "../b"));
    assert_eq!(
        outside,
        "the entry `a`: a hard link that leads outside: the entry `../b`: a path leads upwards by `..`"
    );
    assert_eq!(
        refused(Archive::new().folder("b").link("a", "b")),
        "the entry `a`: a hard link to `b`, which is a folder"
    );
}

#[test]
fn device_nodes_elsewhere_duplicates_and_files_as_folders_are_refused() {
    let device = refused(Archive::new().entry("srv/disk", EntryType::Block, 0o600, "", b""));
    assert!(device.starts_with("the entry `srv/disk`: a device node; allowed are those under `dev`"), "{device}");
    let twice = refused(Archive::new().file("a", b"1").file("./a", b"2"));
    assert_eq!(twice, "the entry `a`: the archive has it twice; allowed is once");
    assert_eq!(
        refused(Archive::new().file("a", b"").file("a/b", b"")),
        "the entry `a/b`: it lies below `a`, which is no folder"
    );
}

#[test]
fn sparse_files_are_refused_in_both_forms() {
    let old = refused(Archive::new().entry("a", EntryType::GNUSparse, 0o600, "", b""));
    assert_eq!(old, "the entry `a`: a sparse file; make the archive without --sparse");
    let pax = refused(
        Archive::new().pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"99999999999")]).file("a", b""),
    );
    assert_eq!(pax, old);
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let whole = Archive::new().file("a", &[1; 700]).folder("b").bytes();
    for len in [0, 1, 511, 512, 600, 1211, 1212, 1535, 1536, 2047, 2048] {
        let message = refused_bytes(&whole[..len]);
        assert!(message.contains("cut off"), "{len}: {message}");
    }
    let packed = gzip(&whole);
    for len in [3, 20, packed.len() / 2, packed.len() - 9] {
        assert!(of_bytes(&packed[..len], &Limits::default()).is_err(), "{len}");
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    assert!(refused_bytes(&[b'x'; 2048]).starts_with("not a tar archive"));
    assert_eq!(refused_bytes(b"\xfd7zXZ\0aa"), "packed by xz; allowed are gzip, zstd, and no packing");
    let unknown = refused(Archive::new().entry("a", EntryType::new(b'Q'), 0o600, "", b""));
    assert_eq!(unknown, "the entry `a`: an entry of the kind 0x51, which is not known");
    assert_eq!(
        refused(Archive::new().pax(&[("size", b"5")]).file("a", b"1")),
        "the entry `a`: two sizes, of which one is 1; allowed are files below 8 GiB"
    );
}

#[test]
fn what_is_over_a_limit_is_refused_with_the_limit() {
    let archive = Archive::new().file("a", &[0; 5000]).file("b/c", &[0; 5000]).bytes();
    let with = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        of_bytes(&archive, &limits).unwrap_err().message
    };
    assert!(with(|limits| limits.files = 2).contains("the entry `b/c`: more files than the 2 that are allowed"));
    assert!(
        with(|limits| limits.bytes = 9999)
            .contains("`b/c`: 5000 bytes, with which there are more than the 9999 that are allowed")
    );
    assert!(with(|limits| limits.text_bytes = 2).contains("names, links and attributes have more than the 2 bytes"));
    assert!(with(|limits| limits.archive_bytes = 6000).contains("more than the 6000 bytes that are allowed"));
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let mut limits = Limits { archive_bytes: 1 << 20, ..Limits::default() };
    let bomb = gzip(&vec![0; 64 << 20]);
    let with_end = gzip(&[Archive::new().file("a", b"").bytes(), vec![0; 64 << 20]].concat());
    assert!(of_bytes(&with_end, &limits).unwrap_err().message.contains("more than the 1048576 bytes"));
    assert!(of_bytes(&bomb, &limits).unwrap_err().message.contains("more than the 1048576 bytes"));
    limits.archive_bytes = 1 << 30;
    // A name of a gigabyte.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let bytes = [header.as_bytes().as_slice(), &vec![b'x'; 2 << 20]].concat();
    assert!(
        of_bytes(&gzip(&bytes), &limits)
            .unwrap_err()
            .message
            .contains("a long name or pax header of 1048576 bytes or more")
    );
}

#[test]
fn headers_that_are_damaged_never_panic() {
    let whole = Archive::new().pax(&[("SCHILY.xattr.user.a", b"1")]).file("a", b"1").symlink("b", "a").bytes();
    let mut state = 7_u64;
    for _ in 0..500 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 20) as u8;
        }
        // With right checksums, so that damage gets further.
        for block in bytes.chunks_mut(512) {
            let mut header = Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let _ = of_bytes(&bytes, &Limits { bytes: 1 << 20, archive_bytes: 1 << 20, ..Limits::default() });
    }
}

#[test]
fn a_source_that_is_not_there_tells_what_a_source_is() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("root.img");
    for source in [folder.path().join("nginx:latest"), "/dev/null".into()] {
        let fault = crate::image::build(&source, &into, &Limits::default()).unwrap_err();
        assert!(fault.message.starts_with(&format!("the image {}: ", source.display())), "{fault}");
        assert!(fault.next.unwrap().contains("a folder, a tar archive or an OCI image layout"));
    }
}

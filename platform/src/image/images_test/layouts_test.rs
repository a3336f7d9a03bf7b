use super::made_test::{Archive, archived, gzip, in_folder, layout, zstd};
use super::{built, files_of, of_bytes};
use crate::image::Limits;

/// Two layers, the second of which removes and replaces.
fn layers() -> [(Vec<u8>, Vec<u8>); 2] {
    let lower = Archive::new()
        .folder("etc")
        .file("etc/old", b"old")
        .file("etc/both", b"lower")
        .file("cache/a", b"1")
        .file("gone/deep/a", b"1")
        .symlink("lib", "usr/lib")
        .folder("usr/lib")
        .bytes();
    let upper = Archive::new()
        .file("etc/.wh.old", b"")
        .file("etc/both", b"upper")
        .file("cache/new", b"2")
        .file("cache/.wh..wh..opq", b"")
        .file(".wh.gone", b"")
        .file("lib/x.so", b"3")
        .file(".wh.never", b"")
        .bytes();
    [(gzip(&lower), lower), (zstd(&upper), upper)]
}

#[test]
fn layers_hide_and_replace_what_is_below() {
    let files = files_of(&archived(&layout(&layers())));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["/", "/cache", "/cache/new", "/etc", "/etc/both", "/lib", "/usr", "/usr/lib", "/usr/lib/x.so"]);
    assert_eq!(files["/etc/both"].content, b"upper");
}

#[test]
fn a_layout_says_what_it_runs_in_a_folder_and_in_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let (source, archive) = (folder.path().join("layout"), folder.path().join("a.tar"));
    in_folder(&layout(&layers()), &source);
    std::fs::write(&archive, archived(&layout(&layers()))).unwrap();
    let (image, _) = built(&source);
    assert_eq!(image.command, ["/bin/sh", "-c", "echo $WHAT"]);
    assert_eq!(image.env["WHAT"], "a=b");
    assert_eq!(
        (image.working_dir.as_deref(), image.user.as_deref(), &image.stop_signal),
        (Some("/srv"), Some("web"), &None)
    );
    assert_eq!(built(&archive).0, image);
}

#[test]
fn every_blob_that_is_not_what_its_digest_says_is_refused() {
    let good = layout(&layers());
    for number in 0..good.len() - 2 {
        let mut bad = good.clone();
        let at = bad[number].1.len() / 2;
        bad[number].1[at] ^= 1;
        let message = of_bytes(&archived(&bad), &Limits::default()).unwrap_err().message;
        assert!(message.contains("the digest sha256:") || message.contains("the layer sha256:"), "{number}: {message}");
        bad.remove(number);
        let message = of_bytes(&archived(&bad), &Limits::default()).unwrap_err().message;
        assert!(message.contains("there is no blobs/sha256/"), "{number}: {message}");
    }
}

#[test]
fn a_layer_that_unpacks_to_something_else_is_refused() {
    let [(packed, _), (_, other)] = layers();
    let message = of_bytes(&archived(&layout(&[(packed, other)])), &Limits::default()).unwrap_err().message;
    assert!(message.contains("is wrong: the content has sha256:"), "{message}");
}

#[test]
fn names_of_blobs_lead_nowhere_else() {
    let mut bad = layout(&layers());
    let index = bad.iter().position(|(name, _)| name == "index.json").unwrap();
    let text = |digest: &str| format!(r#"{{"manifests": [{{"digest": "{digest}", "size": 3}}]}}"#).into_bytes();
    for digest in ["sha256:../../../etc/passwd", "sha512:00", "sha256:", "x"] {
        bad[index].1 = text(digest);
        let message = of_bytes(&archived(&bad), &Limits::default()).unwrap_err().message;
        assert!(message.contains("allowed are those of SHA-256"), "{message}");
    }
    bad[index].1 = br#"{"manifests": []}"#.to_vec();
    let message = of_bytes(&archived(&bad), &Limits::default()).unwrap_err().message;
    assert!(message.contains("0 images, of which not exactly one is for linux/amd64"), "{message}");
}

#[test]
fn a_layer_may_lack_its_end_mark_and_no_part_of_an_entry() {
    let whole = Archive::new().file("a", &[1; 700]).folder("b").bytes();
    let of_layer = |len: usize| {
        let layer = whole[..len].to_vec();
        of_bytes(&archived(&layout(&[(layer.clone(), layer)])), &Limits::default())
    };
    for len in [1212, 1300, 1536, 2048] {
        assert!(of_layer(len).is_ok(), "{len}");
    }
    for len in [1, 511, 512, 600, 1211, 1537, 2047] {
        let message = of_layer(len).unwrap_err().message;
        assert!(message.contains("cut off"), "{len}: {message}");
    }
}

#[test]
fn whiteouts_of_a_plain_archive_are_files() {
    assert!(files_of(&Archive::new().file(".wh.a", b"").bytes()).contains_key("/.wh.a"));
}

#[test]
fn a_packed_layout_and_an_old_archive_are_refused_with_what_to_do() {
    let fault = of_bytes(&gzip(&archived(&layout(&layers()))), &Limits::default()).unwrap_err();
    assert_eq!(fault.next.as_deref(), Some("unpack it first, by gunzip or unzstd"));
    let old = Archive::new().file("manifest.json", b"[]").file("repositories", b"{}").bytes();
    assert!(of_bytes(&old, &Limits::default()).unwrap_err().next.unwrap().starts_with("make an OCI one of it"));
}

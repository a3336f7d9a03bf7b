//! Images that others' programs make: umoci makes one, and skopeo writes it in each form that it knows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::built;
use super::reader_test::Found;
use crate::image::{Image, Limits, build};

/// Has umoci make the layout `made`, whose image `one` has three layers.
const MAKE: &str = r#"
mkdir -p lower/bin lower/etc upper/etc
echo hello >lower/bin/hello && chmod 755 lower/bin/hello && ln lower/bin/hello lower/bin/again && ln -s hello lower/bin/link
echo old >lower/etc/old && echo lower >lower/etc/both && echo upper >upper/etc/both
[ "$(id -u)" = 0 ] && rootless= || rootless=--rootless
umoci init --layout made
umoci new --image made:one
umoci insert $rootless --image made:one lower /
umoci insert $rootless --image made:one upper /
umoci insert --whiteout --image made:one /etc/old
umoci config --image made:one --config.cmd /bin/hello --config.env WHO=me --config.user web --config.workingdir /srv
"#;

/// Runs a script in the folder; skopeo is not to ask who may have signed an image.
fn run(folder: &Path, script: &str) {
    let script = script.replace("skopeo copy", "skopeo --insecure-policy copy --quiet");
    let output = Command::new("sh").args(["-ec", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn named(path: &Path) -> (Image, BTreeMap<String, Found>) {
    let (image, files) = built(path);
    // A container's tools set both in each image, if it has neither.
    let env = BTreeMap::from([("WHO".to_owned(), "me".to_owned())]);
    assert_eq!((&image.command[..], &image.env), (&["/bin/hello".to_owned()][..], &env));
    assert_eq!((image.user.as_deref(), image.working_dir.as_deref()), (Some("web"), Some("/srv")));
    (image, files)
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn what_umoci_makes_is_the_same_image_in_each_form_that_skopeo_writes() {
    if !["umoci", "skopeo"].iter().all(|program| Command::new(program).arg("--version").output().is_ok()) {
        return eprintln!("skipped: it takes umoci and skopeo");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(folder.path(), MAKE);
    let made = named(&at("made"));
    let names: Vec<&str> = made.1.keys().map(String::as_str).collect();
    assert_eq!(names, ["/", "/bin", "/bin/again", "/bin/hello", "/bin/link", "/etc", "/etc/both"]);
    assert_eq!((made.1["/etc/both"].content.as_slice(), made.1["/bin/hello"].mode & 0o7777), (&b"upper\n"[..], 0o755));

    run(folder.path(), "skopeo copy oci:made:one oci-archive:file.tar");
    run(folder.path(), "skopeo copy --dest-compress-format zstd --dest-compress oci:made:one oci:zstd:one");
    run(folder.path(), "skopeo copy oci:made:one oci:names:one; skopeo copy oci:made:one oci:names:two");
    for form in ["file.tar", "zstd", "names"] {
        assert!(named(&at(form)) == made, "{form}");
    }
    run(folder.path(), "skopeo copy oci:made:one docker-archive:OLD");
    let fault = build(&at("OLD"), &at("root.img"), &Limits::default()).unwrap_err();
    let (_, remedy) = fault.next.as_deref().and_then(|next| next.split_once(": ")).unwrap();
    run(folder.path(), remedy);
    assert!(named(&at("NEW")) == made);
    // Another image beside it.
    run(folder.path(), "umoci new --image names:other");
    let fault = build(&at("names"), &at("root.img"), &Limits::default()).unwrap_err();
    assert!(fault.message.contains("of which not exactly one is for linux/amd64"), "{fault}");
}

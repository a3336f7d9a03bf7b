mod chance_test;
mod layouts_test;
mod made_test;
mod reader_test;
mod refused_test;
mod sources_test;
mod tools_test;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::{Image, Limits, build};
use crate::fault::Result;
use reader_test::Found;

/// The image of a source, and the files that are in it.
fn built(source: &Path) -> (Image, BTreeMap<String, Found>) {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("root.img");
    let image = build(source, &into, &Limits::default()).unwrap_or_else(|fault| panic!("{fault}"));
    check(&into);
    let bytes = std::fs::read(&into).unwrap();
    assert_eq!((image.size, image.digest.as_str()), (bytes.len() as u64, made_test::digest(&bytes).as_str()));
    (image, reader_test::all(&bytes))
}

/// Tries to make an image of the bytes of a file.
fn of_bytes(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (source, into) = (folder.path().join("source"), folder.path().join("root.img"));
    std::fs::write(&source, bytes).unwrap();
    let made = build(&source, &into, limits).map(|_| {
        check(&into);
        std::fs::read(&into).unwrap()
    });
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), if made.is_ok() { 2 } else { 1 }, "{left:?}");
    made
}

/// Asks erofs-utils, if this host has them.
fn check(image: &Path) {
    if let Ok(output) = Command::new("fsck.erofs").arg(image).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn files_of(bytes: &[u8]) -> BTreeMap<String, Found> {
    reader_test::all(&of_bytes(bytes, &Limits::default()).unwrap_or_else(|fault| panic!("{fault}")))
}

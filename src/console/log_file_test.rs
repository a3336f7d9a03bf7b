use std::fs;
use std::io::Write;

use super::*;

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Writes as a sink does.
fn write(log: &mut LogFile, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = match log.attempt(bytes).unwrap() {
            Attempt::Moved(count) => count,
            Attempt::MayWait => log.take_waiting(bytes).unwrap(),
            Attempt::NotNow => panic!("a file is always ready"),
        };
        bytes = &bytes[count..];
    }
}

#[test]
fn a_file_is_emptied_or_appended_to_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, "old\n").unwrap();
    let appends = ConsoleFile::new(&path).append(true);
    assert_eq!(text(&path), "old\n");
    write(&mut LogFile::open(appends).unwrap(), b"new\n");
    assert_eq!(text(&path), "old\nnew\n");
    write(&mut LogFile::open(ConsoleFile::new(&path)).unwrap(), b"only\n");
    assert_eq!(text(&path), "only\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_refused_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let error = LogFile::open(ConsoleFile::new(folder.path())).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Console);
    let expected = format!("cannot open {} for the console's output", folder.path().display());
    assert_eq!(error.to_string(), expected);
    let error = LogFile::open(ConsoleFile::new("/dev/null").rotate(4096, 1)).err().unwrap();
    assert_eq!(error.to_string(), "/dev/null is to be limited in size, which only a regular file can be");
}

#[test]
fn the_next_files_lie_beside_the_first_although_the_process_works_elsewhere_by_then() {
    let folder = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count());
    let relative = format!("{up}{}", folder.path().join("log").display());
    let log = LogFile::open(ConsoleFile::new(relative).rotate(4096, 1)).unwrap();
    assert!(folder.path().join("log").exists());
    // To change the directory would change it for all other tests, too.
    assert!(log.settings.path.is_absolute(), "{:?}", log.settings.path);
}

#[test]
fn a_file_that_is_full_is_renamed_at_the_end_of_a_line_and_the_oldest_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = LogFile::open(ConsoleFile::new(&path).rotate(4096, 2)).unwrap();
    let lines: Vec<String> = (0..2000).map(|n| format!("line {n:05}\n")).collect();
    lines.chunks(50).for_each(|lines| write(&mut log, lines.concat().as_bytes()));
    let parts = ["log.2", "log.1", "log"].map(|name| text(folder.path().join(name)));
    assert!(
        parts.iter().all(|part| part.len() <= 4096 && part.ends_with('\n')),
        "{:?}",
        parts.each_ref().map(String::len)
    );
    assert!(parts[0].len() > 4000 && parts[1].len() > 4000);
    assert!(lines.concat().ends_with(&parts.concat()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    assert!(log.trouble().is_none());
}

#[test]
fn a_line_that_is_longer_than_the_file_may_be_is_divided() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = LogFile::open(ConsoleFile::new(&path).rotate(4096, 1)).unwrap();
    write(&mut log, &[b'x'; 10_000]);
    assert_eq!((text(&path).len(), text(folder.path().join("log.1")).len()), (10_000 - 2 * 4096, 4096));
}

#[test]
fn what_a_file_held_before_counts_when_it_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, [b'o'; 4000]).unwrap();
    let mut log = LogFile::open(ConsoleFile::new(&path).append(true).rotate(4096, 1)).unwrap();
    write(&mut log, &[b'n'; 200]);
    assert_eq!((text(&path).len(), text(folder.path().join("log.1")).len()), (200, 4000));
}

#[test]
fn a_limited_file_without_older_ones_is_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut log = LogFile::open(ConsoleFile::new(&path).rotate(4096, 0)).unwrap();
    (0..100).for_each(|_| write(&mut log, &[b'x'; 100]));
    assert!((1..=4096).contains(&text(&path).len()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_cannot_be_renamed_is_emptied_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    // In the way, and not to be replaced by a file.
    fs::create_dir(folder.path().join("log.1")).unwrap();
    let mut log = LogFile::open(ConsoleFile::new(&path).rotate(4096, 1)).unwrap();
    write(&mut log, &[b'x'; 4090]);
    write(&mut log, b"goes on\n");
    assert_eq!(text(&path), "goes on\n");
    assert_eq!(log.trouble().unwrap().kind(), io::ErrorKind::IsADirectory);
    assert!(log.trouble().is_none(), "told once");
}

#[test]
fn a_file_that_somebody_took_away_is_begun_anew_and_one_that_was_emptied_goes_on_at_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let (path, taken) = (folder.path().join("log"), folder.path().join("taken"));
    let mut log = LogFile::open(ConsoleFile::new(&path).rotate(4096, 3)).unwrap();
    write(&mut log, b"before\n");
    fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap().write_all(b"").unwrap();
    write(&mut log, b"after\n");
    assert_eq!(text(&path), "after\n");
    fs::rename(&path, &taken).unwrap();
    write(&mut log, &[b'x'; 4090]);
    assert_eq!((text(&taken).len(), text(&path).len()), (6, 4090));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

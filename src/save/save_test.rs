//! Files that are written, read, built on each other, and spoilt in every way.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::memory::{GuestAddress, Place, Template, ram_file};

/// The last block is shorter than the others.
const LEN: u64 = 0x9_8000;
const START: GuestAddress = GuestAddress(0x10_0000);
const MACHINE: &[u8] = br#"{"any":"text"}"#;

/// RAM of which some pages hold a number.
fn ram(pages: &[(u64, u8)]) -> Template {
    let file = ram_file(LEN).unwrap();
    pages.iter().for_each(|(page, byte)| file.write_all_at(&[*byte; 4096], page * 4096).unwrap());
    let places: Vec<Place> = vec![(LEN, Some((Arc::new(file), 0)))];
    Template::of_places(vec![(START, LEN, places)])
}

/// The same with other pages on top.
fn changed(below: &Template, pages: &[(u64, u8)]) -> Template {
    let (file, mut places, mut at) = (ram(pages), Vec::new(), 0);
    for (page, _) in pages {
        let lies_in = |template: &Template, from, to| -> Vec<Place> { template.places_of(0, from, to) };
        places.extend(lies_in(below, at, page * 4096));
        places.extend(lies_in(&file, page * 4096, (page + 1) * 4096));
        at = (page + 1) * 4096;
    }
    places.extend(below.places_of(0, at, LEN));
    Template::of_places(vec![(START, LEN, places)])
}

fn content(memory: &Template) -> Vec<u8> {
    let mut bytes = vec![0; LEN as usize];
    memory.read(0, 0, &mut bytes).unwrap();
    bytes
}

fn draft(memory: &Template, identity: u8) -> Draft<'_> {
    Draft { identity: [identity; 16], machine: MACHINE, memory, base: None, left_out: &[], sync: false, seal: None }
}

fn save(draft: &Draft<'_>, path: &Path) {
    draft.write(path, &mut Pace::new(None)).unwrap();
}

fn load(path: &Path, taken: Taken) -> Template {
    let chain = Chain::open(path).unwrap();
    assert_eq!(chain.machine, MACHINE);
    chain.memory(taken).unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn refusal(path: &Path) -> String {
    Chain::open(path).and_then(|chain| chain.memory(Taken::Copied)).expect_err("it is refused").to_string()
}

#[test]
fn what_was_saved_is_read_and_mapped_again_and_zeroes_take_no_room() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1), (17, 2), (LEN / 4096 - 1, 3)]));
    let path = folder.path("vm");
    save(&draft(&memory, 1), &path);
    for taken in [Taken::Copied, Taken::Mapped] {
        assert!(content(&load(&path, taken)) == content(&memory), "{taken:?}");
    }
    let chain = Chain::open(&path).unwrap();
    assert_eq!((chain.identity, chain.regions().collect::<Vec<_>>()), ([1; 16], vec![(START, LEN)]));
    let file = fs::metadata(&path).unwrap();
    assert_eq!((file.len(), file.mode() & 0o777), (4096 * 3 + 2 * BLOCK + 0x8000, 0o600));
    assert!(file.blocks() * 512 <= 6 * 4096, "{}", file.blocks());
    assert_eq!(folder.names(), ["vm"]);
}

#[test]
fn ranges_that_are_left_out_are_zeroes_in_the_file_in_any_block_and_over_any_base() {
    let folder = Folder::new();
    let (first, number) = (ram(&[(0, 1), (15, 1), (16, 1), (32, 1)]), |page: u64| GuestAddress(START.0 + page * 4096));
    save(&draft(&first, 1), &folder.path("one"));
    let left_out =
        [LeftOut { start: GuestAddress(number(15).0 + 1), len: 8190 }, LeftOut { start: number(32), len: 4096 }];
    let base = Base { name: b"one", identity: [1; 16], memory: &first };
    save(&Draft { left_out: &left_out, base: Some(base), ..draft(&first, 2) }, &folder.path("two"));
    let mut expected = content(&first);
    expected[15 * 4096 + 1..17 * 4096 - 1].fill(0);
    expected[32 * 4096..33 * 4096].fill(0);
    for taken in [Taken::Copied, Taken::Mapped] {
        assert!(content(&load(&folder.path("two"), taken)) == expected, "{taken:?}");
    }
}

#[test]
fn a_file_that_builds_on_others_holds_only_what_lies_elsewhere() {
    let folder = Folder::new();
    let first = ram(&[(0, 1), (32, 1), (100, 1)]);
    let second = changed(&first, &[(32, 2)]);
    let third = changed(&second, &[(0, 0), (50, 3)]);
    save(&draft(&first, 1), &folder.path("one"));
    let on = |memory, identity, below, name: &'static str, under: u8| {
        let base = Base { name: name.as_bytes(), identity: [under; 16], memory: below };
        Draft { base: Some(base), ..draft(memory, identity) }
    };
    save(&on(&second, 2, &first, "one", 1), &folder.path("two"));
    save(&on(&third, 3, &second, "two", 2), &folder.path("three"));
    let stored = |name| fs::metadata(folder.path(name)).unwrap().len() - 3 * 4096;
    assert_eq!([stored("one"), stored("two"), stored("three")], [3 * BLOCK, BLOCK, BLOCK]);
    for taken in [Taken::Copied, Taken::Mapped] {
        for (name, memory) in [("one", &first), ("two", &second), ("three", &third)] {
            assert!(content(&load(&folder.path(name), taken)) == content(memory), "{name} {taken:?}");
        }
    }
    save(&draft(&second, 9), &folder.path("two"));
    assert!(refusal(&folder.path("three")).ends_with("another snapshot than the one it was saved on top of"));
    fs::remove_file(folder.path("two")).unwrap();
    assert_eq!(refusal(&folder.path("three")), "it builds on two: it cannot be opened");
    let elsewhere = on(&third, 3, &second, "../two", 2).write(&folder.path("four"), &mut Pace::new(None));
    assert!(elsewhere.unwrap_err().to_string().contains("name of the file that it builds on"));
    assert_eq!(folder.names().len(), 2);
}

#[test]
fn what_has_as_many_files_below_as_are_read_or_would_replace_one_of_them_is_not_built_on() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1)]));
    save(&draft(&memory, 0), &folder.path("0"));
    let checked = |chain: &Chain, name: &str| chain.check_below(&folder.path(name)).map_err(|error| error.to_string());
    for number in 1..64u8 {
        let (path, below) = (folder.path(&number.to_string()), (number - 1).to_string());
        let chain = Chain::open(&folder.path(&below)).unwrap();
        checked(&chain, &number.to_string()).unwrap();
        let base = Base { name: below.as_bytes(), identity: [number - 1; 16], memory: &memory };
        save(&Draft { base: Some(base), ..draft(&memory, number) }, &path);
    }
    assert!(content(&load(&folder.path("63"), Taken::Copied)) == content(&memory));
    let last = Chain::open(&folder.path("63")).unwrap();
    assert!(checked(&last, "64").unwrap_err().ends_with("allowed are 64; save it whole"));
    let second = Chain::open(&folder.path("2")).unwrap();
    std::os::unix::fs::symlink("1", folder.path("link")).unwrap();
    for replaced in ["0", "2", "link"] {
        assert!(checked(&second, replaced).unwrap_err().contains("take the place of"), "{replaced}");
    }
    checked(&second, "3").unwrap();
}

#[test]
fn a_page_of_zeroes_takes_no_memory_when_it_is_loaded() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1), (17, 2)]));
    save(&draft(&memory, 1), &folder.path("vm"));
    let places = load(&folder.path("vm"), Taken::Copied).places_of(0, 0, LEN);
    let [(_, Some((file, _)))] = &places[..] else { panic!("in one place: {places:?}") };
    assert_eq!(file.metadata().unwrap().blocks() * 512, 2 * 4096);
}

#[test]
fn a_file_that_builds_on_itself_is_refused() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1)]));
    let base = Base { name: b"vm", identity: [1; 16], memory: &memory };
    save(&Draft { base: Some(base), ..draft(&memory, 1) }, &folder.path("vm"));
    assert!(refusal(&folder.path("vm")).ends_with("it builds on more than 63 files"));
}

#[test]
fn a_changed_byte_is_noticed_wherever_it_is() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1), (17, 2)]));
    let path = folder.path("vm");
    save(&draft(&memory, 1), &path);
    let whole = fs::read(&path).unwrap();
    let interesting = (0..0x100)
        .chain(0x1000..0x1000 + MACHINE.len())
        .chain(0x2000..0x2078)
        .chain([0x3000, 0x3fff, 0x4000, 0x1_3000]);
    for at in interesting {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let message = refusal(&path);
        assert!(message.starts_with("it is ") || message.starts_with("its layout"), "{at:#x}: {message}");
    }
}

#[test]
fn a_file_that_was_cut_is_refused_wherever_it_was() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1), (LEN / 4096 - 1, 2)]));
    let path = folder.path("vm");
    save(&draft(&memory, 1), &path);
    let file = File::options().write(true).open(&path).unwrap();
    for len in (0..file.metadata().unwrap().len()).rev().step_by(331) {
        file.set_len(len).unwrap();
        let expected = if len < 8 { "it is no snapshot" } else { "it is damaged: it has " };
        assert!(refusal(&path).starts_with(expected), "{len}");
    }
}

#[test]
fn what_is_of_another_version_or_another_machine_is_told_apart_from_damage() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1)]));
    let path = folder.path("vm");
    save(&draft(&memory, 1), &path);
    let whole = fs::read(&path).unwrap();
    let spoilt = |at: usize, with: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes[12..16].fill(0);
        let checksum = crc32fast::hash(&bytes[..4096]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        refusal(&path)
    };
    assert_eq!(spoilt(8, &[2]), "its layout has version 2, known are 1 to 1");
    assert_eq!(spoilt(16, b"aarch64"), "it is of a machine of another architecture, aarch64, allowed is x86_64");
    assert_eq!(spoilt(0, b"ELF"), "it is no snapshot: the first 8 bytes are others");
    assert!(spoilt(40, &[0xff; 8]).starts_with("it is damaged: it has "));
    fs::write(&path, b"").unwrap();
    assert_eq!(refusal(&path), "it is no snapshot: the first 8 bytes are others");
    assert_eq!(refusal(folder.0.path()), "it is no regular file");
    assert_eq!(refusal(&folder.path("none")), "it cannot be opened");
}

#[test]
fn a_file_that_cannot_be_written_leaves_what_was_there() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1)]));
    save(&draft(&memory, 1), &folder.path("vm"));
    fs::create_dir(folder.path("folder")).unwrap();
    for bad in ["folder", "none/vm"] {
        let error = draft(&memory, 2).write(&folder.path(bad), &mut Pace::new(None)).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Snapshot, "it cannot be written"));
    }
    assert!(draft(&memory, 2).write(Path::new("/"), &mut Pace::new(None)).is_err());
    assert_eq!(Chain::open(&folder.path("vm")).unwrap().identity, [1; 16]);
    assert_eq!(folder.names().len(), 2);
}

#[test]
fn of_two_saves_to_one_place_at_once_each_is_whole_when_it_takes_it() {
    let folder = Folder::new();
    let path = folder.path("vm");
    let memories = [1u8, 2].map(|byte| (byte, ram(&[(0, byte), (17, byte), (100, byte)])));
    std::thread::scope(|scope| {
        for (byte, memory) in &memories {
            let path = &path;
            scope.spawn(move || (0..30).for_each(|_| save(&draft(memory, *byte), path)));
        }
        for _ in 0..30 {
            let Ok(chain) = Chain::open(&path) else { continue };
            let (_, memory) = memories.iter().find(|(byte, _)| chain.identity == [*byte; 16]).unwrap();
            assert!(content(&chain.memory(Taken::Copied).unwrap()) == content(memory));
        }
    });
    assert_eq!(folder.names(), ["vm"]);
}

#[test]
fn no_more_bytes_a_second_are_written_than_were_allowed() {
    let (folder, memory) = (Folder::new(), ram(&[(0, 1), (17, 2)]));
    let began = Instant::now();
    draft(&memory, 1).write(&folder.path("vm"), &mut Pace::new(Some(1 << 20))).unwrap();
    assert!(began.elapsed().as_millis() >= 125, "{:?}", began.elapsed());
}

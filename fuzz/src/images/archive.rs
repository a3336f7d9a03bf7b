//! Archives that are made of choices, and a model of what becomes of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Files, damaged, of_bytes, packed};
use crate::input::{Input, Script};

const NAMES: [&str; 8] = ["a", "b", "c", "dev", "etc", "é", "a-name-of-some-length", "y"];
const ODD_NAMES: [&str; 8] = ["..", ".", "", ".wh.a", ".wh..wh..opq", "a\u{1}", "oci-layout", "LONG"];
/// Around the ends of blocks and inodes of an image.
const SIZES: [usize; 16] = [0, 1, 63, 64, 512, 4000, 4031, 4032, 4033, 4095, 4096, 4097, 5, 100, 8192, 12_289];
/// What pax says of an entry; the first of each pair is the key.
const PAX: [(&str, &str); 14] = [
    ("SCHILY.xattr.user.k", "v\nw"),
    ("SCHILY.xattr.trusted.overlay.x", "1"),
    ("SCHILY.xattr.security.capability", ""),
    ("uid", "3000000000"),
    ("uid", "4294967296"),
    ("gid", "abc"),
    ("gid", "7.5"),
    ("mtime", "1700000000.25"),
    ("mtime", "-5"),
    ("size", "5"),
    ("GNU.sparse.map", "1"),
    ("path", "a/b"),
    ("path", "/etc"),
    ("linkpath", "a"),
];
/// Files and folders are no more than these, whatever the choices are.
const MOST_ENTRIES: usize = 2000;
/// Ends an archive if more follows in the input.
pub const END: u8 = 0xff;

/// What a file of the image is to be.
#[derive(Clone)]
pub struct Node {
    kind: u16,
    mode: u16,
    uid: u32,
    mtime: u64,
    content: Vec<u8>,
    has_xattrs: bool,
}

/// What is to become of an archive.
pub enum Verdict {
    /// These files: which node each path leads to.
    Taken(BTreeMap<Vec<String>, usize>, Vec<Node>, u64),
    Refused,
    /// Links are on the way, which the model does not follow.
    Unknown,
}

/// An archive and its verdict under way.
struct Maker {
    bytes: Vec<u8>,
    paths: BTreeMap<Vec<String>, usize>,
    nodes: Vec<Node>,
    left_out: u64,
    pax: BTreeMap<&'static str, &'static str>,
    /// Whether it is known to be refused, or not known what becomes of it.
    ended: Option<Verdict>,
    entries: usize,
}

/// What an entry says.
struct Entry {
    path: String,
    link: String,
    flag: u8,
    mode: u16,
    uid: u32,
    content: Vec<u8>,
}

/// An archive as it is, packed, or damaged.
pub fn run(input: &mut Input<'_>) {
    let (how, is_damaged) = (input.below(6), input.one_in(3));
    let (bytes, verdict) = archive(input);
    let source = if is_damaged { damaged(packed(bytes, how), input) } else { packed(bytes, how) };
    let made = of_bytes(&source);
    if !is_damaged {
        check(&verdict, made.as_ref().map(|(image, files)| (image.left_out, files)));
    }
}

/// Holds what was made against what was to be.
///
/// # Panics
/// If they differ.
pub fn check(verdict: &Verdict, made: Option<(u64, &Files)>) {
    match (verdict, made) {
        (Verdict::Taken(paths, nodes, left_out), Some((left, files))) => {
            assert_eq!(left, *left_out, "entries that were left out");
            let wanted: BTreeSet<String> = paths.keys().map(|path| shown(path)).collect();
            assert!(files.keys().eq(wanted.iter()), "{:?} is there, and not {wanted:?}", files.keys());
            let mut numbers = BTreeMap::new();
            for (path, number) in paths {
                let (found, node) = (&files[&shown(path)], &nodes[*number]);
                let is = (found.mode, found.uid, found.mtime, !found.xattrs.is_empty());
                let wanted = (node.kind | node.mode, node.uid, node.mtime, node.has_xattrs);
                assert_eq!(is, wanted, "{path:?}");
                assert!(node.kind == FOLDER || found.content == node.content, "the content of {path:?}");
                let first = numbers.entry(*number).or_insert(found.number);
                assert_eq!(*first, found.number, "{path:?} is another name of one file");
            }
            assert!(numbers.len() == numbers.values().collect::<BTreeSet<_>>().len());
        }
        (Verdict::Taken(..), None) => panic!("what is right was refused"),
        (Verdict::Refused, Some(_)) => panic!("what is wrong was taken"),
        _ => {}
    }
}

fn shown(path: &[String]) -> String {
    format!("/{}", path.join("/"))
}

const FOLDER: u16 = 0o040_000;
const FILE: u16 = 0o100_000;
const LINK: u16 = 0o120_000;
const PIPE: u16 = 0o010_000;

/// Makes an archive of choices, up to [`END`].
pub fn archive(input: &mut Input<'_>) -> (Vec<u8>, Verdict) {
    let root = Node { kind: FOLDER, mode: 0o755, uid: 0, mtime: 0, content: Vec::new(), has_xattrs: false };
    let mut maker = Maker {
        bytes: Vec::new(),
        paths: [(Vec::new(), 0)].into(),
        nodes: vec![root],
        left_out: 0,
        pax: BTreeMap::new(),
        ended: None,
        entries: 0,
    };
    while !input.is_over() && maker.entries < MOST_ENTRIES {
        let choice = input.byte();
        if choice == END {
            break;
        }
        maker.step(choice, input);
    }
    maker.bytes.extend([0; 1024]);
    let verdict = maker.ended.unwrap_or(Verdict::Taken(maker.paths, maker.nodes, maker.left_out));
    (maker.bytes, verdict)
}

fn path(input: &mut Input<'_>) -> String {
    let mut parts = Vec::new();
    for _ in 0..=input.below(4) {
        let byte = input.byte();
        let of = if byte < 224 { NAMES } else { ODD_NAMES };
        let name = of[usize::from(byte) % 8];
        parts.push(if name == "LONG" { "n".repeat(usize::from(input.byte()) + 60) } else { name.to_owned() });
    }
    parts.join("/")
}

impl Maker {
    fn step(&mut self, choice: u8, input: &mut Input<'_>) {
        let mut entry = Entry {
            path: String::new(),
            link: String::new(),
            flag: b'0',
            mode: 0,
            uid: u32::from(choice),
            content: Vec::new(),
        };
        match choice % 16 {
            0..=4 => {
                let size = SIZES[usize::from(input.byte()) % 16];
                entry.content = (0..size).map(|at| (at + usize::from(choice)) as u8).collect();
            }
            5 | 6 => entry.flag = b'5',
            7 | 8 => entry.flag = b'2',
            9 => entry.flag = b'1',
            10 => entry.flag = b'6',
            11 => entry.flag = b'3' + (choice / 16) % 2,
            12 => return self.say_pax(input),
            13 => entry.flag = b"SZ7DMI\0V"[usize::from(choice / 16) % 8],
            14 => (entry.flag, entry.content) = (b'5' - (choice / 16) % 4, vec![7; 5]),
            _ => return self.many(input),
        }
        (entry.path, entry.mode) = (path(input), input.half() & 0o7777);
        if matches!(entry.flag, b'1' | b'2') {
            entry.link = if input.one_in(4) { format!("/{}", path(input)) } else { path(input) };
        }
        self.add(&entry);
    }

    /// Many files in one folder.
    fn many(&mut self, input: &mut Input<'_>) {
        let folder = path(input);
        for number in 0..input.byte() {
            let path = format!("{folder}/n{number:03}-{}", "x".repeat(usize::from(number) % 40));
            self.add(&Entry { path, link: String::new(), flag: b'0', mode: 0o644, uid: 1, content: vec![7; 3] });
        }
    }

    fn say_pax(&mut self, input: &mut Input<'_>) {
        let mut said = BTreeMap::new();
        for _ in 0..=input.below(3) {
            let (key, value) = PAX[usize::from(input.byte()) % PAX.len()];
            said.insert(key, value);
        }
        let mut lines = Vec::new();
        for (key, value) in &said {
            lines.extend(line(key, value));
        }
        if input.one_in(32) {
            lines.extend(b"7 k=v\n");
            self.end(Verdict::Refused);
        }
        block(&mut self.bytes, b'x', ("pax", ""), (0o644, 0), &lines);
        self.pax = said;
    }

    fn end(&mut self, verdict: Verdict) {
        self.ended.get_or_insert(verdict);
    }

    /// Writes an entry, with what is too long for a header in front of it, and says what becomes of it.
    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        for (flag, text) in [(b'L', &entry.path), (b'K', &entry.link)] {
            if text.len() > 100 {
                block(&mut self.bytes, flag, ("long", ""), (0o644, 0), &[text.as_bytes(), b"\0"].concat());
            }
        }
        let names = (entry.path.as_str(), entry.link.as_str());
        block(&mut self.bytes, entry.flag, names, (entry.mode, entry.uid), &entry.content);
        let pax = std::mem::take(&mut self.pax);
        if self.ended.is_none() {
            self.model(entry, &pax).unwrap_or_else(|verdict| self.end(verdict));
        }
    }

    /// What becomes of an entry, if nothing has ended before it.
    fn model(&mut self, entry: &Entry, pax: &BTreeMap<&str, &str>) -> Result<(), Verdict> {
        let path = pax.get("path").map_or(entry.path.as_str(), |path| path);
        let link = pax.get("linkpath").map_or(entry.link.as_str(), |link| link);
        let place = place(path)?;
        let node = node(entry, path, link, pax)?;
        if !matches!(entry.flag, b'1' | b'3' | b'4') && node.kind == LINK && link.is_empty() {
            return Err(Verdict::Refused);
        }
        let Some((_, parents)) = place.split_last() else {
            if node.kind != FOLDER || entry.flag == b'1' || matches!(entry.flag, b'3' | b'4') {
                return Err(Verdict::Refused);
            }
            self.nodes[0] = node;
            return Ok(());
        };
        if matches!(entry.flag, b'3' | b'4') {
            self.left_out += 1;
            return if place[0] == "dev" { Ok(()) } else { Err(Verdict::Refused) };
        }
        self.walk(parents)?;
        let there = self.paths.get(&place).copied();
        if let Some(there) = there {
            let both = entry.flag != b'1' && node.kind == FOLDER && self.nodes[there].kind == FOLDER;
            return if both {
                self.nodes[there] = node;
                Ok(())
            } else {
                Err(Verdict::Refused)
            };
        }
        let number = if entry.flag == b'1' { self.linked(link)? } else { self.put(node) };
        self.paths.insert(place.clone(), number);
        Ok(())
    }

    fn put(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Makes the folders of a path that are not there.
    fn walk(&mut self, parents: &[String]) -> Result<(), Verdict> {
        for len in 1..=parents.len() {
            match self.paths.get(&parents[..len]).map(|node| self.nodes[*node].kind) {
                Some(FOLDER) => {}
                Some(LINK) => return Err(Verdict::Unknown),
                Some(_) => return Err(Verdict::Refused),
                None => {
                    let made = Node { mode: 0o755, uid: 0, mtime: 0, has_xattrs: false, ..self.nodes[0].clone() };
                    let made = self.put(made);
                    self.paths.insert(parents[..len].to_vec(), made);
                }
            }
        }
        Ok(())
    }

    /// What a hard link names.
    fn linked(&mut self, link: &str) -> Result<usize, Verdict> {
        let target = place(link)?;
        let (_, parents) = target.split_last().ok_or(Verdict::Refused)?;
        self.walk(parents)?;
        let found = self.paths.get(&target).copied().ok_or(Verdict::Refused)?;
        if self.nodes[found].kind == FOLDER { Err(Verdict::Refused) } else { Ok(found) }
    }
}

/// Writes a header and its content.
fn block(to: &mut Vec<u8>, flag: u8, (path, link): (&str, &str), (mode, uid): (u16, u32), content: &[u8]) {
    let mut header = [0; 512];
    let mut put = |at: usize, most: usize, bytes: &[u8]| {
        let len = bytes.len().min(most);
        header[at..at + len].copy_from_slice(&bytes[..len]);
    };
    put(0, 100, path.as_bytes());
    put(100, 8, format!("{mode:07o}\0").as_bytes());
    put(108, 8, format!("{uid:07o}\0").as_bytes());
    put(116, 8, b"0000000\0");
    put(124, 12, format!("{:011o}\0", content.len()).as_bytes());
    put(136, 12, b"00000000777\0");
    put(156, 1, &[flag]);
    put(157, 100, link.as_bytes());
    put(257, 8, b"ustar\x0000");
    sum(&mut header);
    to.extend(header);
    to.extend(content);
    to.resize(to.len().next_multiple_of(512), 0);
}

/// The node that an entry describes.
fn node(entry: &Entry, path: &str, link: &str, pax: &BTreeMap<&str, &str>) -> Result<Node, Verdict> {
    let size = entry.content.len();
    let is_sized = pax.get("size").is_none_or(|said| said.parse() == Ok(size));
    let is_number = !matches!(pax.get("uid"), Some(&"4294967296")) && !matches!(pax.get("gid"), Some(&"abc"));
    if !is_sized || !is_number || pax.contains_key("GNU.sparse.map") {
        return Err(Verdict::Refused);
    }
    let kind = match entry.flag {
        b'0' | b'7' | 0 if size == 0 && path.ends_with('/') => FOLDER,
        b'0' | b'7' | 0 => FILE,
        b'5' => FOLDER,
        b'6' => PIPE,
        // Which of the links it is, the caller knows, and what is a device.
        b'1' | b'2' | b'3' | b'4' => LINK,
        _ => return Err(Verdict::Refused),
    };
    if kind != FILE && size != 0 {
        return Err(Verdict::Refused);
    }
    if entry.flag == b'1' {
        place(link)?;
    }
    let content = if kind == LINK { link.as_bytes().to_vec() } else { entry.content.clone() };
    let has_xattrs =
        ["SCHILY.xattr.user.k", "SCHILY.xattr.security.capability"].iter().any(|key| pax.contains_key(key));
    let mtime = match pax.get("mtime") {
        Some(&"-5") => 0,
        Some(_) => 1_700_000_000,
        None => 0o777,
    };
    let uid = if pax.contains_key("uid") { 3_000_000_000 } else { entry.uid };
    Ok(Node { kind, mode: entry.mode, uid, mtime, content, has_xattrs })
}

/// The names of a path that leads below the root.
fn place(path: &str) -> Result<Vec<String>, Verdict> {
    let names: Vec<String> = path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect();
    let is_root = path.bytes().all(|byte| byte == b'/');
    let is_right = !path.is_empty()
        && (!path.starts_with('/') || is_root)
        && path.len() <= 4095
        && names.iter().all(|name| name != ".." && name.len() <= 255);
    if is_right { Ok(names) } else { Err(Verdict::Refused) }
}

/// A line of pax, which begins with its own length.
fn line(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len() + 1;
    while len != rest.len() + len.to_string().len() {
        len += 1;
    }
    format!("{len}{rest}").into_bytes()
}

/// Puts the checksum of a header right.
pub fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A file with its header, as an archive has it.
pub fn file(path: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    block(&mut bytes, b'0', (path, ""), (0o644, 0), content);
    bytes
}

/// An archive of two files and a link.
pub fn small() -> Vec<u8> {
    archive(&mut Input::new(&script())).0
}

/// The choices of an archive of a folder, two files, and links.
pub fn script() -> Vec<u8> {
    let script = Script::new().bytes(&[5, 0, 0]).half(0o755);
    let script = script.bytes(&[0, 13, 1, 0, 1]).half(0o644).bytes(&[1, 10, 0, 2]).half(0o755);
    script.bytes(&[7, 0, 4]).half(0o777).bytes(&[0, 0, 2]).bytes(&[9, 0, 7]).half(0).bytes(&[0, 0, 2]).done()
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let plain = |rest: Vec<u8>| [vec![1, 5, 0], rest].concat();
    let pax = |which: u8| Script::new().bytes(&[12, 0, which, 0]).bytes(&[0, 12, 0, 1]).half(0o600).done();
    let twice = [script(), script()].concat();
    vec![
        ("archive", plain(script())),
        ("archive-gzip", [vec![1, 0, 0], script()].concat()),
        ("archive-zstd", [vec![1, 1, 0], script()].concat()),
        ("archive-damaged", [vec![1, 5, 2], script(), vec![END, 2, 1, 0, 9, 1, 7, 2, 8, 1]].concat()),
        ("archive-twice", plain(twice)),
        ("archive-xattr", plain(pax(0))),
        ("archive-pax-path", plain(pax(11))),
        ("archive-two-sizes", plain(pax(9))),
        ("archive-device", plain(Script::new().bytes(&[11, 1, 3, 0]).half(0o600).done())),
        ("archive-upwards", plain(Script::new().bytes(&[0, 1, 1, 224, 0]).half(0o600).done())),
        ("archive-long", plain(Script::new().bytes(&[0, 1, 0, 231, 100]).half(0o600).done())),
        ("archive-many", plain(vec![15, 0, 0, 255, 15, 1, 0, 1, 200])),
    ]
}

//! The entries of a tar archive: the old form, ustar, GNU's long names, and those of pax. Only headers are held in memory.

use std::collections::BTreeMap;
use std::io::{Read, copy, sink};

use tar::{EntryType, Header};

use super::entry::{Attributes, Entry, Kind, Place, place, shown};
use crate::fault::{Context, Fault, Result};

/// A header or the padding of content.
const BLOCK: usize = 512;
/// The most bytes of a long name or of pax headers.
const MOST_EXTENSION: u64 = 1 << 20;

/// Is told of each entry, with its number and its content.
pub type Visit<'a> = &'a mut dyn FnMut(u64, Entry, &mut dyn Read) -> Result<()>;

/// What stands in front of an entry and is meant for it.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// How an archive ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By a block of zeros: without it, the rest may be missing.
    Marked,
    /// Also without one, and without what fills the last block, as umoci ends layers: the caller checks the digest of all.
    Digested,
}

/// Reads an archive to its end, entry after entry.
///
/// # Errors
/// If it is no archive or is cut off, if an entry is refused, or what `visit` has.
pub fn read(stream: &mut dyn Read, end: End, visit: Visit<'_>) -> Result<()> {
    let mut stream = Counted { inner: stream, at: 0 };
    let mut extension = Extension::default();
    let mut index = 0_u64;
    while let Some(header) = next_header(&mut stream, end)? {
        let size = header.entry_size().context("the size of an entry")?;
        let mut content = (&mut stream).take(size);
        let kind = header.entry_type();
        if is_extension(kind) {
            extend(&mut extension, kind, &mut content)?;
        } else if !kind.is_pax_global_extensions() {
            let (entry, size) = described(&header, std::mem::take(&mut extension), size, content.get_ref().at)?;
            if size != 0 && !matches!(entry.kind, Kind::File(_)) {
                return Err(Fault::new(format!(
                    "the entry `{}`: {size} bytes of content, which only files have",
                    super::entry::shown_place(&entry.place)
                )));
            }
            visit(index, entry, &mut content)?;
            index = index.saturating_add(1);
        }
        copy(&mut content, &mut sink()).context("cannot read the archive")?;
        if content.limit() > 0 {
            return Err(Fault::new(format!(
                "the archive is cut off: {} bytes of an entry are missing",
                content.limit()
            )));
        }
        skip_padding(&mut stream, end, size)?;
    }
    copy(&mut stream, &mut sink()).context("cannot read the archive")?;
    Ok(())
}

fn is_extension(kind: EntryType) -> bool {
    kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions()
}

/// None at the end of the archive.
fn next_header(stream: &mut impl Read, end: End) -> Result<Option<Header>> {
    let mut bytes = Vec::with_capacity(BLOCK);
    stream.take(BLOCK as u64).read_to_end(&mut bytes).context("cannot read the archive")?;
    if bytes.is_empty() && end == End::Digested {
        return Ok(None);
    }
    let mut header = Header::new_old();
    let block = header.as_mut_bytes();
    if bytes.len() != block.len() {
        return Err(Fault::new("the archive is cut off: it has no end mark"));
    }
    block.copy_from_slice(&bytes);
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    // The field of the sum counts as spaces.
    let sum = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .fold(0, u32::saturating_add);
    if header.cksum().ok() != Some(sum) {
        return Err(Fault::new("not a tar archive, or damaged: a header has a wrong checksum"));
    }
    Ok(Some(header))
}

fn skip_padding(stream: &mut impl Read, end: End, size: u64) -> Result<()> {
    let over = size.checked_rem(BLOCK as u64).unwrap_or(0);
    let padding = if over == 0 { 0 } else { (BLOCK as u64).saturating_sub(over) };
    let skipped = copy(&mut stream.take(padding), &mut sink()).context("cannot read the archive")?;
    if skipped == padding || end == End::Digested { Ok(()) } else { Err(Fault::new("the archive is cut off")) }
}

fn extend(extension: &mut Extension, kind: EntryType, content: &mut impl Read) -> Result<()> {
    let mut bytes = Vec::new();
    content.take(MOST_EXTENSION).read_to_end(&mut bytes).context("cannot read the archive")?;
    if bytes.len() as u64 == MOST_EXTENSION {
        return Err(Fault::new(format!(
            "a long name or pax header of {MOST_EXTENSION} bytes or more; allowed are less"
        )));
    }
    if kind.is_pax_local_extensions() {
        extension.pax = pax(&bytes)?;
        return Ok(());
    }
    // Ends by a byte 0.
    let text: Vec<u8> = bytes.into_iter().take_while(|byte| *byte != 0).collect();
    if kind.is_gnu_longname() {
        extension.path = Some(text)
    } else {
        extension.link = Some(text)
    }
    Ok(())
}

/// Lines of the form `LENGTH KEY=VALUE`, where values may have any bytes.
fn pax(mut bytes: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    while !bytes.is_empty() {
        let wrong = || Fault::new("a pax header is not of the form `LENGTH KEY=VALUE`");
        let digits: usize = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let len = bytes.get(..digits).and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok());
        let (line, rest) = len.and_then(|len| bytes.split_at_checked(len)).ok_or_else(wrong)?;
        let line =
            line.get(digits..).and_then(|line| line.strip_prefix(b" ")?.strip_suffix(b"\n")).ok_or_else(wrong)?;
        let at = line.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = line.split_at_checked(at).ok_or_else(wrong)?;
        found.insert(key.to_vec(), value.get(1..).unwrap_or_default().to_vec());
        bytes = rest;
    }
    Ok(found)
}

/// The entry, and how many bytes it really has.
fn described(header: &Header, extension: Extension, size: u64, offset: u64) -> Result<(Entry, u64)> {
    let pax = extension.pax;
    let path = pax.get(&b"path"[..]).cloned().or(extension.path).unwrap_or_else(|| header.path_bytes().into_owned());
    let named = |what: &str| Fault::new(format!("the entry `{}`: {what}", shown(&path)));
    if pax.keys().any(|key| key.starts_with(b"GNU.sparse.")) || header.entry_type().is_gnu_sparse() {
        return Err(named("a sparse file; make the archive without --sparse"));
    }
    let number = |key: &[u8]| number(&pax, key).map_err(|fault| named(&fault.message));
    if number(b"size")?.is_some_and(|pax| pax != size) {
        return Err(named(&format!("two sizes, of which one is {size}; allowed are files below 8 GiB")));
    }
    let id = |key: &[u8], field: &[u8], plain: std::io::Result<u64>| -> Result<u32> {
        // Some archives leave the field empty.
        let is_empty = field.iter().all(|byte| matches!(byte, 0 | b' '));
        let value = match number(key)? {
            Some(value) => value,
            None if is_empty => 0,
            None => plain.map_err(|error| named(&error.to_string()))?,
        };
        u32::try_from(value).map_err(|_| named(&format!("the owner or group {value}; allowed are 0 to {}", u32::MAX)))
    };
    let link = || {
        pax.get(&b"linkpath"[..])
            .cloned()
            .or_else(|| extension.link.clone())
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
    };
    let attributes = Attributes {
        mode: u16::try_from(header.mode().map_err(|error| named(&error.to_string()))? & 0o7777).unwrap_or(0),
        uid: id(b"uid", &header.as_old().uid, header.uid())?,
        gid: id(b"gid", &header.as_old().gid, header.gid())?,
        mtime: number(b"mtime")?.or_else(|| header.mtime().ok()).unwrap_or(0),
        xattrs: xattrs(&pax),
    };
    let kind = kind_of(header, size, link).map_err(|fault| named(&fault.message))?;
    // An old archive names a folder by a slash at its end.
    let kind = if path.ends_with(b"/") && kind == Kind::File(0) { Kind::Folder } else { kind };
    Ok((Entry { place: place(&path)?, kind, attributes, mark: offset }, size))
}

/// The whole part of a number among pax headers; times before 1970 are 1970.
fn number(pax: &BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8]) -> Result<Option<u64>> {
    let Some(value) = pax.get(key) else { return Ok(None) };
    let value = std::str::from_utf8(value).ok().map(|text| text.split('.').next().unwrap_or(text));
    let value = value.and_then(|text| if text.starts_with('-') { Some(0) } else { text.parse().ok() });
    value.map(Some).ok_or_else(|| Fault::new(format!("the pax header `{}` is no number", shown(key))))
}

fn kind_of(header: &Header, size: u64, link: impl Fn() -> Option<Vec<u8>>) -> Result<Kind> {
    let target = || link().ok_or_else(|| Fault::new("a link without a target"));
    Ok(match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => Kind::File(size),
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Link(target()?),
        EntryType::Link => Kind::Same(linked(&target()?)?),
        EntryType::Fifo => Kind::Pipe,
        EntryType::Char | EntryType::Block => Kind::Device,
        other => return Err(Fault::new(format!("an entry of the kind {:#04x}, which is not known", other.as_byte()))),
    })
}

fn linked(target: &[u8]) -> Result<Place> {
    place(target).map_err(|fault| Fault::new(format!("a hard link that leads outside: {}", fault.message)))
}

/// What a guest has a use for. Those of `overlay` would be taken for its own by the guest's root.
fn xattrs(pax: &BTreeMap<Vec<u8>, Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let all = pax.iter().filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, value)));
    all.filter(|(name, _)| is_kept(name)).map(|(name, value)| (name.to_vec(), value.clone())).collect()
}

/// Is this extended attribute kept?
pub fn is_kept(name: &[u8]) -> bool {
    let known = [&b"user."[..], b"trusted.", b"security."]
        .iter()
        .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    known && name.len() < 256 && !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

/// Knows how far it is.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    at: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}

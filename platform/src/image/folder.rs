//! The entries of a folder. Nothing is followed: each name is opened below the folder that it is in, so that a link, also one that appears
//! while this reads, leads nowhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, open, openat, readlinkat, statat,
};

use super::entry::{Attributes, Entry, Kind, MOST_PATH, Place, shown_place};
use super::tar::{Visit, is_kept};
use crate::fault::{Context, Fault, Result};

/// Folders in folders; each is open while those in it are read.
const MOST_DEPTH: usize = 200;
/// How names are opened: nothing is followed, and a pipe is not waited for.
const HERE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
/// The most bytes of one extended attribute, or of the list of their names.
const MOST_XATTR: usize = 64 << 10;

/// Reads the folder, in the order of the names' bytes. All belongs to root; modes, times and extended attributes are kept.
///
/// # Errors
/// If something cannot be read or changes meanwhile, or what `visit` has.
pub fn read(folder: &Path, visit: Visit<'_>) -> Result<()> {
    let root = open(folder, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("cannot open the folder")?;
    let mut walk = Walk { visit, index: 0, seen: HashMap::new() };
    let stat = fstat(&root).context("cannot read the folder")?;
    walk.tell(Place::new(), Kind::Folder, &stat, Some(&root), &mut std::io::empty())?;
    walk.folder(&root, &Place::new())
}

struct Walk<'a> {
    visit: Visit<'a>,
    index: u64,
    /// Files with several names, by device and number.
    seen: HashMap<(u64, u64), Place>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &OwnedFd, place: &Place) -> Result<()> {
        if place.len() >= MOST_DEPTH {
            return Err(Fault::new(format!("`{}`: more than {MOST_DEPTH} folders in each other", shown_place(place))));
        }
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(folder).context(shown_place(place))? {
            let name = entry.context(shown_place(place))?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.insert(name);
            }
        }
        for name in names {
            let mut below = place.clone();
            below.push(name);
            if below.iter().map(|name| name.len().saturating_add(1)).fold(0, usize::saturating_add) > MOST_PATH {
                return Err(Fault::new(format!("`{}`: a path has more than {MOST_PATH} bytes", shown_place(&below))));
            }
            let inner = self
                .one(folder, &below)
                .map_err(|fault| Fault::new(format!("`{}`: {}", shown_place(&below), fault.message)))?;
            if let Some(inner) = inner {
                self.folder(&inner, &below)?;
            }
        }
        Ok(())
    }

    /// Tells of one name, and gives the folder that it is.
    fn one(&mut self, folder: &OwnedFd, place: &Place) -> Result<Option<OwnedFd>> {
        let name = place.last().map(Vec::as_slice).unwrap_or_default();
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).context("cannot look at it")?;
        let key = (stat.st_dev, stat.st_ino);
        let kind = FileType::from_raw_mode(stat.st_mode);
        // Of what is left out, there is no first one for another name to lead to.
        let may_have_names = matches!(kind, FileType::RegularFile | FileType::Symlink | FileType::Fifo);
        if may_have_names && stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&key) {
                let kind = Kind::Same(first.clone());
                self.tell(place.clone(), kind, &stat, None::<&OwnedFd>, &mut std::io::empty())?;
                return Ok(None);
            }
            self.seen.insert(key, place.clone());
        }
        match kind {
            FileType::Directory => {
                let folder = openat(folder, name, HERE | OFlags::DIRECTORY, Mode::empty());
                let folder = folder.context("cannot open the folder")?;
                self.tell(place.clone(), Kind::Folder, &stat, Some(&folder), &mut std::io::empty())?;
                return Ok(Some(folder));
            }
            FileType::RegularFile => self.file(folder, place, &stat)?,
            FileType::Symlink => {
                let target = readlinkat(folder, name, Vec::new()).context("cannot read the link")?;
                let kind = Kind::Link(target.into_bytes());
                self.tell(place.clone(), kind, &stat, None::<&OwnedFd>, &mut std::io::empty())?;
            }
            other => {
                let kind = match other {
                    FileType::Fifo => Kind::Pipe,
                    FileType::Socket => Kind::Socket,
                    _ => Kind::Device,
                };
                self.tell(place.clone(), kind, &stat, None::<&OwnedFd>, &mut std::io::empty())?;
            }
        }
        Ok(None)
    }

    fn file(&mut self, folder: &OwnedFd, place: &Place, stat: &Stat) -> Result<()> {
        let name = place.last().map(Vec::as_slice).unwrap_or_default();
        let file = File::from(openat(folder, name, HERE, Mode::empty()).context("cannot open the file")?);
        same(stat, &fstat(&file).context("cannot look at it")?)?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let mut content = (&file).take(bytes);
        self.tell(place.clone(), Kind::File(bytes), stat, Some(&file), &mut content)?;
        same(stat, &fstat(&file).context("cannot look at it")?)
    }

    fn tell(
        &mut self,
        place: Place,
        kind: Kind,
        stat: &Stat,
        opened: Option<&impl AsFd>,
        content: &mut dyn Read,
    ) -> Result<()> {
        let attributes = Attributes {
            mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
            uid: 0,
            gid: 0,
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
            xattrs: opened.map_or_else(|| Ok(BTreeMap::new()), xattrs)?,
        };
        let index = self.index;
        self.index = index.saturating_add(1);
        let seconds = u64::try_from(stat.st_ctime).unwrap_or(0);
        let mark = seconds.wrapping_mul(1_000_000_000).wrapping_add(stat.st_ctime_nsec);
        (self.visit)(index, Entry { place, kind, attributes, mark }, content)
    }
}

/// Is it what it was?
fn same(before: &Stat, after: &Stat) -> Result<()> {
    let of = |stat: &Stat| {
        (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec)
    };
    if of(before) == of(after) {
        Ok(())
    } else {
        Err(Fault::new("it changed while it was read; try again when nothing writes to it"))
    }
}

fn xattrs(file: &impl AsFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; MOST_XATTR];
    let len = match flistxattr(file, &mut list[..]) {
        Ok(len) => len,
        // Not every file system has any.
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(Fault::new(format!("cannot list its extended attributes: {error}"))),
    };
    let names = list.get(..len).unwrap_or_default().split(|byte| *byte == 0).filter(|name| is_kept(name));
    let mut found = BTreeMap::new();
    for name in names {
        let mut value = vec![0; MOST_XATTR];
        let len = fgetxattr(file, name, &mut value[..]).context("cannot read an extended attribute")?;
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

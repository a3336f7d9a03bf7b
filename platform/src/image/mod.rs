//! Images: a folder, a tar archive, or an OCI image layout becomes a root file system in a file, an EROFS image, without root.
//!
//! | File or folder | What it is |
//! |---|---|
//! | `limits` | how large a source may be |
//! | `entry` | one file of a source |
//! | `tree` | the files while they are put together |
//! | `stream` | bytes unpacked and digested |
//! | `tar`, `folder`, `oci` | the kinds of sources |
//! | `erofs/` | the image as bytes |
//! | `initrd/` | what a guest starts from |
//!
//! A source is read twice: for its names and their attributes, and for the content of what is left of them. What differs between the two is
//! refused. The same source gives the same bytes.

mod entry;
mod erofs;
mod folder;
#[cfg(test)]
mod images_test;
mod initrd;
mod limits;
mod oci;
mod stream;
mod tar;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fault::{Context, Fault, Result};
use entry::Entry;
use erofs::Writer;
use oci::Layout;
use stream::{Digesting, unpacked};
use tree::{Content, Origin, ROOT, Tree};

pub use initrd::initrd;
pub use limits::Limits;

/// What a person is told who has named something else.
const SOURCES: &str = "Name a folder, a tar archive or an OCI image layout by its path, which counts from the folder of app.toml. \
    One of a registry becomes a file by `skopeo copy docker://NAME oci-archive:FILE.tar`.";

/// A root file system in a file, and what it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// The entry point and its arguments; empty if the source names none.
    pub command: Vec<String>,
    /// The environment that the source names.
    pub env: BTreeMap<String, String>,
    /// Where the command begins.
    pub working_dir: Option<String>,
    /// Who runs it.
    pub user: Option<String>,
    /// The signal that ends it, as the source names it.
    pub stop_signal: Option<String>,
    /// Bytes of the file.
    pub size: u64,
    /// The digest of the file: `sha256:HEX`.
    pub digest: String,
    /// Device nodes under `dev`, and sockets: they are not in the image.
    pub left_out: u64,
}

/// Makes an EROFS image of `source` in the file `into`: a folder, whose files will belong to root, a tar archive, plain or packed by gzip
/// or zstd, or an OCI image layout, as a folder or archive. May take minutes, and writes as many bytes as the source has.
///
/// Device nodes under `dev` and sockets are left out. Extended attributes of `user`, `trusted` and `security` are kept.
///
/// # Errors
/// If the source is none of these or cannot be read; what is refused of it, by the entry's path; if the image cannot be written. Then there
/// is no file `into`, or the one that was there.
pub fn build(source: &Path, into: &Path, limits: &Limits) -> Result<Image> {
    // What others' readers of archives say has names of entries in it as they are.
    let letter = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    let named = |fault: Fault| {
        let why: String = fault.message.chars().map(letter).collect();
        Fault { message: format!("the image {}: {why}", source.display()), ..fault }
    };
    let opened = Source::open(source, limits).map_err(named)?;
    let partial = with_ending(into, ".partial");
    let written = write(&opened, &partial, limits).map_err(named);
    let image = written.and_then(|image| fs::rename(&partial, into).context(into.display()).map(|()| image));
    if image.is_err() {
        // It may not have come to be.
        let _ = fs::remove_file(&partial);
    }
    image
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn write(source: &Source, into: &Path, limits: &Limits) -> Result<Image> {
    let mut tree = Tree::new(limits);
    let mut marks = Vec::new();
    for layer in 0..source.layers() {
        marks.push(source.read(layer, limits, &mut |index, entry, _| {
            tree.insert(Origin { layer, index }, entry, source.has_whiteouts())
        })?);
    }
    let file = File::options().read(true).write(true).create(true).truncate(true).open(into).context(into.display())?;
    let mut writer = Writer::new(file)?;
    let origins = origins(&tree);
    for (layer, mark) in marks.iter().enumerate() {
        let again = source.read(layer, limits, &mut |index, entry, content| {
            let node = origins.get(&Origin { layer, index }).copied();
            let (Some(number), Some(node)) = (node, node.and_then(|node| tree.node(node))) else { return Ok(()) };
            let Content::File(bytes, _) = node.content else { return Ok(()) };
            let write = writer.file(number, &node.attributes, bytes, content);
            write.map_err(|fault| Fault::new(format!("`{}`: {}", entry::shown_place(&entry.place), fault.message)))
        })?;
        if again != *mark {
            return Err(Fault::new("it changed while it was read").next("try again when nothing writes to it"));
        }
    }
    let size = writer.finish(&tree)?;
    let config = source.config();
    let command = config.entrypoint.iter().chain(&config.cmd).flatten().cloned().collect();
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Ok(Image {
        command,
        env: oci::environment(&config)?,
        working_dir: set(&config.working_dir),
        user: set(&config.user),
        stop_signal: set(&config.stop_signal),
        size,
        digest: Digesting::new(File::open(into).context(into.display())?, u64::MAX).finish().context(into.display())?,
        left_out: tree.left_out(),
    })
}

/// The files that are left, by the entries that have their bytes.
fn origins(tree: &Tree) -> HashMap<Origin, usize> {
    let mut found = HashMap::new();
    let mut todo = vec![ROOT];
    while let Some(folder) = todo.pop() {
        for child in tree.children(folder).into_iter().flat_map(BTreeMap::values) {
            match tree.node(child.node).map(|node| &node.content) {
                Some(Content::File(_, origin)) => {
                    found.insert(*origin, child.node);
                }
                Some(Content::Folder(_)) => todo.push(child.node),
                _ => {}
            }
        }
    }
    found
}

/// What an image is made of.
enum Source {
    Folder(PathBuf),
    Tar(PathBuf),
    Oci(Box<Layout>),
}

impl Source {
    /// Finds out what is at the path.
    fn open(path: &Path, limits: &Limits) -> Result<Self> {
        let looked = fs::metadata(path).context("cannot look at it");
        let kind = looked.map_err(|fault| fault.next(SOURCES))?.file_type();
        if kind.is_dir() {
            let is_layout = path.join("oci-layout").is_file() && path.join("index.json").is_file();
            return if is_layout {
                Layout::folder(path, limits).map(|layout| Self::Oci(Box::new(layout)))
            } else {
                Ok(Self::Folder(path.to_owned()))
            };
        }
        if !kind.is_file() {
            return Err(Fault::new("neither a folder nor a file").next(SOURCES));
        }
        let layout = Layout::archive(path, limits)?;
        Ok(layout.map_or_else(|| Self::Tar(path.to_owned()), |layout| Self::Oci(Box::new(layout))))
    }

    fn layers(&self) -> usize {
        if let Self::Oci(layout) = self { layout.layers() } else { 1 }
    }

    fn has_whiteouts(&self) -> bool {
        matches!(self, Self::Oci(_))
    }

    fn config(&self) -> oci::Config {
        if let Self::Oci(layout) = self { layout.config.clone() } else { oci::Config::default() }
    }

    /// Reads a layer, and gives what is another text if it has changed.
    fn read(&self, layer: usize, limits: &Limits, visit: tar::Visit<'_>) -> Result<String> {
        let mut marks = Sha256::new();
        let visit: tar::Visit<'_> = &mut |index, entry: Entry, content| {
            marks.update(format!("{entry:?}"));
            visit(index, entry, content)
        };
        match self {
            Self::Folder(folder) => folder::read(folder, visit)?,
            Self::Oci(layout) => layout.read(layer, limits, visit)?,
            Self::Tar(path) => {
                let mut packed = Digesting::new(File::open(path).context("cannot open it")?, limits.archive_bytes);
                let limit = limits.archive_bytes;
                tar::read(&mut Digesting::new(unpacked(&mut packed)?, limit), tar::End::Marked, visit)?;
                return packed.finish().context("cannot read it");
            }
        }
        Ok(stream::named(marks))
    }
}

//! The files of an image while it is put together from its layers. Nothing of it is on the host's disk: a link is only data.

use std::collections::{BTreeMap, VecDeque};

use super::entry::{Attributes, Entry, Kind, MOST_PATH, shown, shown_place};
use super::limits::Limits;
use crate::fault::{Fault, Result};

/// So many symbolic links on a way, as Linux has it.
const MOST_LINKS: usize = 40;
/// So many names are looked up for all paths of a source, so that links to long paths cannot take hours.
const MOST_STEPS: u64 = 100_000_000;
/// Bytes of one file's extended attributes.
const MOST_XATTRS: usize = 32 << 10;
/// The root's number.
pub const ROOT: usize = 0;
/// In front of the name of a file that a layer removes.
const WHITEOUT: &[u8] = b".wh.";
/// The name that removes all that lower layers have in its folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A file, which may have several names.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub content: Content,
    /// Whose it is.
    pub attributes: Attributes,
}

/// What a file is.
#[derive(Debug)]
pub enum Content {
    /// A folder.
    Folder(BTreeMap<Vec<u8>, Child>),
    /// A file of so many bytes, which are those of an entry of a layer.
    File(u64, Origin),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A named pipe.
    Pipe,
}

/// The entry that has a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The number of the layer.
    pub layer: usize,
    /// The number of the entry in it.
    pub index: u64,
}

/// A name in a folder.
#[derive(Clone, Copy, Debug)]
pub struct Child {
    /// The number of the file.
    pub node: usize,
    /// The layer that has put it there last.
    layer: usize,
}

/// All files.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    limits: Limits,
    /// Files, their bytes, and the bytes of names and the like, in all layers together.
    files: u64,
    bytes: u64,
    text: u64,
    /// Names of paths that were looked up.
    steps: u64,
    /// So many device nodes under `dev`, and sockets, were left out.
    left_out: u64,
}

impl Tree {
    /// With nothing but a root.
    pub fn new(limits: &Limits) -> Self {
        let root = Node { content: Content::Folder(BTreeMap::new()), attributes: folder_attributes() };
        Self { nodes: vec![root], limits: limits.clone(), files: 0, bytes: 0, text: 0, steps: 0, left_out: 0 }
    }

    /// The file of this number.
    pub fn node(&self, number: usize) -> Option<&Node> {
        self.nodes.get(number)
    }

    /// How many entries were left out: device nodes under `dev`, which the guest's kernel makes, and sockets.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Puts the entry `index` of `layer` into the tree. With `whiteouts`, names that begin with `.wh.` remove what lower layers have.
    ///
    /// # Errors
    /// What is refused of the entry, by its path.
    pub fn insert(&mut self, origin: Origin, entry: Entry, whiteouts: bool) -> Result<()> {
        let path = shown_place(&entry.place);
        self.put(origin, entry, whiteouts).map_err(|fault| Fault::new(format!("the entry `{path}`: {}", fault.message)))
    }

    fn put(&mut self, origin: Origin, entry: Entry, whiteouts: bool) -> Result<()> {
        self.count(&entry)?;
        let Some((name, parents)) = entry.place.split_last() else {
            return self.put_root(entry);
        };
        match entry.kind {
            Kind::Socket => return self.leave_out(),
            Kind::Device if entry.place.first().is_some_and(|first| first == b"dev") => return self.leave_out(),
            Kind::Device => {
                return Err(Fault::new(
                    "a device node; allowed are those under `dev`, which are left out as the guest's kernel makes its own",
                ));
            }
            _ => {}
        }
        let folder = self.folder(parents, origin.layer)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|_| whiteouts) {
            return self.hide(folder, name, hidden, origin.layer);
        }
        self.put_into(folder, name, origin, entry.kind, entry.attributes)
    }

    fn leave_out(&mut self) -> Result<()> {
        self.left_out = self.left_out.saturating_add(1);
        Ok(())
    }

    fn put_root(&mut self, entry: Entry) -> Result<()> {
        if entry.kind != Kind::Folder {
            return Err(Fault::new("the root is no folder"));
        }
        if let Some(root) = self.nodes.first_mut() {
            root.attributes = entry.attributes;
        }
        Ok(())
    }

    fn put_into(
        &mut self,
        folder: usize,
        name: &[u8],
        origin: Origin,
        kind: Kind,
        attributes: Attributes,
    ) -> Result<()> {
        let layer = origin.layer;
        let there = self.children(folder).and_then(|children| children.get(name)).copied();
        if let (Some(there), Kind::Folder) = (there, &kind)
            && let Some(Node { content: Content::Folder(_), attributes: old }) = self.nodes.get_mut(there.node)
        {
            *old = attributes;
            self.name(folder, name, Child { node: there.node, layer });
            return Ok(());
        }
        if there.is_some_and(|there| there.layer == layer) {
            return Err(Fault::new("the archive has it twice; allowed is once"));
        }
        let content = match kind {
            Kind::Same(target) => {
                let node = self.find(&target, layer)?;
                self.name(folder, name, Child { node, layer });
                return Ok(());
            }
            Kind::Folder => Content::Folder(BTreeMap::new()),
            Kind::File(bytes) => Content::File(bytes, origin),
            Kind::Link(target) => Content::Link(target),
            Kind::Pipe | Kind::Device | Kind::Socket => Content::Pipe,
        };
        let node = self.add(content, attributes);
        self.name(folder, name, Child { node, layer });
        Ok(())
    }

    /// Removes what lower layers have by that name, or all that they have in the folder.
    fn hide(&mut self, folder: usize, name: &[u8], hidden: &[u8], layer: usize) -> Result<()> {
        if name == OPAQUE {
            return self.remove_lower(folder, layer);
        }
        if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(WHITEOUT) {
            return Err(Fault::new("a whiteout names no file"));
        }
        let Some(child) = self.children(folder).and_then(|children| children.get(hidden)).copied() else {
            return Ok(());
        };
        if child.layer == layer {
            // What this layer itself has there stays; below it may be what lower layers have.
            return self.remove_lower(child.node, layer);
        }
        if let Some(Node { content: Content::Folder(children), .. }) = self.nodes.get_mut(folder) {
            children.remove(hidden);
        }
        Ok(())
    }

    /// Removes what lower layers have in a folder. Folders that `layer` has touched stay.
    fn remove_lower(&mut self, folder: usize, layer: usize) -> Result<()> {
        let mut todo = vec![folder];
        while let Some(folder) = todo.pop() {
            if let Some(Node { content: Content::Folder(children), .. }) = self.nodes.get_mut(folder) {
                children.retain(|_, child| child.layer == layer);
                todo.extend(children.values().map(|child| child.node));
            }
        }
        Ok(())
    }

    /// The number of the folder at `place`; folders that are not there are made. Symbolic links are followed inside the tree.
    fn folder(&mut self, place: &[Vec<u8>], layer: usize) -> Result<usize> {
        let mut way = vec![ROOT];
        let mut names: VecDeque<Vec<u8>> = place.iter().cloned().collect();
        let mut links = 0_usize;
        while let Some(name) = names.pop_front() {
            self.step()?;
            let here = way.last().copied().unwrap_or(ROOT);
            if matches!(name.as_slice(), b"" | b".") {
                continue;
            }
            if name == b".." {
                way.pop();
                if way.is_empty() {
                    return Err(Fault::new("it lies behind a symbolic link that leads outside"));
                }
                continue;
            }
            let Some(child) = self.children(here).and_then(|children| children.get(&name)).copied() else {
                way.push(self.make_folder(here, &name, layer)?);
                continue;
            };
            match self.nodes.get(child.node).map(|node| &node.content) {
                Some(Content::Folder(_)) => {
                    // So that a whiteout of this layer keeps what is put below.
                    self.name(here, &name, Child { node: child.node, layer });
                    way.push(child.node);
                }
                Some(Content::Link(target)) => {
                    links = links.saturating_add(1);
                    if links > MOST_LINKS {
                        return Err(Fault::new(format!("it lies behind more than {MOST_LINKS} symbolic links")));
                    }
                    follow(target, &mut way, &mut names);
                }
                _ => return Err(Fault::new(format!("it lies below `{}`, which is no folder", shown(&name)))),
            }
        }
        Ok(way.last().copied().unwrap_or(ROOT))
    }

    fn step(&mut self) -> Result<()> {
        self.steps = self.steps.saturating_add(1);
        if self.steps > MOST_STEPS {
            return Err(Fault::new(format!("the paths of the archive have more than {MOST_STEPS} names in all")));
        }
        Ok(())
    }

    /// Makes a folder that no entry describes, or none yet.
    fn make_folder(&mut self, parent: usize, name: &[u8], layer: usize) -> Result<usize> {
        self.count_file()?;
        self.count_text(name.len())?;
        let made = self.add(Content::Folder(BTreeMap::new()), folder_attributes());
        self.name(parent, name, Child { node: made, layer });
        Ok(made)
    }

    /// The number of the file that a hard link names.
    fn find(&mut self, place: &[Vec<u8>], layer: usize) -> Result<usize> {
        let target = shown_place(place);
        let (name, parents) = place.split_last().ok_or_else(|| Fault::new("a hard link to the root"))?;
        let folder = self.folder(parents, layer)?;
        let child = self.children(folder).and_then(|children| children.get(name)).copied();
        let missing = || Fault::new(format!("a hard link to `{target}`, which is not in the archive before it"));
        let child = child.ok_or_else(missing)?;
        if matches!(self.nodes.get(child.node).map(|node| &node.content), Some(Content::Folder(_))) {
            return Err(Fault::new(format!("a hard link to `{target}`, which is a folder")));
        }
        Ok(child.node)
    }

    fn count_file(&mut self) -> Result<()> {
        self.files = self.files.saturating_add(1);
        let most = self.limits.files;
        if self.files > most {
            return Err(Fault::new(format!("more files than the {most} that are allowed")));
        }
        Ok(())
    }

    fn count(&mut self, entry: &Entry) -> Result<()> {
        self.count_file()?;
        if let Kind::File(bytes) = entry.kind {
            self.bytes = self.bytes.saturating_add(bytes);
            let most = self.limits.bytes;
            if self.bytes > most {
                return Err(Fault::new(format!(
                    "{bytes} bytes, with which there are more than the {most} that are allowed"
                )));
            }
        }
        let link = if let Kind::Link(target) = &entry.kind { target.len() } else { 0 };
        if matches!(&entry.kind, Kind::Link(target) if target.is_empty() || target.len() > MOST_PATH || target.contains(&0))
        {
            return Err(Fault::new(format!(
                "a symbolic link to {link} bytes; allowed are 1 to {MOST_PATH}, none of which is 0"
            )));
        }
        let xattrs = entry.attributes.xattrs.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        let xattrs = xattrs.fold(0, usize::saturating_add);
        if xattrs > MOST_XATTRS {
            return Err(Fault::new(format!("extended attributes of {xattrs} bytes; allowed are {MOST_XATTRS}")));
        }
        let name = entry.place.last().map_or(0, Vec::len);
        self.count_text(xattrs.saturating_add(link).saturating_add(name))
    }

    fn count_text(&mut self, bytes: usize) -> Result<()> {
        self.text = self.text.saturating_add(bytes as u64);
        let most = self.limits.text_bytes;
        if self.text > most {
            return Err(Fault::new(format!(
                "names, links and attributes have more than the {most} bytes that are allowed"
            )));
        }
        Ok(())
    }

    /// The names in a folder.
    pub fn children(&self, folder: usize) -> Option<&BTreeMap<Vec<u8>, Child>> {
        match &self.nodes.get(folder)?.content {
            Content::Folder(children) => Some(children),
            _ => None,
        }
    }

    fn add(&mut self, content: Content, attributes: Attributes) -> usize {
        self.nodes.push(Node { content, attributes });
        self.nodes.len().saturating_sub(1)
    }

    fn name(&mut self, folder: usize, name: &[u8], child: Child) {
        if let Some(Node { content: Content::Folder(children), .. }) = self.nodes.get_mut(folder) {
            children.insert(name.to_vec(), child);
        }
    }
}

/// Puts a link's target in front of the names that are left; an absolute one begins at the root.
fn follow(target: &[u8], way: &mut Vec<usize>, names: &mut VecDeque<Vec<u8>>) {
    if target.first() == Some(&b'/') {
        way.truncate(1);
    }
    let mut rest: VecDeque<Vec<u8>> = target.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    rest.append(names);
    *names = rest;
}

/// Those of folders that no entry describes.
fn folder_attributes() -> Attributes {
    Attributes { mode: 0o755, ..Attributes::default() }
}

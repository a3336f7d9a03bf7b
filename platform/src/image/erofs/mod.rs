//! Writes an EROFS image that is not compressed: the files' blocks as they come, then the folders, then the inodes.

mod format;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write, copy};

use format::{BLOCK, BLOCK_LEN, INODE, Inode, NO_BLOCK, SLOT, XATTRS_HEAD, kind};

use super::entry::Attributes;
use super::tree::{Content, Node, ROOT, Tree};
use crate::fault::{Context, Fault, Result};

/// Up to so many bytes over whole blocks follow the inode of a file, instead of taking a block of their own.
const MOST_TAIL: u64 = 2048;
/// So many bytes of such tails are held in memory; files beyond have whole blocks.
const MOST_TAILS: u64 = 128 << 20;

/// Where the content of a file is.
struct Data {
    block: u32,
    /// What follows the inode.
    tail: Vec<u8>,
}

/// An image under way.
pub struct Writer {
    out: BufWriter<File>,
    /// The next block.
    block: u32,
    tails: u64,
    files: HashMap<usize, Data>,
}

/// An inode in its place.
struct Placed {
    node: usize,
    nid: u64,
    data: Data,
    size: u64,
}

impl Writer {
    /// Begins an image in an empty file.
    ///
    /// # Errors
    /// Those of the file, as with all functions of a writer.
    pub fn new(file: File) -> Result<Self> {
        let mut writer =
            Self { out: BufWriter::with_capacity(1 << 20, file), block: 0, tails: 0, files: HashMap::new() };
        writer.put(&vec![0; BLOCK_LEN])?;
        writer.pad(BLOCK)?;
        Ok(writer)
    }

    /// Writes the content of a file.
    pub fn file(&mut self, node: usize, attributes: &Attributes, bytes: u64, content: &mut dyn Read) -> Result<()> {
        let over = bytes.checked_rem(BLOCK).unwrap_or(0);
        let tail = if over <= MOST_TAIL && fits(attributes, over) && self.tails.saturating_add(over) <= MOST_TAILS {
            over
        } else {
            0
        };
        self.tails = self.tails.saturating_add(tail);
        let whole = bytes.saturating_sub(tail);
        let block = if whole == 0 { NO_BLOCK } else { self.block };
        let copied = copy(&mut content.take(whole), &mut self.out).context("cannot write the image")?;
        self.pad(whole)?;
        let mut rest = Vec::new();
        content.take(tail).read_to_end(&mut rest).context("cannot read it")?;
        let missing = whole.saturating_sub(copied).saturating_add(tail.saturating_sub(rest.len() as u64));
        if missing > 0 {
            return Err(Fault::new(format!("the file is cut off: {missing} bytes are missing")));
        }
        self.files.insert(node, Data { block, tail: rest });
        Ok(())
    }

    /// Writes all that belongs to the files, and ends the image. Gives its bytes.
    pub fn finish(mut self, tree: &Tree) -> Result<u64> {
        let order = order(tree);
        let mut placed = Vec::with_capacity(order.len());
        let mut at = INODE;
        let mut block = self.block;
        for &node in &order {
            placed.push(self.placed(tree, node, &mut at, &mut block)?);
        }
        let nids: HashMap<usize, u64> = placed.iter().map(|placed| (placed.node, placed.nid)).collect();
        let (parents, links) = relations(tree, &order);
        for one in &mut placed {
            if let Some(mut bytes) = content(tree, one.node, &parents, &nids) {
                one.data.tail = bytes.split_off(bytes.len().saturating_sub(one.data.tail.len()));
                self.put(&bytes)?;
                self.pad(bytes.len() as u64)?;
            }
        }
        let meta = self.block;
        self.inodes(tree, &placed, &links)?;
        self.end(nids.get(&ROOT).copied().unwrap_or(0), placed.len() as u64, meta)
    }

    fn inodes(&mut self, tree: &Tree, placed: &[Placed], links: &HashMap<usize, u32>) -> Result<()> {
        let mut number = 0_u32;
        let mut written = 0_u64;
        for one in placed {
            number = number.saturating_add(1);
            let Some(node) = tree.node(one.node) else { continue };
            let place = one.nid.saturating_mul(SLOT);
            self.put(&vec![0; usize::try_from(place.saturating_sub(written)).unwrap_or(0)])?;
            let inode = Inode {
                number,
                type_bits: type_of(node).0,
                size: one.size,
                links: links.get(&one.node).copied().unwrap_or(1),
                block: one.data.block,
                is_inline: !one.data.tail.is_empty(),
            };
            let mut bytes = format::inode(&inode, &node.attributes);
            bytes.extend(&one.data.tail);
            self.put(&bytes)?;
            written = place.saturating_add(bytes.len() as u64);
        }
        // fsck.erofs of erofs-utils 1.5 reads the head of attributes behind each inode, also if it has none.
        self.put(&[0; XATTRS_HEAD])?;
        self.pad(written.saturating_add(XATTRS_HEAD as u64))
    }

    fn end(mut self, root: u64, inodes: u64, meta: u32) -> Result<u64> {
        let root = u16::try_from(root).context("the root's place")?;
        let first = format::first_block(root, inodes, self.block, meta);
        let mut write = || {
            self.out.seek(SeekFrom::Start(0))?;
            self.out.write_all(&first)?;
            self.out.flush()?;
            self.out.get_ref().sync_all()
        };
        write().context("cannot write the image")?;
        Ok(u64::from(self.block).saturating_mul(BLOCK))
    }

    /// Finds the place of an inode, and the blocks of a folder or link.
    fn placed(&mut self, tree: &Tree, node: usize, at: &mut u64, block: &mut u32) -> Result<Placed> {
        let Some(Node { content: what, attributes }) = tree.node(node) else {
            return Err(Fault::new("a file without a node"));
        };
        let (data, size) = match what {
            Content::File(size, _) => {
                (self.files.remove(&node).unwrap_or(Data { block: NO_BLOCK, tail: Vec::new() }), *size)
            }
            Content::Pipe => (Data { block: 0, tail: Vec::new() }, 0),
            Content::Folder(_) | Content::Link(_) => {
                let size = content(tree, node, &HashMap::new(), &HashMap::new()).map_or(0, |bytes| bytes.len() as u64);
                let over = size.checked_rem(BLOCK).unwrap_or(0);
                let tail = if fits(attributes, over) { over } else { 0 };
                let whole = size.saturating_sub(tail);
                let first = if whole == 0 { NO_BLOCK } else { *block };
                *block = u32::try_from(whole.div_ceil(BLOCK))
                    .ok()
                    .and_then(|more| block.checked_add(more))
                    .ok_or_else(too_large)?;
                (Data { block: first, tail: vec![0; usize::try_from(tail).unwrap_or(0)] }, size)
            }
        };
        let head = INODE.saturating_add(format::xattrs_len(&attributes.xattrs));
        let tail = data.tail.len() as u64;
        let start = at.next_multiple_of(SLOT);
        let in_block = start.checked_rem(BLOCK).unwrap_or(0);
        // Neither the inode itself nor what follows it may cross a block.
        let together = if tail > 0 { head.saturating_add(tail) } else { INODE };
        let start = if in_block.saturating_add(together) > BLOCK { start.next_multiple_of(BLOCK) } else { start };
        *at = start.saturating_add(head).saturating_add(tail);
        Ok(Placed { node, nid: start.checked_div(SLOT).unwrap_or(0), data, size })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("cannot write the image")
    }

    /// Fills the last of the blocks that so many bytes were written to.
    fn pad(&mut self, written: u64) -> Result<()> {
        let blocks = written.div_ceil(BLOCK);
        let padding = blocks.saturating_mul(BLOCK).saturating_sub(written);
        self.out.write_all(&vec![0; usize::try_from(padding).unwrap_or(0)]).context("cannot write the image")?;
        self.block =
            u32::try_from(blocks).ok().and_then(|blocks| self.block.checked_add(blocks)).ok_or_else(too_large)?;
        Ok(())
    }
}

fn too_large() -> Fault {
    Fault::new("the image is larger than 16 TiB")
}

/// May so many bytes follow the inode?
fn fits(attributes: &Attributes, tail: u64) -> bool {
    INODE.saturating_add(format::xattrs_len(&attributes.xattrs)).saturating_add(tail) <= BLOCK
}

/// All files once, the root first.
fn order(tree: &Tree) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = std::collections::HashSet::from([ROOT]);
    let mut todo = VecDeque::from([ROOT]);
    while let Some(node) = todo.pop_front() {
        order.push(node);
        let children = tree.children(node).into_iter().flat_map(BTreeMap::values);
        todo.extend(children.map(|child| child.node).filter(|child| seen.insert(*child)));
    }
    order
}

/// The folder that each folder is in, and how many names each file has.
fn relations(tree: &Tree, order: &[usize]) -> (HashMap<usize, usize>, HashMap<usize, u32>) {
    let mut parents = HashMap::from([(ROOT, ROOT)]);
    let mut links: HashMap<usize, u32> = HashMap::new();
    let mut count = |node: usize| {
        let links = links.entry(node).or_default();
        *links = links.saturating_add(1);
    };
    for &folder in order {
        let Some(children) = tree.children(folder) else { continue };
        // Its name, or that of the root, and its own `.`; the `..` of folders in it follow.
        count(folder);
        if folder == ROOT {
            count(folder);
        }
        for child in children.values() {
            count(child.node);
            if tree.children(child.node).is_some() {
                parents.insert(child.node, folder);
                count(folder);
            }
        }
    }
    (parents, links)
}

/// The bytes of a folder or link. The length is the same whatever the places of inodes are.
fn content(tree: &Tree, node: usize, parents: &HashMap<usize, usize>, nids: &HashMap<usize, u64>) -> Option<Vec<u8>> {
    let nid = |node: usize| nids.get(&node).copied().unwrap_or(0);
    match &tree.node(node)?.content {
        Content::Link(target) => Some(target.clone()),
        Content::Folder(children) => {
            let mut names: BTreeMap<&[u8], (u64, u8)> = children
                .iter()
                .filter_map(|(name, child)| {
                    Some((name.as_slice(), (nid(child.node), type_of(tree.node(child.node)?).1)))
                })
                .collect();
            names.insert(b".", (nid(node), kind::FOLDER));
            names.insert(b"..", (parents.get(&node).map_or(0, |parent| nid(*parent)), kind::FOLDER));
            Some(format::folder(names.into_iter().map(|(name, (nid, kind))| (name, nid, kind))))
        }
        _ => None,
    }
}

/// The bits of the mode, and the type in directories.
fn type_of(node: &Node) -> (u16, u8) {
    match node.content {
        Content::Folder(_) => (0o040_000, kind::FOLDER),
        Content::File(..) => (0o100_000, kind::FILE),
        Content::Link(_) => (0o120_000, kind::LINK),
        Content::Pipe => (0o010_000, kind::PIPE),
    }
}

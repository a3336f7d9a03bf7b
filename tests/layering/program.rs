//! A program as the reader sees it: modules, what each defines, imports and names, and in which file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The modules of one crate, the root first. Code for tests is not among them.
#[derive(Default)]
pub struct Program {
    pub modules: Vec<Module>,
    /// Constructs that the reader cannot follow, as `file:line: reason`.
    pub unreadable: Vec<String>,
}

/// A module: a file, or a block `mod x { .. }` inside one.
#[derive(Default)]
pub struct Module {
    /// Its place below the root: `["virtio", "queue"]`.
    pub path: Vec<String>,
    pub parent: Option<usize>,
    pub file: String,
    pub children: BTreeMap<String, usize>,
    /// Functions, types, constants and so on that are written here.
    pub definitions: BTreeSet<String>,
    pub imports: Vec<Import>,
    pub references: Vec<Reference>,
    /// Lines with `unsafe` code, or with an attribute that allows it.
    pub unsafe_lines: Vec<usize>,
}

/// One leaf of a `use` statement.
pub struct Import {
    /// The name that it brings in, or `None` for `*`.
    pub name: Option<String>,
    pub path: Vec<String>,
}

/// A path that stands somewhere in a module's code.
pub struct Reference {
    pub path: Vec<String>,
    pub line: usize,
    /// Written as `pub use` or `pub(..) use`.
    pub re_export: bool,
}

impl Program {
    /// The room that a module belongs to: the first module below the root. The root itself is in none.
    pub fn room(&self, module: usize) -> Option<&str> {
        self.modules[module].path.first().map(String::as_str)
    }
}

/// The Rust files below `folder`, named relative to it.
pub fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).expect("a path below the folder").to_string_lossy().into_owned();
                found.insert(name, std::fs::read_to_string(&path).expect("the source is readable"));
            }
        }
    }
    found
}

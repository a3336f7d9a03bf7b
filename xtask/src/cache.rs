//! Prepared things, kept between runs, each under a name and a hash of its recipe.
//!
//! A changed recipe has another hash, so its thing is made anew. Each is made in a directory of its own and renamed at
//! the end: an entry is whole or not there, even if two commands prepare it at once.

use std::path::{Path, PathBuf};

use crate::exec::{Context, Error, Result};
use crate::scratch::Scratch;

/// The directory that all entries are in.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$VMCELL_CACHE`, `$XDG_CACHE_HOME/vmcell` or `~/.cache/vmcell`.
    pub fn open() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("VMCELL_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("vmcell")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/vmcell")))
            .ok_or_else(|| Error::new("no place for the cache: set VMCELL_CACHE to a directory"))?;
        std::fs::create_dir_all(&root).context(format_args!("cannot make the cache {}", root.display()))?;
        let root = root.canonicalize().context(format_args!("cannot use the cache {}", root.display()))?;
        Ok(Self { root })
    }

    /// The directory of the entries.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry `name` made by `recipe`; if there is none yet, `build` fills the directory that it is given.
    pub fn entry(&self, name: &str, recipe: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let entry = self.root.join(format!("{name}-{:016x}", hash(recipe.as_bytes())));
        if entry.is_dir() {
            return Ok(entry);
        }
        let scratch = Scratch::new(&self.root, name)?;
        let made = scratch.path().join("made");
        std::fs::create_dir(&made).context(format_args!("cannot make {}", made.display()))?;
        build(&made)?;
        match std::fs::rename(&made, &entry) {
            // Another command was faster; its entry is as good as ours.
            Err(_) if entry.is_dir() => Ok(entry),
            result => result.context(format_args!("cannot keep {}", entry.display())).map(|()| entry),
        }
    }
}

/// FNV-1a, 64 bits: stable between Rust releases, which the standard hasher is not.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(scratch: &Scratch) -> Cache {
        Cache { root: scratch.path().into() }
    }

    #[test]
    fn hash_is_fnv_1a() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn an_entry_is_built_once_a_recipe() {
        let scratch = Scratch::new(&std::env::temp_dir(), "cache-once").unwrap();
        let cache = cache(&scratch);
        let write = |text: &'static str| move |dir: &Path| std::fs::write(dir.join("f"), text).context("f");
        let first = cache.entry("x", "one", write("1")).unwrap();
        let again = cache.entry("x", "one", |_| Err(Error::new("built twice"))).unwrap();
        let other = cache.entry("x", "two", write("2")).unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(std::fs::read_to_string(other.join("f")).unwrap(), "2");
    }

    #[test]
    fn a_build_that_fails_leaves_nothing() {
        let scratch = Scratch::new(&std::env::temp_dir(), "cache-fails").unwrap();
        assert!(cache(&scratch).entry("x", "r", |_| Err(Error::new("no"))).is_err());
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}

//! A host that is made up for a test: some files in a temporary directory.

use std::fs;

use tempfile::TempDir;

use super::finding::{Finding, FindingLevel};
use super::root::Root;

pub(super) struct Tree {
    directory: TempDir,
    root: Root,
}

impl Tree {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        Self { directory, root }
    }

    /// Adds a file, or writes it anew.
    pub(super) fn with(self, path: &str, text: &str) -> Self {
        let path = self.directory.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }
}

/// A host of which nothing is known.
pub(super) fn nothing() -> Tree {
    Tree::new()
}

/// Holds a finding to its level and a part of its text; a finding that asks for something says what.
#[track_caller]
pub(super) fn expect(finding: &Finding, level: FindingLevel, found: &str) {
    assert_eq!(finding.level, level, "{finding:?}");
    assert!(finding.found.contains(found), "{finding:?}");
    assert_eq!(finding.advice.is_some(), level > FindingLevel::Unknown, "{finding:?}");
}

//! How large a source of an image may be.

/// The most of each that a source may have. What is more is refused by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files, folders and links, in all layers together.
    pub files: u64,
    /// Bytes in files, in all layers together.
    pub bytes: u64,
    /// Bytes of an unpacked archive, or of one unpacked layer.
    pub archive_bytes: u64,
    /// Bytes of names, link targets and extended attributes, which are held in memory.
    pub text_bytes: u64,
    /// Layers.
    pub layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 500_000, bytes: 16 << 30, archive_bytes: 20 << 30, text_bytes: 256 << 20, layers: 128 }
    }
}

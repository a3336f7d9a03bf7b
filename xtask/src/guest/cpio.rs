//! A writer for newc cpio archives, which make up an initrd. The kernel unpacks several of them, one after another, so
//! an archive is padded to whole sectors and another may be appended.
//! The format: Linux' Documentation/driver-api/early-userspace/buffer-format.rst.

/// An archive under way.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: usize,
}

impl Archive {
    /// A directory.
    pub fn dir(&mut self, path: &str) {
        self.entry(path, 0o040_755, 0, &[]);
    }

    /// A regular file that all may read and, with `executable`, run.
    pub fn file(&mut self, path: &str, executable: bool, content: &[u8]) {
        self.entry(path, if executable { 0o100_755 } else { 0o100_644 }, 0, content);
    }

    /// A symbolic link at `path` to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, 0o120_777, 0, target.as_bytes());
    }

    /// A character device for root.
    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, 0o020_600, (major << 16) | minor, &[]);
    }

    /// Ends the archive and gives its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, &[]);
        self.pad(512);
        self.bytes
    }

    /// `device` is major << 16 | minor.
    fn entry(&mut self, path: &str, mode: u32, device: u32, content: &[u8]) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode as usize,
            0, // owner
            0, // group
            1, // links
            0, // time: the same content gives the same archive
            content.len(),
            0, // the device that it is on
            0,
            (device >> 16) as usize,
            (device & 0xffff) as usize,
            path.len() + 1,
            0, // checksum, unused in this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_whole_sectors() {
        let mut archive = Archive::default();
        archive.file("a", false, &[1; 700]);
        assert_eq!(archive.finish().len() % 512, 0);
    }

    #[test]
    fn a_header_has_the_format_s_fields() {
        let mut archive = Archive::default();
        archive.char_device("dev/console", 5, 1);
        let bytes = archive.finish();
        let field = |number: usize| std::str::from_utf8(&bytes[6 + 8 * number..14 + 8 * number]).unwrap();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!((field(1), field(6), field(9), field(10)), ("00002180", "00000000", "00000005", "00000001"));
        assert_eq!((field(11), &bytes[110..122]), ("0000000c", &b"dev/console\0"[..]));
    }

    #[test]
    fn content_starts_and_ends_on_four_bytes() {
        let mut archive = Archive::default();
        archive.file("ab", true, b"12345");
        archive.symlink("s", "ab");
        let bytes = archive.finish();
        // 110 bytes of header and 3 of name end at 113; the content is at 116, the next header at 124.
        assert_eq!(&bytes[116..121], b"12345");
        assert_eq!(&bytes[124..130], b"070701");
    }
}

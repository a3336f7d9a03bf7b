//! A newc cpio archive, which an initrd is. The same content gives the same bytes.
//! The format: Linux' Documentation/driver-api/early-userspace/buffer-format.rst.

/// An archive under way.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    folders: std::collections::BTreeSet<String>,
}

impl Archive {
    /// A folder, and those that it is in.
    pub fn folder(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for folder in ends.filter_map(|end| path.get(..end)).filter(|folder| !folder.is_empty()) {
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, 0o040_755, (0, 0), &[]);
            }
        }
    }

    /// A file, and the folders that it is in.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.entry(path, 0o100_000 | mode, (0, 0), content);
    }

    /// A character device.
    pub fn character_device(&mut self, path: &str, number: (u32, u32)) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.entry(path, 0o020_600, number, &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.pad(512);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode = self.inode.saturating_add(1);
        let name = path.len().saturating_add(1);
        // Inode, mode, owner, group, links, time, size, the device that it is on, the device that it is, length of the name, checksum.
        let fields = [
            self.inode as usize,
            mode as usize,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            device.0 as usize,
            device.1 as usize,
            name,
            0,
        ];
        self.bytes.extend(b"070701");
        fields.iter().for_each(|field| self.bytes.extend(format!("{field:08x}").bytes()));
        self.bytes.extend(path.bytes().chain([0]));
        self.pad(4);
        self.bytes.extend(content);
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
    fn folders_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("a/b/one", 0o755, b"12345");
        archive.file("a/b/two", 0o644, b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<usize> =
            ["a\0", "a/b\0", "a/b/one\0", "a/b/two\0", "TRAILER!!!\0"].map(|name| text.find(name).unwrap()).into();
        assert!(places.is_sorted());
        assert_eq!((text.matches("a/b\0").count(), bytes.len() % 512), (1, 0));
        assert_eq!(&bytes[..22], b"07070100000001000041ed");
    }
}

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A disk's driver may find it a moment after the program begins.
const LIMIT: Duration = Duration::from_secs(10);
/// Where the superblock of ext4 is, and where in it are its number, its blocks and their size.
const SUPER: u64 = 1024;
const MAGIC: std::ops::Range<usize> = 56..58;
const BLOCKS: std::ops::Range<usize> = 4..8;
const BLOCKS_HIGH: std::ops::Range<usize> = 0x150..0x154;
const BLOCK_SIZE: std::ops::Range<usize> = 24..28;
/// So much has to be zeros for a disk to count as empty.
const EMPTY: u64 = 1 << 20;

/// A disk of this machine.
pub struct Disk {
    /// In `/dev`.
    pub path: String,
    bytes: u64,
}

/// Finds the disk with this serial number.
pub fn find(serial: &str) -> Result<Disk, String> {
    let began = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/block").map_err(|error| format!("/sys/block: {error}"))?.flatten() {
            if fs::read_to_string(entry.path().join("serial")).is_ok_and(|found| found.trim() == serial) {
                let sectors =
                    fs::read_to_string(entry.path().join("size")).ok().and_then(|size| size.trim().parse::<u64>().ok());
                let path = format!("/dev/{}", entry.file_name().to_string_lossy());
                if Path::new(&path).exists() {
                    return Ok(Disk { path, bytes: sectors.unwrap_or(0).saturating_mul(512) });
                }
            }
        }
        if began.elapsed() > LIMIT {
            return Err(format!("there is no disk with the serial number `{serial}`"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Disk {
    /// Makes a file system if the disk is new or empty.
    pub fn prepare(&self, is_new: bool) -> Result<bool, String> {
        let named = |error: std::io::Error| format!("{}: {error}", self.path);
        if self.superblock().map_err(named)?.is_some() {
            return Ok(false);
        }
        if !is_new && !self.is_empty().map_err(named)? {
            return Err(format!("{} has something that is no ext4 file system; it is left as it is", self.path));
        }
        tool("mke2fs", &["-q", "-F", "-t", "ext4", &self.path])?;
        Ok(true)
    }

    /// Grows the file system, which is mounted, if the disk is larger.
    pub fn grow(&self) -> Result<(), String> {
        let used = self.superblock().map_err(|error| format!("{}: {error}", self.path))?.unwrap_or(u64::MAX);
        if self.bytes.saturating_sub(used) < EMPTY { Ok(()) } else { tool("resize2fs", &[&self.path]) }
    }

    /// The bytes of the ext4 file system, if there is one.
    fn superblock(&self) -> std::io::Result<Option<u64>> {
        let mut bytes = [0; 1024];
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(SUPER))?;
        match file.read_exact(&mut bytes) {
            Ok(()) => Ok(size(&bytes)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_empty(&self) -> std::io::Result<bool> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.take(EMPTY).read_to_end(&mut bytes)?;
        Ok(bytes.iter().all(|byte| *byte == 0))
    }
}

fn size(superblock: &[u8]) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| {
        superblock.get(range).map(|bytes| bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    if number(MAGIC)? != 0xef53 {
        return None;
    }
    let blocks = number(BLOCKS_HIGH)? << 32 | number(BLOCKS)?;
    let shift = u32::try_from(number(BLOCK_SIZE)?.saturating_add(10)).ok()?;
    blocks.checked_mul(1_u64.checked_shl(shift)?)
}

fn tool(name: &str, arguments: &[&str]) -> Result<(), String> {
    let path = format!("/sbin/{name}");
    if !Path::new(&path).exists() {
        return Err(format!(
            "a volume needs {name}, which the host that made this guest's initrd lacked; install e2fsprogs there"
        ));
    }
    let output =
        Command::new(&path).args(arguments).env_clear().output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{name} {}: {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_file_system_is_read_from_its_superblock() {
        let mut bytes = [0; 1024];
        assert_eq!(size(&bytes), None);
        bytes[56..58].copy_from_slice(&0xef53_u16.to_le_bytes());
        bytes[4] = 8;
        bytes[0x150] = 1;
        bytes[24] = 2;
        assert_eq!(size(&bytes), Some((1 << 44) + 8 * 4096));
        bytes[24..28].fill(0xff);
        assert_eq!(size(&bytes), None);
    }

    #[test]
    fn what_is_neither_ext4_nor_empty_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, [1; 4096]).unwrap();
        let disk = Disk { path: path.to_str().unwrap().to_owned(), bytes: 4096 };
        let refused = disk.prepare(false).unwrap_err();
        assert!(refused.ends_with("has something that is no ext4 file system; it is left as it is"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), [1; 4096]);
    }
}

//! A name and the bytes that only its guest should have.

use std::io::Read;
use std::path::Path;

use super::{no_secret_memory, refused};
use crate::error::Result;
use crate::sys::{LockedBytes, open_whole};

/// A secret: a name, and a value of 1 byte to 64 KiB.
///
/// The value lies in memory that is locked, is in no core dump and in no child process, and is zeroed when the secret is dropped. It is
/// never printed.
///
/// ```
/// use vmcell::secret::Secret;
///
/// let secret = Secret::new("database.password", b"correct horse")?;
/// assert_eq!(format!("{secret:?}"), "Secret(database.password, 13 bytes)");
/// assert!(Secret::new("../shadow", b"x").is_err());
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct Secret {
    name: String,
    value: LockedBytes,
}

/// The most bytes of a name; a file in Linux may have no longer one.
pub(super) const LONGEST_NAME: usize = 255;
/// The most bytes of a value.
pub(super) const LONGEST_VALUE: usize = 64 << 10;

impl Secret {
    /// A copy of `value`, which the caller still has and should zero.
    ///
    /// A name has 1 to 255 ASCII letters, digits, `_`, `-` and `.`, and does not begin with a dot, so that it may name a file of the guest.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`](crate::ErrorKind::Secret) for another name, a value of another length, or if the process may not lock so much
    /// memory.
    pub fn new(name: &str, value: &[u8]) -> Result<Self> {
        check_name(name)?;
        let about = |e: crate::Error| e.about(&format!("secret {name}"));
        check_len(value.len()).map_err(about)?;
        Ok(Self { name: name.into(), value: LockedBytes::copy_of(value).map_err(|e| about(no_secret_memory(e)))? })
    }

    /// Reads all of the file at `path`; a line's end belongs to the value. Reads until the end, so it blocks on a pipe
    /// (`/dev/fd/63`) until that is closed; a FIFO with a name is refused.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and if the file cannot be read.
    pub fn file(name: &str, path: impl AsRef<Path>) -> Result<Self> {
        check_name(name)?;
        let path = path.as_ref();
        let unreadable = |e| refused(format!("secret {name}: {} cannot be read", path.display())).with_source(e);
        let value = LockedBytes::read(&mut open_whole(path).map_err(unreadable)?, LONGEST_VALUE).map_err(unreadable)?;
        check_len(value.len()).map_err(|e| e.about(&format!("secret {name}: {}", path.display())))?;
        Ok(Self { name: name.into(), value })
    }

    /// Reads all that is left of `source`, a pipe for example. Blocks until its end.
    ///
    /// # Errors
    /// Those of [`file`](Self::file).
    pub fn read(name: &str, mut source: impl Read) -> Result<Self> {
        check_name(name)?;
        let about = |e: crate::Error| e.about(&format!("secret {name}"));
        let unreadable = |e| about(refused("it cannot be read").with_source(e));
        Self::of(name, LockedBytes::read(&mut source, LONGEST_VALUE).map_err(unreadable)?).map_err(about)
    }

    /// Takes a value that is in such memory already.
    pub(super) fn of(name: &str, value: LockedBytes) -> Result<Self> {
        check_len(value.len())?;
        Ok(Self { name: name.into(), value })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes. What the caller copies of them is the caller's to zero.
    pub fn expose(&self) -> &[u8] {
        &self.value
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({}, {} bytes)", self.name, self.value.len())
    }
}

/// Refuses a text that cannot be the name of a secret.
///
/// # Errors
/// [`ErrorKind::Secret`](crate::ErrorKind::Secret).
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_allowed) && !name.starts_with('.') {
        return Ok(());
    }
    let begin: String = name.chars().take(LONGEST_NAME).collect();
    Err(refused(format!(
        "secret {begin:?} has no name that is allowed: 1 to {LONGEST_NAME} ASCII letters, digits, '_', '-' and '.', not a dot first"
    )))
}

fn check_len(len: usize) -> Result<()> {
    if (1..=LONGEST_VALUE).contains(&len) {
        return Ok(());
    }
    let len = if len > LONGEST_VALUE { format!("more than {LONGEST_VALUE}") } else { len.to_string() };
    Err(refused(format!("the value has {len} bytes, allowed are 1 to {LONGEST_VALUE}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn names_that_could_be_paths_or_hide_are_refused_with_the_name() {
        for name in ["", ".", "..", ".hidden", "a/b", "a b", "a=b", "a:b", "ä", "a\n", &"n".repeat(256)] {
            let error = Secret::new(name, b"x").unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Secret);
            assert!(error.to_string().contains("1 to 255 ASCII letters"), "{error}");
        }
        assert!(Secret::new(&"n".repeat(255), b"x").is_ok() && Secret::new("TLS_key-1.pem", b"x").is_ok());
    }

    #[test]
    fn values_of_other_lengths_are_refused_with_the_name_and_without_the_value() {
        for (value, told) in [(vec![], "has 0 bytes"), (vec![b'q'; LONGEST_VALUE + 1], "more than 65536 bytes")] {
            let error = Secret::new("one", &value).unwrap_err().to_string();
            assert!(error.starts_with("secret one: ") && error.contains(told) && !error.contains("qq"), "{error}");
        }
    }

    #[test]
    fn a_file_is_taken_as_it_is() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"line\n").unwrap();
        assert_eq!(Secret::file("one", file.path()).unwrap().expose(), b"line\n");
        file.write_all(&vec![b'q'; LONGEST_VALUE]).unwrap();
        let error = Secret::file("one", file.path()).unwrap_err().to_string();
        assert!(error.contains("more than 65536") && error.contains(file.path().to_str().unwrap()), "{error}");
        assert!(Secret::file("one", "/nowhere").unwrap_err().chain().contains("/nowhere cannot be read: No such file"));
    }

    #[test]
    fn a_pipe_is_waited_for_until_it_is_closed_and_a_fifo_is_refused_at_once() {
        use std::os::fd::AsRawFd;

        let (read, mut write) = std::io::pipe().unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            write.write_all(b"late").unwrap();
        });
        assert_eq!(Secret::file("one", format!("/dev/fd/{}", read.as_raw_fd())).unwrap().expose(), b"late");
        writer.join().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let error = Secret::file("one", &fifo).unwrap_err().chain();
        assert!(error.contains("it is a FIFO, allowed are files and pipes without a name"), "{error}");
    }
}

//! Memory for keys: locked, in no core dump, in no child process, and zeroed before it is given back.

use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::{self, NonNull};

/// Bytes of such memory, in pages of their own.
///
/// The pages are `memfd_secret`'s if the host has it: then the kernel itself has no mapping of them either, and neither a debugger nor
/// another process's `process_vm_readv` reads them.
pub(crate) struct LockedBytes {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, like a `Box<[u8]>`.
unsafe impl Send for LockedBytes {}
// SAFETY: as above; through a shared reference its bytes are only read.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// Zeroes. An empty one is one page as well.
    ///
    /// # Errors
    /// What the host reports: `ENOMEM` or `EAGAIN` if the process has locked as much memory as it may (`RLIMIT_MEMLOCK`).
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        let start = secret_pages(mapped_len(len)).or_else(|_| locked_pages(mapped_len(len)))?;
        Ok(Self { start, len })
    }

    /// What is left of `file`, which is at most `most` bytes; of a longer one it is one byte more than that. Locks no more than about three times as
    /// much as is read, since a process may lock little.
    ///
    /// # Errors
    /// Those of [`zeroed`](Self::zeroed), which say so, and of reading.
    pub(crate) fn read(file: &mut impl Read, most: usize) -> io::Result<Self> {
        let most = most.saturating_add(1);
        let mut bytes = Self::room(most.min(PAGE))?;
        let mut len = 0;
        loop {
            if len == bytes.len() && len < most {
                let mut longer = Self::room(len.saturating_mul(2).min(most))?;
                longer.iter_mut().zip(bytes.iter()).for_each(|(place, byte)| *place = *byte);
                bytes = longer;
            }
            match file.read(bytes.get_mut(len..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(more) => len = len.saturating_add(more),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let read = bytes.get(..len).unwrap_or_default();
        let mut copy = Self::room(read.len())?;
        copy.copy_from_slice(read);
        Ok(copy)
    }

    /// For what is read: otherwise it would seem that the file is at fault.
    fn room(len: usize) -> io::Result<Self> {
        Self::zeroed(len).map_err(|e| {
            io::Error::new(e.kind(), format!("no memory can be locked for it (RLIMIT_MEMLOCK, ulimit -l): {e}"))
        })
    }

    /// Where they begin, at the start of a page.
    #[cfg(feature = "volume")]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// A copy of `bytes`, which the caller zeroes.
    ///
    /// # Errors
    /// Those of [`zeroed`](Self::zeroed).
    pub(crate) fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let mut copy = Self::zeroed(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }
}

impl Deref for LockedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is at least so long, was zeroed by the kernel, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for LockedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        zero(self);
        // SAFETY: the mapping is ours, of this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), mapped_len(self.len)) };
    }
}

impl std::fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secret bytes", self.len)
    }
}

pub(super) const PAGE: usize = 4096;

fn mapped_len(len: usize) -> usize {
    len.max(1).checked_next_multiple_of(PAGE).unwrap_or(len)
}

/// Pages that the kernel has no mapping of, either.
fn secret_pages(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: the call takes flags alone, and what it returns is a new descriptor, which is nobody else's.
    let file = unsafe {
        let fd = libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(libc::c_int::try_from(fd).map_err(io::Error::other)?)
    };
    file.set_len(len as u64)?;
    let start = map(len, libc::MAP_SHARED, file.as_raw_fd())?;
    keep_here(start, len).inspect_err(|_| unmap(start, len))?;
    // They are locked from the first use on, and cannot be asked to be (mlock finds no pages of the kernel's).
    // SAFETY: the mapping is of this length, and nobody else knows it.
    unsafe { start.as_ptr().write_bytes(0, len) };
    Ok(start)
}

fn locked_pages(len: usize) -> io::Result<NonNull<u8>> {
    let start = map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    keep_here(start, len).and_then(|()| touch(start, len)).map(|()| start).inspect_err(|_| unmap(start, len))
}

fn map(len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other one.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Neither in a child nor in a core dump.
fn keep_here(start: NonNull<u8>, len: usize) -> io::Result<()> {
    for advice in [libc::MADV_DONTFORK, libc::MADV_DONTDUMP] {
        // SAFETY: the mapping is of this length, and neither advice changes its content here.
        if unsafe { libc::madvise(start.as_ptr().cast(), len, advice) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Brings the pages there and keeps them there, so that no access of them fails later.
fn touch(start: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: the mapping is of this length.
    match unsafe { libc::mlock(start.as_ptr().cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: the mapping is of this length, and nothing refers to it.
    unsafe { libc::munmap(start.as_ptr().cast(), len) };
}

/// Zeroes `bytes` in a way that the compiler keeps, although nobody reads them.
pub(crate) fn zero(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping at an address.
    fn flags(at: *const u8) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_it = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let parse = |text: &str| usize::from_str_radix(text, 16).ok();
            if let Some((from, to)) = range.and_then(|(from, to)| Some((parse(from)?, parse(to)?))) {
                is_it = (from..to).contains(&at.addr());
            }
            if let (true, Some(flags)) = (is_it, line.strip_prefix("VmFlags: ")) {
                return flags.to_owned();
            }
        }
        panic!("there is no mapping at {at:?}");
    }

    #[test]
    fn both_kinds_of_pages_are_locked_and_stay_out_of_dumps_and_children() {
        for pages in [secret_pages, locked_pages] {
            let start = match pages(PAGE) {
                Ok(start) => start,
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => continue,
                Err(e) => panic!("{e}"),
            };
            let flags = flags(start.as_ptr());
            unmap(start, PAGE);
            for flag in ["lo", "dd", "dc"] {
                assert!(flags.split(' ').any(|one| one == flag), "{flag} is missing in {flags}");
            }
        }
        assert!(locked_pages(PAGE).is_ok_and(|start| (unmap(start, PAGE), true).1));
    }

    #[test]
    fn bytes_are_kept_and_not_printed() {
        let bytes = LockedBytes::copy_of(b"a passphrase").unwrap();
        assert_eq!((&*bytes, format!("{bytes:?}")), (&b"a passphrase"[..], "12 secret bytes".to_owned()));
        assert_eq!(LockedBytes::zeroed(0).unwrap().len(), 0);
        assert_eq!(*LockedBytes::zeroed(3 * PAGE).unwrap(), [0; 3 * PAGE]);
    }
    /// Notes how much it is asked for.
    struct Asked(usize, usize);

    impl Read for Asked {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1.max(buffer.len());
            let count = buffer.len().min(self.0).min(1000);
            buffer[..count].fill(7);
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn reading_a_little_locks_a_little_whatever_would_be_allowed() {
        let mut file = Asked(3, 0);
        assert_eq!(*LockedBytes::read(&mut file, 64 << 10).unwrap(), [7; 3]);
        assert_eq!(file.1, PAGE);
        for (has, most) in [(0, 0), (0, 9), (9, 9), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (64 << 10, 64 << 10)] {
            assert_eq!(*LockedBytes::read(&mut Asked(has, 0), most).unwrap(), vec![7; has]);
        }
        for most in [0, 9, PAGE - 1, PAGE, 64 << 10] {
            assert_eq!(LockedBytes::read(&mut Asked(1 << 20, 0), most).unwrap().len(), most + 1);
        }
    }

    #[test]
    fn it_is_told_if_the_limit_and_not_the_file_is_at_fault() {
        let error = LockedBytes::room(isize::MAX as usize).unwrap_err().to_string();
        assert!(error.starts_with("no memory can be locked for it (RLIMIT_MEMLOCK"), "{error}");
    }
}

//! What the standard library does not offer on files: locks that belong to the open file, and holes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file for reading, or for both, without ever waiting: an ordinary open of a FIFO waits for its other end.
/// With `direct`, its data will not go through the page cache.
pub(crate) fn open_disk(path: &Path, write: bool, direct: bool) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | if direct { libc::O_DIRECT } else { 0 };
    File::options().read(true).write(write).custom_flags(flags).open(path)
}

/// The same for a block device that nobody else has to itself: neither a file system that is mounted, nor the device mapper, nor swap, nor
/// another program that has opened it so. A child process may hold a copy of the last one's descriptor for the moment until it executes, so this waits a
/// little.
///
/// # Errors
/// `ResourceBusy` if somebody has it.
pub(crate) fn open_device_alone(path: &Path, direct: bool) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_EXCL | if direct { libc::O_DIRECT } else { 0 };
    let mut tries = 10;
    loop {
        match File::options().read(true).write(true).custom_flags(flags).open(path) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries > 0 => {
                tries = i32::saturating_sub(tries, 1);
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Opens what is to be read to its end: a file, or a pipe that another program was started with (`/dev/fd/63`), for which reading waits.
///
/// # Errors
/// `InvalidInput` for a FIFO with a name, which whoever opens it could wait for without end.
#[cfg(any(feature = "secret", feature = "volume"))]
pub(crate) fn open_whole(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::FileTypeExt;

    let file = open_disk(path, false, false)?;
    if file.metadata()?.file_type().is_fifo() && file_system(&file)? != PIPEFS_MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a FIFO, allowed are files and pipes without a name",
        ));
    }
    let flags = flags(&file)? & !libc::O_NONBLOCK;
    // SAFETY: the descriptor is open, and the call takes a number.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) })?;
    Ok(file)
}

/// Asks the kernel to read a part of a file into its cache. It goes on reading when this returns.
#[cfg(feature = "save")]
pub(crate) fn read_ahead(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let whole = |bytes: u64| libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    // SAFETY: the descriptor is open, and the other arguments are numbers.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), whole(offset)?, whole(len)?, libc::POSIX_FADV_WILLNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Whether the file's data go past the page cache.
pub(crate) fn is_direct(file: &File) -> io::Result<bool> {
    Ok(flags(file)? & libc::O_DIRECT != 0)
}

/// Whether Linux appends whatever is written to the file at its end, wherever it was to go.
pub(crate) fn appends(file: &File) -> io::Result<bool> {
    Ok(flags(file)? & libc::O_APPEND != 0)
}

fn flags(file: &File) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and F_GETFL takes no argument.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    check(flags)?;
    Ok(flags)
}

/// What direct I/O on a file must be aligned to, in bytes: powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectAlignment {
    /// The addresses of buffers.
    pub(crate) memory: u32,
    /// Positions and lengths.
    pub(crate) offset: u32,
}

/// Asks the kernel (Linux 6.1) what direct I/O on a file must be aligned to. If it does not say, that is a page for both.
pub(crate) fn direct_alignment(file: &File) -> DirectAlignment {
    // SAFETY: all-zero bytes are a valid statx.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the path is an empty text, and the pointer is valid for the call.
    let asked = check(unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &mut found)
    });
    let known = asked.is_ok() && found.stx_mask & libc::STATX_DIOALIGN != 0;
    let or_page = |bytes: u32| if known && bytes.is_power_of_two() { bytes } else { PAGE };
    DirectAlignment { memory: or_page(found.stx_dio_mem_align), offset: or_page(found.stx_dio_offset_align) }
}

/// The next range between `from` and `end` that is not a hole, and makes its start the file's position; `None` if there is none. A
/// file system that knows of no holes has data everywhere.
pub(crate) fn next_data(file: &File, from: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    let Some(start) = start_of_data(file, from, end)? else { return Ok(None) };
    let stop = seek(file, start, libc::SEEK_HOLE)?.min(end);
    seek(file, start, libc::SEEK_SET)?;
    Ok(Some((start, stop)))
}

/// Where the next byte lies between `from` and `end` that is in no hole. It moves the file's position.
pub(crate) fn start_of_data(file: &File, from: u64, end: u64) -> io::Result<Option<u64>> {
    if from >= end {
        return Ok(None);
    }
    match seek(file, from, libc::SEEK_DATA) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        start => Ok(Some(start?).filter(|start| *start < end)),
    }
}

fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<u64> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the descriptor is open; the rest are plain integers.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}

const PAGE: u32 = 4096;

/// Locks a whole file for this open file description, against every other one. Never waits.
///
/// # Errors
/// `WouldBlock` if another holds a lock that excludes it; whatever else the file system answers.
pub(crate) fn try_lock(file: &File, exclusive: bool) -> io::Result<()> {
    set_lock(file, if exclusive { libc::F_WRLCK } else { libc::F_RDLCK })
}

/// Gives the lock of this open file description up, also if copies of its descriptor are open elsewhere.
pub(crate) fn unlock(file: &File) {
    // Fails on file systems without locks, and then there is nothing to give up.
    let _ = set_lock(file, libc::F_UNLCK);
}

#[expect(clippy::cast_possible_truncation, reason = "kinds of locks and positions are small constants")]
fn set_lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid flock; open file description locks demand that `l_pid` stays zero.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open, and the pointer is valid for the call.
    match check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) }) {
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => Err(io::ErrorKind::WouldBlock.into()),
        other => other,
    }
}

/// Whether the descriptor was opened for reading and writing.
pub(crate) fn is_writable(file: &File) -> io::Result<bool> {
    Ok(flags(file)? & libc::O_ACCMODE == libc::O_RDWR)
}

/// Whether the file's data lie in memory: a memfd, or a file on tmpfs or ramfs. False if the host does not say.
pub(crate) fn is_in_memory(file: &File) -> bool {
    matches!(file_system(file), Ok(libc::TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Whether the file system says that it can move data without waiting, and waits all the same: FUSE and virtiofs ask their server,
/// however long that takes.
///
/// # Errors
/// Why the host does not say which file system it is.
pub(crate) fn waits_always(file: &File) -> io::Result<bool> {
    Ok(file_system(file)? == libc::FUSE_SUPER_MAGIC)
}

/// Of pipes that no file system has a name for.
#[cfg(any(feature = "secret", feature = "volume"))]
const PIPEFS_MAGIC: libc::__fsword_t = 0x5049_5045;

fn file_system(file: &File) -> io::Result<libc::__fsword_t> {
    // SAFETY: all-zero bytes are a valid statfs.
    let mut info: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the pointer is valid for the call.
    check(unsafe { libc::fstatfs(file.as_raw_fd(), &mut info) })?;
    Ok(info.f_type)
}

// `include/uapi/linux/magic.h` of the kernel.
const RAMFS_MAGIC: libc::__fsword_t = 0x8584_58f6;

/// How many files this process may have open now. The most that can be said if the host does not tell.
pub(crate) fn file_limit() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for the call.
    let asked = check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) });
    asked.ok().and_then(|()| u32::try_from(limit.rlim_cur).ok()).unwrap_or(u32::MAX)
}

/// How many bytes this process may lock in memory, unless it has `CAP_IPC_LOCK`; `None` without a limit, and if the host does not
/// tell.
pub(crate) fn lockable_bytes() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is valid for the call. If it fails, the limit stays as it is.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Whether the kernel was told to merge all memory of this process with pages that are the same (Linux 6.4); `None` if it does not
/// tell.
pub(crate) fn merges_memory() -> Option<bool> {
    // SAFETY: takes plain numbers alone.
    match unsafe { libc::prctl(libc::PR_GET_MEMORY_MERGE, 0, 0, 0, 0) } {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Whether `fd` is a descriptor of this process that is open.
#[cfg(any(test, feature = "capi"))]
pub(crate) fn is_open(fd: std::os::fd::RawFd) -> bool {
    // SAFETY: F_GETFD takes no argument, and any number may be asked for.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }).is_ok()
}

/// How a range is made to read as zeros without writing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZeroMode {
    /// Gives the range's storage back.
    Deallocate,
    /// Keeps the range's storage.
    Keep,
}

/// Makes `len` bytes from `offset` on read as zeros; the file's size stays as it is.
///
/// # Errors
/// `Unsupported` where the file system or the device has no such operation; whatever else it answers.
pub(crate) fn zero_range(file: &File, offset: u64, len: u64, mode: ZeroMode) -> io::Result<()> {
    let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let (offset, len) = (i64::try_from(offset).map_err(invalid)?, i64::try_from(len).map_err(invalid)?);
    let flags = match mode {
        ZeroMode::Deallocate => libc::FALLOC_FL_PUNCH_HOLE,
        ZeroMode::Keep => libc::FALLOC_FL_ZERO_RANGE,
    };
    loop {
        // SAFETY: the descriptor is open, and the call takes plain numbers.
        let done = unsafe { libc::fallocate64(file.as_raw_fd(), flags | libc::FALLOC_FL_KEEP_SIZE, offset, len) };
        match check(done) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Err(io::ErrorKind::Unsupported.into()),
            other => return other,
        }
    }
}

/// Gives `len` bytes from `offset` on storage, so that no write to them can find none. Blocks for as long as that takes; what
/// they hold stays.
///
/// # Errors
/// `StorageFull` or `OutOfMemory` if there is not enough, and then none is taken; whatever else the file system answers.
pub(crate) fn allocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let (offset, len) = (i64::try_from(offset).map_err(invalid)?, i64::try_from(len).map_err(invalid)?);
    loop {
        // SAFETY: the descriptor is open, and the call takes plain numbers.
        match check(unsafe { libc::fallocate64(file.as_raw_fd(), 0, offset, len) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A file without a name that lives in memory; all its bytes are zero.
#[cfg(any(test, feature = "test-util"))]
pub(crate) fn anonymous_file(len: u64) -> io::Result<File> {
    // SAFETY: the name is a C string, and the call touches nothing else.
    let fd = unsafe { libc::memfd_create(c"vmcell".as_ptr(), libc::MFD_CLOEXEC) };
    check(fd)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let file = unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    file.set_len(len)?;
    Ok(file)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_exclude_other_open_files_of_the_same_process() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(named.path()).unwrap();
        let (first, second) = (open(), open());
        try_lock(&first, false).unwrap();
        try_lock(&second, false).unwrap();
        assert_eq!(try_lock(&second, true).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        let host = |e| crate::error::Error::new(crate::error::ErrorKind::Host, "locked").with_source(e);
        crate::testing::retry(|| try_lock(&second, true).map_err(host));
    }

    #[test]
    fn a_file_in_memory_is_told_from_one_on_a_disk() {
        assert!(is_in_memory(&anonymous_file(1).unwrap()));
        assert!(!is_in_memory(&File::open("/proc/self/exe").unwrap()));
    }

    #[test]
    fn only_read_write_descriptors_are_writable() {
        let named = tempfile::NamedTempFile::new().unwrap();
        assert!(is_writable(named.as_file()).unwrap());
        assert!(!is_writable(&File::open(named.path()).unwrap()).unwrap());
    }
}

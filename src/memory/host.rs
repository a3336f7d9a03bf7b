//! Buffers of the host's own memory, for data that must not be worked on in the guest's: ciphertext, or what the guest
//! laid out too unevenly for the kernel.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use crate::sys::lock;

/// A buffer in the host's memory, aligned to [`ALIGNMENT`](Self::ALIGNMENT). The guest neither sees nor changes it.
///
/// ```
/// use vmcell::HostBuffer;
///
/// let mut buffer = HostBuffer::new(1000);
/// buffer[..5].copy_from_slice(b"hello");
/// assert_eq!(buffer.len(), 1000);
/// assert_eq!(&buffer[..6], b"hello\0");
/// ```
pub struct HostBuffer {
    start: NonNull<u8>,
    layout: Layout,
    len: usize,
    /// Takes the storage back.
    home: Option<Arc<Mutex<Shelf>>>,
}

// SAFETY: a buffer owns its storage alone, like a `Box<[u8]>`, and the shelf behind `home` is locked for each access.
unsafe impl Send for HostBuffer {}
// SAFETY: as above; through a shared reference its bytes are only read.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    /// The alignment of the first byte, which is enough for direct I/O on any disk.
    pub const ALIGNMENT: usize = 4096;

    /// The largest length of a buffer, in bytes.
    pub const MAX_LEN: usize = 1 << 20;

    /// Makes a buffer of `len` zero bytes that belongs to no pool.
    ///
    /// # Panics
    /// If `len` is above [`MAX_LEN`](Self::MAX_LEN). Like any allocation, it ends the process if the host has no memory left.
    pub fn new(len: usize) -> Self {
        assert!(len <= Self::MAX_LEN, "a host buffer of {len} bytes was asked for, allowed are {}", Self::MAX_LEN);
        let layout = layout(class(len));
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        let start = start.unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        Self { start, layout, len, home: None }
    }

    /// Makes the buffer shorter. Its storage stays as large as it is.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Returns the length up to which [`resize`](Self::resize) can make it longer: at least the length with which it was made.
    pub fn capacity(&self) -> usize {
        self.layout.size()
    }

    /// Makes the buffer shorter or longer. Bytes that it gains are zero. So one buffer of the largest size can be kept and used
    /// for operations of any size.
    ///
    /// # Panics
    /// If `len` is above its [`capacity`](Self::capacity).
    pub fn resize(&mut self, len: usize) {
        let capacity = self.capacity();
        assert!(len <= capacity, "a host buffer was resized to {len} bytes, allowed are {capacity}");
        let before = std::mem::replace(&mut self.len, len);
        if let Some(gained) = self.get_mut(before..) {
            // The storage behind the end may hold another VM's data.
            gained.fill(0);
        }
    }
}

impl Deref for HostBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the storage holds at least `len` bytes, all initialised when it was allocated, and is owned by `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for HostBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `self` is borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let storage = Storage { start: self.start, layout: self.layout };
            return lock(&home).take_back(storage);
        }
        // SAFETY: the storage was allocated with this layout, and nobody else has it.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl std::fmt::Debug for HostBuffer {
    // Not its bytes: they may be a guest's secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A bounded supply of buffers. A clone is another handle to the same pool; a buffer finds its way back from any thread.
#[derive(Clone)]
pub(crate) struct BufferPool {
    shelf: Arc<Mutex<Shelf>>,
}

struct Shelf {
    /// Not in use now. Reused in the order in which it came, so what is hot in the cache goes out first.
    idle: Vec<Storage>,
    /// Bytes of all storage, in use or not.
    bytes: usize,
    limit: usize,
}

struct Storage {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: idle storage is owned by its shelf alone.
unsafe impl Send for Storage {}

impl BufferPool {
    /// A pool whose buffers take at most `limit` bytes together.
    pub(crate) fn new(limit: usize) -> Self {
        Self { shelf: Arc::new(Mutex::new(Shelf { idle: Vec::new(), bytes: 0, limit })) }
    }

    /// A buffer of `len` zero bytes; `None` if the pool is used up, or `len` above the largest buffer.
    pub(crate) fn take(&self, len: usize) -> Option<HostBuffer> {
        if len > HostBuffer::MAX_LEN {
            return None;
        }
        let layout = layout(class(len));
        let mut shelf = lock(&self.shelf);
        let home = Some(Arc::clone(&self.shelf));
        if let Some(position) = shelf.idle.iter().rposition(|storage| storage.layout == layout) {
            let storage = std::mem::ManuallyDrop::new(shelf.idle.swap_remove(position));
            drop(shelf);
            let mut buffer = HostBuffer { start: storage.start, layout, len, home };
            // It may have held another VM's data.
            buffer.fill(0);
            return Some(buffer);
        }
        shelf.make_room(layout.size())?;
        shelf.bytes = shelf.bytes.saturating_add(layout.size());
        drop(shelf);
        let mut buffer = HostBuffer::new(len);
        buffer.home = home;
        Some(buffer)
    }
}

impl Shelf {
    /// Frees idle storage until `size` bytes more stay below the limit.
    fn make_room(&mut self, size: usize) -> Option<()> {
        while self.limit.saturating_sub(self.bytes) < size {
            let storage = self.idle.pop()?;
            self.bytes = self.bytes.saturating_sub(storage.layout.size());
        }
        Some(())
    }

    fn take_back(&mut self, storage: Storage) {
        self.idle.push(storage);
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: the storage was allocated with this layout, and is in no buffer.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The size that storage for `len` bytes has: a power of two, so that few sizes serve all.
fn class(len: usize) -> usize {
    len.clamp(HostBuffer::ALIGNMENT, HostBuffer::MAX_LEN).next_power_of_two()
}

fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, HostBuffer::ALIGNMENT) {
        Ok(layout) => layout,
        Err(_) => unreachable!("a class is a power of two of at most {} bytes", HostBuffer::MAX_LEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_to_its_pool_and_goes_out_again_empty() {
        let pool = BufferPool::new(8192);
        let mut first = pool.take(5000).unwrap();
        let start = first.as_ptr();
        first.fill(7);
        assert!(pool.take(1).is_none(), "the pool gave more than its limit");
        std::thread::spawn(move || drop(first)).join().unwrap();
        let second = pool.take(8192).unwrap();
        assert_eq!(second.as_ptr(), start);
        assert!(second.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_buffer_that_grows_shows_nothing_that_it_held_before() {
        let pool = BufferPool::new(8192);
        let mut buffer = pool.take(8000).unwrap();
        buffer.fill(7);
        drop(buffer);
        let mut buffer = pool.take(5000).unwrap();
        buffer.fill(1);
        buffer.resize(10);
        buffer.resize(8192);
        assert!(buffer[..10].iter().all(|byte| *byte == 1) && buffer[10..].iter().all(|byte| *byte == 0));
        assert!(std::panic::catch_unwind(move || buffer.resize(8193)).is_err());
    }

    #[test]
    fn idle_buffers_of_another_size_make_room() {
        let pool = BufferPool::new(8192);
        let two = [pool.take(1).unwrap(), pool.take(1).unwrap()];
        assert!(pool.take(4097).is_none());
        drop(two);
        assert_eq!(pool.take(4097).unwrap().len(), 4097);
    }

    #[test]
    fn a_buffer_is_aligned_for_direct_io_and_too_large_a_one_is_not_given() {
        let pool = BufferPool::new(usize::MAX / 2);
        assert!(pool.take(HostBuffer::MAX_LEN + 1).is_none());
        for len in [0, 1, 4096, 4097, HostBuffer::MAX_LEN] {
            assert!(pool.take(len).unwrap().as_ptr().addr().is_multiple_of(HostBuffer::ALIGNMENT));
        }
    }
}

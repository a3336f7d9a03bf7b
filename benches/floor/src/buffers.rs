//! Buffers in large pages, as a guest's memory is.

const LARGE_PAGE: usize = 2 << 20;

/// So many buffers of one size.
pub struct Buffers {
    memory: Vec<LargePage>,
    size: usize,
}

#[repr(align(0x20_0000))]
#[derive(Clone)]
struct LargePage(#[allow(dead_code, reason = "reached as a slice of bytes")] [u8; LARGE_PAGE]);

impl Buffers {
    pub fn new(size: usize, count: usize) -> Self {
        let mut memory: Vec<LargePage> = Vec::with_capacity((size * count).div_ceil(LARGE_PAGE));
        // SAFETY: the range is this vector's own. It is a wish: if the kernel refuses, the pages are small.
        unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.capacity() * LARGE_PAGE, libc::MADV_HUGEPAGE) };
        memory.resize(memory.capacity(), LargePage([0; LARGE_PAGE]));
        Self { memory, size }
    }

    pub fn of(&mut self, slot: usize) -> &mut [u8] {
        let all = self.memory.as_mut_ptr().cast::<u8>();
        // SAFETY: the large pages are in one piece, and made of bytes alone.
        let all = unsafe { core::slice::from_raw_parts_mut(all, self.memory.len() * LARGE_PAGE) };
        &mut all[slot * self.size..][..self.size]
    }
}

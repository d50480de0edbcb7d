//! Buffers that threads lend.

use std::{cell::RefCell, fmt, ops::Range};

/// As much as a socket usually has at once.
pub(super) const SIZE: usize = 64 << 10;
/// How many a thread keeps: more are in use only while receivers are slower than senders.
const KEPT: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer and the part of it that is still to be written; it goes back when dropped.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    filled: Range<usize>,
}

impl Buffer {
    pub(super) fn borrow() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self { bytes: spare.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()), filled: 0..0 }
    }

    /// All of it, to be filled from the start.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// So many bytes were put there.
    pub(super) fn fill(&mut self, length: usize) {
        self.filled = 0..length.min(self.bytes.len());
    }

    /// What is still to be written.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(self.filled.clone()).unwrap_or_default()
    }

    /// So many bytes were written.
    pub(super) fn take(&mut self, length: usize) {
        self.filled.start = (self.filled.start + length).min(self.filled.end);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(bytes);
            }
        });
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Buffer").field(&self.filled).finish()
    }
}

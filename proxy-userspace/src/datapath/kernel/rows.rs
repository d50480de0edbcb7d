//! Tables as rows of 64-bit words: mapped from the kernel, or in memory for tests.
//!
//! Userspace and the kernel never write the same word; each word is stored and loaded whole.

use std::{
    io,
    os::fd::AsFd as _,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Rows of words.
pub(super) trait Rows {
    /// How many.
    fn len(&self) -> u32;
    /// A word of a row.
    fn load(&self, row: u32, word: usize) -> u64;
    /// Replaces a word of a row; what was stored before is seen before.
    fn store(&self, row: u32, word: usize, value: u64);

    /// Words from `first` on.
    fn load_words<const N: usize>(&self, row: u32, first: usize) -> [u64; N] {
        std::array::from_fn(|offset| self.load(row, first + offset))
    }

    /// Replaces words from `first` on.
    fn store_words<const N: usize>(&self, row: u32, first: usize, words: [u64; N]) {
        for (offset, word) in words.into_iter().enumerate() {
            self.store(row, first + offset, word);
        }
    }
}

/// An array map in this process's memory.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u64>,
    rows: u32,
    words: usize,
    // Keeps the map open: aya closes it on drop.
    _map: MapData,
}

// SAFETY: the mapping is memory of the process, not of a thread, and is only accessed atomically.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps an array of `rows` rows of `words` words.
    pub(super) fn new(map: MapData, rows: u32, words: usize) -> io::Result<Self> {
        let length = rows as usize * words * size_of::<u64>();
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel refuses a length behind the map's end.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, rows, words, _map: map })
    }

    fn length(&self) -> usize {
        self.rows as usize * self.words * size_of::<u64>()
    }

    fn word(&self, row: u32, word: usize) -> &AtomicU64 {
        assert!(row < self.rows && word < self.words, "row {row} is not in the table");
        // SAFETY: in bounds by the assertion, aligned because rows are whole words, and mapped as long as `self`.
        unsafe { AtomicU64::from_ptr(self.base.add(row as usize * self.words + word).as_ptr()) }
    }
}

impl Rows for Mapping {
    fn len(&self) -> u32 {
        self.rows
    }

    fn load(&self, row: u32, word: usize) -> u64 {
        self.word(row, word).load(Ordering::Acquire)
    }

    fn store(&self, row: u32, word: usize, value: u64) {
        self.word(row, word).store(value, Ordering::Release);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length, and no reference to it outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.length()) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Rows that wait for a grace period before they may be written again: a program that found them just before may still
/// be using them.
#[derive(Debug, Default)]
pub(super) struct Resting {
    marked: std::collections::HashSet<u32>,
    waiting: Vec<u32>,
    in_grace: Vec<u32>,
}

impl Resting {
    /// Notes a row that was just withdrawn.
    pub(super) fn rest(&mut self, row: u32) {
        if self.marked.insert(row) {
            self.waiting.push(row);
        }
    }

    /// Whether a row rests.
    pub(super) fn contains(&self, row: u32) -> bool {
        self.marked.contains(&row)
    }

    /// A grace period begins: it is that of every row withdrawn so far. True if there are any.
    pub(super) fn begin_grace(&mut self) -> bool {
        self.in_grace.append(&mut self.waiting);
        !self.in_grace.is_empty()
    }

    /// The grace period is over: these rows have rested.
    pub(super) fn end_grace(&mut self) -> Vec<u32> {
        let rested = std::mem::take(&mut self.in_grace);
        for row in &rested {
            self.marked.remove(row);
        }
        rested
    }
}

#[cfg(test)]
pub(super) mod memory {
    use std::cell::Cell;

    use super::Rows;

    /// A table in memory.
    #[derive(Debug)]
    pub(in super::super) struct Memory {
        words: usize,
        cells: Vec<Cell<u64>>,
    }

    impl Memory {
        pub(in super::super) fn new(rows: u32, words: usize) -> Self {
            Self { words, cells: vec![Cell::new(0); rows as usize * words] }
        }
    }

    impl Rows for Memory {
        fn len(&self) -> u32 {
            u32::try_from(self.cells.len() / self.words).unwrap()
        }

        fn load(&self, row: u32, word: usize) -> u64 {
            self.cells[row as usize * self.words + word].get()
        }

        fn store(&self, row: u32, word: usize, value: u64) {
            self.cells[row as usize * self.words + word].set(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_rests_until_a_grace_period_that_began_later_is_over() {
        let mut resting = Resting::default();
        resting.rest(1);
        assert!(resting.begin_grace());
        resting.rest(2);
        assert_eq!(resting.end_grace(), [1]);
        assert!(!resting.contains(1) && resting.contains(2));
        assert!(resting.begin_grace());
        assert_eq!(resting.end_grace(), [2]);
        assert!(!resting.begin_grace());
    }
}

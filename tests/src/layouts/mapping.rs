//! An array map in this process's memory.

use std::{
    io,
    os::fd::AsFd as _,
    ptr::{self, NonNull},
    slice,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{Map, MapData},
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::object;

/// The rows of an array map.
#[derive(Debug)]
pub(super) struct Mapping<T> {
    base: NonNull<T>,
    rows: usize,
    map: MapData,
}

// SAFETY: the mapping is memory of the process, not of a thread, and is changed through `&mut` alone.
unsafe impl<T: Pod> Send for Mapping<T> {}

impl<T: Pod> Mapping<T> {
    /// Maps an array of the object.
    pub(super) fn of(ebpf: &mut Ebpf, name: &str) -> Result<Self> {
        let Map::Array(map) = object::map(ebpf, name)? else { anyhow::bail!("{name} is no array") };
        let rows = map.info()?.max_entries() as usize;
        Self::new(map, rows).with_context(|| format!("failed to map {name} into memory"))
    }

    fn new(map: MapData, rows: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel refuses a length behind the map's end.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                rows * size_of::<T>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, rows, map })
    }

    /// The rows. Programs run only while nobody holds them: traffic starts and ends with a measurement.
    pub(super) fn rows(&mut self) -> &mut [T] {
        // SAFETY: mapped as long as `self`, page-aligned, and any bytes are a `T`.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr(), self.rows) }
    }

    /// Whose memory it is.
    pub(super) fn map(&self) -> &MapData {
        &self.map
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length, and no reference to it outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.rows * size_of::<T>()) };
        debug_assert!(unmapped.is_ok());
    }
}

//! Bytes that tensors live in: a memory-mapped file, or memory that starts at a multiple of 64.
//!
//! This is the only place that maps files.

use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};
#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::{Mmap, MmapMut};

use crate::error::{Error, Result};

/// Every tensor starts at a multiple of this many bytes.
pub(crate) const ALIGNMENT: usize = 64;

/// Bytes of a huge page, on most systems that have them.
const HUGE_PAGE: usize = 2 << 20;

/// How an index's files are brought into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    /// Mapped: instantly, and pages are read when they are first used.
    Map,
    /// Mapped, and all pages are read at once.
    Prefault,
    /// Read whole, into huge pages where the system gives them.
    Read,
}

/// Read-only bytes whose first one is at a multiple of [`ALIGNMENT`].
pub(crate) enum Bytes {
    /// A whole file, mapped (page-aligned).
    Mapped(Mmap),
    /// Memory of our own.
    Owned(Memory),
}

impl Bytes {
    /// Maps a whole file.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the map is read-only, and its bytes are only ever read as numbers, for which all
        // bit patterns are valid, or as text that is checked when it is read. Files of an index are
        // never changed in place: saving replaces the folder and leaves mapped files alone. A
        // foreign process that truncates a mapped file ends this one with SIGBUS, as with all maps.
        unsafe { Mmap::map(file) }.map(Bytes::Mapped)
    }

    /// Reads the next `len` bytes of a file into memory.
    pub(crate) fn read(file: &mut File, len: usize) -> Result<io::Result<Self>> {
        let mut memory = Memory::zeroed(len)?;
        let read = file.read_exact(&mut memory);
        Ok(read.map(|()| Bytes::Owned(memory)))
    }

    /// A copy of `bytes`.
    pub(crate) fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut memory = Memory::zeroed(bytes.len())?;
        memory.copy_from_slice(bytes);
        Ok(Bytes::Owned(memory))
    }

    /// Brings all pages of a mapped file into memory, so that no later use waits for the disk.
    pub(crate) fn prefault(&self) -> io::Result<()> {
        let Bytes::Mapped(map) = self else { return Ok(()) };
        #[cfg(target_os = "linux")]
        match map.advise(Advice::PopulateRead) {
            // Unknown before Linux 5.14.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => (),
            result => return result,
        }
        touch(map);
        Ok(())
    }
}

/// Reads a byte of each page.
fn touch(bytes: &[u8]) {
    const SMALLEST_PAGE: usize = 4096;
    for page in bytes.chunks(SMALLEST_PAGE) {
        std::hint::black_box(page[0]);
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(memory) => memory,
        }
    }
}

/// Writable memory whose first byte is at a multiple of [`ALIGNMENT`].
///
/// A search reads rows all over it: with huge pages, where the system gives them, the processor
/// finds these rows without walking page tables.
pub(crate) enum Memory {
    /// From the allocator; `len` bytes of it are used.
    Lines { lines: Box<[Line]>, len: usize },
    /// Pages, of which `len` bytes from a multiple of [`HUGE_PAGE`] on are used.
    Pages { pages: MmapMut, start: usize, len: usize },
}

/// The unit of aligned memory: one cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; ALIGNMENT]);

impl Memory {
    /// `len` zeros, or an error instead of an abort.
    pub(crate) fn zeroed(len: usize) -> Result<Self> {
        if let Some(memory) = Self::huge_pages(len) {
            return Ok(memory);
        }
        bytemuck::allocation::try_zeroed_slice_box(len.div_ceil(ALIGNMENT))
            .map(|lines| Self::Lines { lines, len })
            .map_err(|()| Error::OutOfMemory { what: "index tensors", bytes: len })
    }

    fn huge_pages(len: usize) -> Option<Self> {
        if len < HUGE_PAGE || !cfg!(target_os = "linux") {
            return None;
        }
        // Pages that aren't used are never made.
        let pages = MmapMut::map_anon(len.checked_add(HUGE_PAGE)?).ok()?;
        let start = pages.as_ptr().align_offset(HUGE_PAGE);
        #[cfg(target_os = "linux")]
        pages.advise_range(Advice::HugePage, start, len).ok()?;
        Some(Self::Pages { pages, start, len })
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lines { lines, len } => &bytemuck::cast_slice(lines)[..*len],
            Self::Pages { pages, start, len } => &pages[*start..][..*len],
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Lines { lines, len } => &mut bytemuck::cast_slice_mut(lines)[..*len],
            Self::Pages { pages, start, len } => &mut pages[*start..][..*len],
        }
    }
}

/// Zeros, or an error where there is no memory for them; `what` says for whom they are.
pub(crate) fn zeros<T: Copy + Default>(what: &'static str, len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    values.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { what, bytes })?;
    values.resize(len, T::default());
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn all_kinds_hold_the_bytes_and_are_aligned() {
        for len in [0, 1, 200, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 5] {
            let content: Vec<u8> = (0..len).map(|at| at as u8 ^ (at >> 8) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            let mapped = Bytes::map(&file).unwrap();
            file.rewind().unwrap();
            let read = Bytes::read(&mut file, content.len()).unwrap().unwrap();
            let copied = Bytes::copy_of(&content).unwrap();
            assert!(matches!(mapped, Bytes::Mapped(_)));
            for bytes in [&mapped, &read, &copied] {
                bytes.prefault().unwrap();
                assert!(**bytes == *content, "{len} bytes");
                assert_eq!(bytes.as_ptr() as usize % ALIGNMENT, 0);
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn large_memory_starts_at_a_huge_page() {
        let memory = Memory::zeroed(HUGE_PAGE).unwrap();
        assert_eq!(memory.as_ptr() as usize % HUGE_PAGE, 0);
    }

    #[test]
    fn reading_more_than_there_is_fails() {
        let mut file = tempfile::tempfile().unwrap();
        let error = Bytes::read(&mut file, 1).unwrap().err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn absurd_sizes_are_errors() {
        for len in [usize::MAX / 2, usize::MAX] {
            assert!(matches!(Memory::zeroed(len), Err(Error::OutOfMemory { .. })));
        }
    }
}

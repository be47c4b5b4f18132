//! Bytes that tensors live in: a memory-mapped file, or memory that starts at a multiple of 64.
//!
//! This is the only place that maps files.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;

use bytemuck::{Pod, Zeroable};
use memmap2::Mmap;

use crate::error::{Error, Result};

/// Every tensor starts at a multiple of this many bytes.
pub(crate) const ALIGNMENT: usize = 64;

/// The unit of aligned memory: one cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; ALIGNMENT]);

/// Read-only bytes whose first one is at a multiple of [`ALIGNMENT`].
pub(crate) enum Bytes {
    /// A whole file, mapped (page-aligned).
    Mapped(Mmap),
    /// Memory of our own; `len` bytes of it are used.
    Owned {
        /// The memory.
        lines: Box<[Line]>,
        /// Bytes in use.
        len: usize,
    },
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
        let mut lines = zeroed_lines(len)?;
        let read = file.read_exact(&mut bytemuck::cast_slice_mut(&mut lines)[..len]);
        Ok(read.map(|()| Bytes::Owned { lines, len }))
    }

    /// A copy of `bytes`.
    pub(crate) fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut lines = zeroed_lines(bytes.len())?;
        bytemuck::cast_slice_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
        Ok(Bytes::Owned { lines, len: bytes.len() })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned { lines, len } => &bytemuck::cast_slice(lines)[..*len],
        }
    }
}

/// Zeroed memory for at least `len` bytes, or an error instead of an abort.
fn zeroed_lines(len: usize) -> Result<Box<[Line]>> {
    bytemuck::allocation::try_zeroed_slice_box(len.div_ceil(ALIGNMENT))
        .map_err(|()| Error::OutOfMemory { what: "index tensors", bytes: len })
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn all_kinds_hold_the_bytes_and_are_aligned() {
        let content: Vec<u8> = (0..200).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mapped = Bytes::map(&file).unwrap();
        file.rewind().unwrap();
        let read = Bytes::read(&mut file, content.len()).unwrap().unwrap();
        let copied = Bytes::copy_of(&content).unwrap();
        assert!(matches!(mapped, Bytes::Mapped(_)));
        for bytes in [&mapped, &read, &copied] {
            assert_eq!(**bytes, *content);
            assert_eq!(bytes.as_ptr() as usize % ALIGNMENT, 0);
        }
    }

    #[test]
    fn reading_more_than_there_is_fails() {
        let mut file = tempfile::tempfile().unwrap();
        let error = Bytes::read(&mut file, 1).unwrap().err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(matches!(zeroed_lines(usize::MAX / 2), Err(Error::OutOfMemory { .. })));
    }
}

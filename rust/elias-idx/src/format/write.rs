//! Writing an index: each of its files piece by piece, to a folder or to memory, hashed on the way.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::manifest::{self, Dims, FusionSizes, Manifest, TensorEntry};
use super::publish::{Staging, Target};
use super::read::Files;
use super::schema::{self, Element};
use super::{MANIFEST_FILE, hex, safetensors};
use crate::error::{Error, FormatError, Result};
use crate::format::manifest::Defaults;
use crate::storage::{Bytes, Memory};

/// Where a new index goes.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// Memory.
    Memory,
    /// A folder, from which it is mapped. The folder appears when it is whole, or not at all.
    Folder {
        /// The folder.
        path: &'a Path,
        /// Whether an index that is there may be replaced.
        overwrite: bool,
    },
}

/// The files of an index in the making. One that isn't finished leaves nothing behind.
pub(crate) struct Store {
    place: Place,
    entries: BTreeMap<String, TensorEntry>,
}

enum Place {
    Memory(BTreeMap<String, Arc<Bytes>>),
    Folder {
        /// As the caller calls it.
        path: PathBuf,
        staging: Staging,
    },
}

/// A finished index.
pub(crate) enum Stored {
    Memory(Box<Files>),
    Folder(PathBuf),
}

impl Store {
    /// # Errors
    /// [`Error::Io`] where the folder can't be made, or what is there must not be replaced.
    pub(crate) fn new(destination: Destination<'_>) -> Result<Self> {
        let place = match destination {
            Destination::Memory => Place::Memory(BTreeMap::new()),
            Destination::Folder { path, overwrite } => {
                let target = Target::resolve(path, overwrite)?;
                check_replaceable(&target)?;
                Place::Folder { path: path.to_path_buf(), staging: Staging::new(target)? }
            }
        };
        Ok(Self { place, entries: BTreeMap::new() })
    }

    /// Begins a tensor, whose elements are then pushed in order; [`Store::add`] ends it.
    pub(crate) fn tensor<T: Element>(
        &self,
        name: &'static str,
        shape: &[usize],
    ) -> Result<TensorWriter> {
        let data_bytes =
            shape.iter().try_fold(size_of::<T>(), |bytes, &len| bytes.checked_mul(len));
        let too_large = || Error::OutOfMemory { what: "index tensors", bytes: usize::MAX };
        let data_bytes = data_bytes.ok_or_else(too_large)?;
        let header = safetensors::header(name, T::DTYPE, shape, data_bytes);
        let file_bytes = data_bytes.checked_add(header.len()).ok_or_else(too_large)?;
        let mut file = self.create(&schema::file_name(name), file_bytes)?;
        file.write(&header)?;
        Ok(TensorWriter { name, dtype: T::DTYPE, shape: shape.to_vec(), file, missing: data_bytes })
    }

    /// Ends a tensor.
    pub(crate) fn add(&mut self, tensor: TensorWriter) -> Result<()> {
        assert_eq!(tensor.missing, 0, "{} isn't whole", tensor.name);
        let entry = TensorEntry {
            file: schema::file_name(tensor.name),
            dtype: tensor.dtype.to_owned(),
            shape: tensor.shape,
            bytes: 0,
            sha256: String::new(),
        };
        self.end(tensor.name, tensor.file, entry)
    }

    /// A whole tensor.
    pub(crate) fn put<T: Element>(
        &mut self,
        name: &'static str,
        shape: &[usize],
        values: &[T],
    ) -> Result<()> {
        let mut tensor = self.tensor::<T>(name, shape)?;
        tensor.push(values)?;
        self.add(tensor)
    }

    /// A copy of another index's tensor.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] where its file is damaged.
    pub(crate) fn copy(&mut self, files: &Files, name: &str) -> Result<()> {
        let (entry, bytes) = files.file(name);
        let mut file = self.create(&entry.file, bytes.len())?;
        file.write(bytes)?;
        self.end(name, file, entry.clone())?;
        if self.entries[name] == *entry {
            return Ok(());
        }
        Err(files.error(&entry.file, FormatError::Checksum))
    }

    /// Another index's tensor: its very bytes in memory, mapped or not, unlike [`Store::copy`].
    pub(crate) fn share(&mut self, files: &Files, name: &str) -> Result<()> {
        let Place::Memory(held) = &mut self.place else { return self.copy(files, name) };
        held.insert(name.to_owned(), files.held(name));
        self.entries.insert(name.to_owned(), files.file(name).0.clone());
        Ok(())
    }

    /// Writes the manifest and puts a folder in its place.
    pub(crate) fn finish(
        mut self,
        dims: Dims,
        defaults: Defaults,
        fusion: Option<FusionSizes>,
        required_feature: Option<&str>,
    ) -> Result<Stored> {
        let entries = std::mem::take(&mut self.entries);
        self.publish(Manifest::new(dims, defaults, fusion, required_feature, entries).to_bytes())
    }

    /// [`Store::finish`] with the manifest of the index that all files were copied from.
    pub(crate) fn publish(self, manifest: Vec<u8>) -> Result<Stored> {
        if let Place::Folder { .. } = self.place {
            let mut file = self.create(MANIFEST_FILE, manifest.len())?;
            file.write(&manifest)?;
            file.end()?;
        }
        match self.place {
            Place::Memory(held) => Ok(Stored::Memory(Box::new(Files::from_held(manifest, held)?))),
            Place::Folder { path, staging } => {
                // Others may have put files there while this was written.
                check_replaceable(staging.target())?;
                staging.publish()?;
                Ok(Stored::Folder(path))
            }
        }
    }

    fn create(&self, name: &str, bytes: usize) -> Result<NewFile> {
        let output = match &self.place {
            Place::Memory(_) => Output::Memory { memory: Memory::zeroed(bytes)?, written: 0 },
            Place::Folder { path, staging } => {
                let created = File::create_new(staging.path().join(name));
                let file = created.map_err(|error| Error::io(path, error))?;
                // Rows may come one by one.
                Output::Disk { file: BufWriter::with_capacity(1 << 16, file), folder: path.clone() }
            }
        };
        Ok(NewFile { output, hasher: Sha256::new(), bytes: 0 })
    }

    fn end(&mut self, name: &str, file: NewFile, entry: TensorEntry) -> Result<()> {
        let bytes = file.bytes;
        let (sha256, memory) = file.end()?;
        if let (Place::Memory(held), Some(memory)) = (&mut self.place, memory) {
            held.insert(name.to_owned(), Arc::new(Bytes::Owned(memory)));
        }
        self.entries.insert(name.to_owned(), TensorEntry { bytes, sha256, ..entry });
        Ok(())
    }
}

/// A tensor in the making.
pub(crate) struct TensorWriter {
    name: &'static str,
    dtype: &'static str,
    shape: Vec<usize>,
    file: NewFile,
    /// Bytes to come.
    missing: usize,
}

impl TensorWriter {
    /// Appends elements, of the tensor's dtype and no more than its shape has.
    pub(crate) fn push<T: Element>(&mut self, values: &[T]) -> Result<()> {
        assert_eq!(T::DTYPE, self.dtype);
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.missing = self.missing.checked_sub(bytes.len()).expect("no more than the shape has");
        self.file.write(bytes)
    }
}

/// A file in the making.
struct NewFile {
    output: Output,
    hasher: Sha256,
    bytes: u64,
}

enum Output {
    Memory { memory: Memory, written: usize },
    Disk { file: BufWriter<File>, folder: PathBuf },
}

impl NewFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        // In pieces that are still in the cache when they are written after they were hashed.
        for piece in bytes.chunks(1 << 17) {
            self.hasher.update(piece);
            match &mut self.output {
                Output::Memory { memory, written } => {
                    memory[*written..][..piece.len()].copy_from_slice(piece);
                    *written += piece.len();
                }
                Output::Disk { file, folder } => {
                    file.write_all(piece).map_err(|error| Error::io(folder, error))?;
                }
            }
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The file's checksum, and its bytes if they are in memory; on disk they are forced there.
    fn end(self) -> Result<(String, Option<Memory>)> {
        let memory = match self.output {
            Output::Memory { memory, .. } => Some(memory),
            Output::Disk { file, folder } => {
                let file = file.into_inner().map_err(IntoInnerError::into_error);
                let synced = file.and_then(|file| file.sync_all());
                synced.map_err(|error| Error::io(&folder, error))?;
                None
            }
        };
        Ok((hex(self.hasher), memory))
    }
}

/// Refuses to replace a folder that isn't an index, or that holds anything else as well.
fn check_replaceable(target: &Target) -> Result<()> {
    if !target.exists() {
        return Ok(());
    }
    let folder = target.path();
    let refuse = |message: String| {
        Err(Error::io(folder, io::Error::new(io::ErrorKind::AlreadyExists, message)))
    };
    let manifest = match fs::read(folder.join(MANIFEST_FILE)) {
        Ok(bytes) if manifest::has_prefix(&bytes) => bytes,
        Ok(_) => return refuse("is not an elias_idx index: its index.json is another's".into()),
        Err(_) => return refuse("is not an elias_idx index: it has no index.json".into()),
    };
    let mut files: Vec<String> = schema::tensors().map(schema::file_name).collect();
    files.push(MANIFEST_FILE.to_owned());
    if let Ok(manifest) = Manifest::parse(&manifest) {
        files.extend(manifest.tensors.into_values().map(|entry| entry.file));
    }
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let entry = entry.map_err(|error| Error::io(folder, error))?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let name = entry.file_name();
        if !is_file || !files.iter().any(|file| name == file.as_str()) {
            return refuse(format!(
                "holds {name:?}, which is no part of an index: move it away first"
            ));
        }
    }
    Ok(())
}

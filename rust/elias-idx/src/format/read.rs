//! Reading an index: manifest first, then each file, compared to what the manifest says of it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::manifest::{self, Manifest, TensorEntry};
use super::schema::Element;
use super::{MANIFEST_FILE, safetensors, sha256_hex};
use crate::error::{Error, FormatError, Result};
use crate::matrix::Tensor;
use crate::storage::{Bytes, Loading};

/// The files of an index as they were opened, kept for [`Files::verify`].
pub(crate) struct Files {
    /// Where the index came from, for messages: a folder's path and a separator, or nothing.
    location: String,
    pub(crate) manifest: Manifest,
    manifest_bytes: Vec<u8>,
    held: BTreeMap<String, Arc<Bytes>>,
}

/// A folder, held so that no later one gets its number.
struct HeldFolder(#[cfg(unix)] Option<File>);

impl HeldFolder {
    #[cfg(unix)]
    fn at(path: &Path) -> Self {
        Self(File::open(path).ok())
    }

    /// Whether the path names it still, as far as that can be told.
    #[cfg(unix)]
    fn is_at(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Some(Ok(own)) = self.0.as_ref().map(File::metadata) else { return true };
        let number = |folder: &fs::Metadata| (folder.dev(), folder.ino());
        fs::metadata(path).is_ok_and(|now| number(&now) == number(&own))
    }

    #[cfg(not(unix))]
    fn at(_path: &Path) -> Self {
        Self()
    }

    #[cfg(not(unix))]
    fn is_at(&self, _path: &Path) -> bool {
        true
    }
}

impl Files {
    /// Opens a folder's files, mapped or read into memory.
    pub(crate) fn open(folder: &Path, loading: Loading) -> Result<Self> {
        let location = format!("{}{}", folder.display(), std::path::MAIN_SEPARATOR);
        loop {
            let held = HeldFolder::at(folder);
            let manifest = read_manifest(folder)?;
            let files = Self::collect(location.clone(), manifest.clone(), |name, size| {
                open_file(&folder.join(name), size, loading)
            });
            // A save may have replaced the folder meanwhile: these would be files of two indexes.
            if held.is_at(folder) && read_manifest(folder)? == manifest {
                return files;
            }
        }
    }

    /// Copies files that are in memory.
    pub(crate) fn from_memory<B: AsRef<[u8]>>(files: &BTreeMap<String, B>) -> Result<Self> {
        let find = |name: &str| {
            let file = files.get(name).map(AsRef::as_ref);
            file.ok_or_else(|| Error::format(name, FormatError::Missing))
        };
        Self::collect(String::new(), find(MANIFEST_FILE)?.to_vec(), |name, size| {
            let bytes = find(name)?;
            check_size(name, size, bytes.len() as u64)?;
            Bytes::copy_of(bytes)
        })
    }

    /// Takes files that were just written to memory, by the tensors' names.
    pub(crate) fn from_held(
        manifest_bytes: Vec<u8>,
        held: BTreeMap<String, Arc<Bytes>>,
    ) -> Result<Self> {
        let manifest =
            Manifest::parse(&manifest_bytes).map_err(|kind| Error::format(MANIFEST_FILE, kind))?;
        Ok(Self { location: String::new(), manifest, manifest_bytes, held })
    }

    fn collect(
        location: String,
        manifest_bytes: Vec<u8>,
        open: impl Fn(&str, u64) -> Result<Bytes>,
    ) -> Result<Self> {
        let manifest = Manifest::parse(&manifest_bytes)
            .map_err(|kind| Error::format(format!("{location}{MANIFEST_FILE}"), kind))?;
        let mut held = BTreeMap::new();
        for (name, entry) in &manifest.tensors {
            held.insert(name.clone(), Arc::new(open(&entry.file, entry.bytes)?));
        }
        Ok(Self { location, manifest, manifest_bytes, held })
    }

    /// The shape that the manifest gives a tensor, if there is such a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.manifest.tensors.get(name).map(|entry| &entry.shape[..])
    }

    /// The dtype that the manifest gives a tensor, if there is such a tensor.
    pub(crate) fn dtype(&self, name: &str) -> Option<&str> {
        self.manifest.tensors.get(name).map(|entry| &entry.dtype[..])
    }

    /// The first length of that shape, 0 if there is none; a tensor's real shape is checked later.
    pub(crate) fn len_of(&self, name: &str) -> usize {
        self.shape(name).and_then(<[usize]>::first).copied().unwrap_or(0)
    }

    /// The bytes of `index.json`.
    pub(crate) fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// All tensors' names, those that this library doesn't know included.
    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(String::as_str)
    }

    /// A tensor's whole file, and what the manifest says of it.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub(crate) fn file(&self, name: &str) -> (&TensorEntry, &[u8]) {
        (&self.manifest.tensors[name], &self.held[name])
    }

    /// A tensor's whole file, shared.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub(crate) fn held(&self, name: &str) -> Arc<Bytes> {
        self.held[name].clone()
    }

    /// Bytes of a tensor, its file's header not counted.
    pub(crate) fn data_bytes(&self, name: &str) -> Option<usize> {
        let entry = self.manifest.tensors.get(name)?;
        safetensors::data_start(self.held.get(name)?, name, &entry.dtype, &entry.shape)
            .ok()
            .map(|start| self.held[name].len() - start)
    }

    /// A tensor, which must have this shape and the dtype of `T`.
    pub(crate) fn tensor<T: Element>(&self, name: &str, shape: &[usize]) -> Result<Tensor<T>> {
        let (Some(entry), Some(bytes)) = (self.manifest.tensors.get(name), self.held.get(name))
        else {
            let message = format!("it lacks the tensor '{name}'");
            return Err(self.error(MANIFEST_FILE, FormatError::Invalid(message)));
        };
        if entry.dtype != T::DTYPE || entry.shape != shape {
            let (found, dtype) = (&entry.shape, T::DTYPE);
            let message =
                format!("tensor '{name}' is {} {found:?}, not {dtype} {shape:?}", entry.dtype);
            return Err(self.error(MANIFEST_FILE, FormatError::Invalid(message)));
        }
        let start = safetensors::data_start(bytes, name, T::DTYPE, shape)
            .map_err(|kind| self.error(&entry.file, kind))?;
        let len = shape.iter().product(); // the safetensors header was found to fit the file
        Tensor::new(bytes.clone(), start, len)
            .ok_or_else(|| self.invalid(name, "the tensor exceeds the file"))
    }

    /// Recomputes all checksums.
    pub(crate) fn verify(&self) -> Result<()> {
        manifest::check_checksum(&self.manifest_bytes)
            .map_err(|kind| self.error(MANIFEST_FILE, kind))?;
        self.tensor_names().try_for_each(|name| self.verify_tensor(name))
    }

    /// Recomputes the checksum of a tensor's file.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub(crate) fn verify_tensor(&self, name: &str) -> Result<()> {
        let (entry, bytes) = self.file(name);
        if sha256_hex(&[bytes]) == entry.sha256 {
            return Ok(());
        }
        Err(self.error(&entry.file, FormatError::Checksum))
    }

    /// An error in one of the files.
    pub(crate) fn error(&self, file: &str, kind: FormatError) -> Error {
        Error::format(format!("{}{file}", self.location), kind)
    }

    /// An error in the contents of a tensor's file.
    pub(crate) fn invalid(&self, tensor: &str, message: impl Display) -> Error {
        let file = self.manifest.tensors.get(tensor).map_or(tensor, |entry| &entry.file);
        self.error(file, FormatError::Invalid(message.to_string()))
    }
}

fn read_manifest(folder: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(folder).map_err(|error| Error::io(folder, error))?;
    if !metadata.is_dir() {
        let message = "is a file: an index is a folder";
        return Err(Error::io(folder, io::Error::new(io::ErrorKind::NotADirectory, message)));
    }
    let path = folder.join(MANIFEST_FILE);
    let mut file = match open_regular(&path) {
        Ok((file, _)) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reason = format!("the folder has no {MANIFEST_FILE}");
            return Err(Error::format(folder.display().to_string(), FormatError::Foreign(reason)));
        }
        Err(error) => return Err(Error::io(&path, error)),
    };
    let mut bytes = Vec::new();
    let limit = manifest::MAX_BYTES;
    let read = file.by_ref().take(limit + 1).read_to_end(&mut bytes);
    if read.map_err(|error| Error::io(&path, error))? as u64 > limit {
        let kind = FormatError::Foreign(format!("{MANIFEST_FILE} exceeds {limit} bytes"));
        return Err(Error::format(path.display().to_string(), kind));
    }
    Ok(bytes)
}

fn open_file(path: &Path, size: u64, loading: Loading) -> Result<Bytes> {
    let location = path.display().to_string();
    let (mut file, found) = match open_regular(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::format(location, FormatError::Missing));
        }
        Err(error) => return Err(Error::io(path, error)),
    };
    check_size(&location, size, found)?;
    let bytes = match loading {
        Loading::Map => Bytes::map(&file),
        Loading::Prefault => Bytes::map(&file).and_then(|bytes| bytes.prefault().map(|()| bytes)),
        Loading::Read => {
            let len = usize::try_from(size)
                .map_err(|_| Error::OutOfMemory { what: "index tensors", bytes: usize::MAX })?;
            Bytes::read(&mut file, len)?
        }
    };
    bytes.map_err(|error| Error::io(path, error))
}

/// Opens a regular file and gives its size. Others (pipes, devices) could block.
fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is not a regular file"));
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn check_size(location: &str, expected: u64, found: u64) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::format(location, FormatError::WrongSize { expected, found }))
}

//! Writing an index: its files one by one, into a folder or into memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::manifest::{self, Dims, Manifest, TensorEntry};
use super::publish::{self, Target};
use super::schema::{self, NamedTensor};
use super::{MANIFEST_FILE, safetensors, sha256_hex};
use crate::error::{Error, Result};
use crate::index::Defaults;

/// Gives each file of an index to `emit` (its name, its bytes in parts), `index.json` last.
pub(crate) fn emit_files(
    tensors: &[NamedTensor<'_>],
    dims: Dims,
    defaults: Defaults,
    mut emit: impl FnMut(&str, &[&[u8]]) -> Result<()>,
) -> Result<()> {
    let mut entries = BTreeMap::new();
    for tensor in tensors {
        let header = safetensors::header(tensor);
        let parts = [&header[..], tensor.bytes];
        emit(&tensor.file_name(), &parts)?;
        let entry = TensorEntry {
            file: tensor.file_name(),
            dtype: tensor.dtype.to_owned(),
            shape: tensor.shape.clone(),
            bytes: (header.len() + tensor.bytes.len()) as u64,
            sha256: sha256_hex(&parts),
        };
        entries.insert(tensor.name.to_owned(), entry);
    }
    emit(MANIFEST_FILE, &[&Manifest::new(dims, defaults, entries).to_bytes()])
}

/// Writes an index folder beside its target and swaps it in.
pub(crate) fn save(
    tensors: &[NamedTensor<'_>],
    dims: Dims,
    defaults: Defaults,
    path: &Path,
    overwrite: bool,
) -> Result<()> {
    let target = Target::resolve(path, overwrite)?;
    if target.exists() {
        check_replaceable(target.path())?;
    }
    publish::publish(&target, |folder| {
        emit_files(tensors, dims, defaults, |name, parts| {
            write_file(&folder.join(name), parts).map_err(|error| Error::io(path, error))
        })
    })
}

fn write_file(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Refuses to replace a folder that isn't an index, or that holds anything else as well.
fn check_replaceable(folder: &Path) -> Result<()> {
    let refuse = |message: String| {
        Err(Error::io(folder, io::Error::new(io::ErrorKind::AlreadyExists, message)))
    };
    let manifest = match fs::read(folder.join(MANIFEST_FILE)) {
        Ok(bytes) if manifest::has_prefix(&bytes) => bytes,
        Ok(_) => return refuse("is not an elias_idx index: its index.json is another's".into()),
        Err(_) => return refuse("is not an elias_idx index: it has no index.json".into()),
    };
    let mut files: Vec<String> =
        schema::TENSORS.iter().map(|name| schema::file_name(name)).collect();
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

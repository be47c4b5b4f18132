//! The index itself: its parts, and how it is loaded, saved and verified.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::adjacency::Adjacency;
use crate::error::{ArgumentError, FormatError, Result};
use crate::format::MANIFEST_FILE;
use crate::format::manifest::Dims;
use crate::format::read::Files;
use crate::format::schema::{self, NamedTensor};
use crate::format::write;
use crate::label_names::LabelNames;
use crate::matrix::{Matrix, Tensor, check_finite};
use crate::panels::Panels;
use crate::quantize::CodedRows;

/// What a search uses unless told otherwise, and the scale α of the cluster scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Defaults {
    /// α: cluster scores are min(1, α · softmax). Finite and positive.
    pub alpha: f64,
    /// B: clusters kept, at least 1.
    pub beam_size: usize,
    /// S: labels kept before the label classifiers, at least 1.
    pub shortlist_size: usize,
}

impl Default for Defaults {
    /// The paper's: α 10, B 20, S 2,000.
    fn default() -> Self {
        Self { alpha: 10.0, beam_size: 20, shortlist_size: 2000 }
    }
}

impl Defaults {
    pub(crate) fn check(&self) -> Result<(), ArgumentError> {
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(ArgumentError::BadAlpha(self.alpha));
        }
        check_positive("beam_size", self.beam_size)?;
        check_positive("shortlist_size", self.shortlist_size)
    }
}

pub(crate) fn check_positive(name: &'static str, value: usize) -> Result<(), ArgumentError> {
    if value == 0 { Err(ArgumentError::Zero { name }) } else { Ok(()) }
}

/// How an index's files are brought into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    /// Mapped: instantly, and pages are read when they are first used.
    Map,
    /// Read whole.
    Read,
}

/// The folder that an index was loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The folder as given, made absolute.
    pub path: PathBuf,
    /// The checksum of its `index.json`, which covers those of all other files.
    pub sha256: String,
    /// How it was loaded.
    pub loading: Loading,
}

/// A learned search index over labels; immutable, and shared freely between threads.
pub struct Index {
    pub(crate) dims: Dims,
    pub(crate) defaults: Defaults,
    pub(crate) cluster_weights: Matrix,
    pub(crate) cluster_bias: Tensor<f32>,
    pub(crate) adjacency: Adjacency,
    pub(crate) label_weights: Matrix,
    pub(crate) label_bias: Tensor<f32>,
    pub(crate) label_projection: Option<Matrix>,
    pub(crate) label_names: Option<LabelNames>,
    pub(crate) cluster_panels: Option<Panels>,
    pub(crate) label_codes: Option<CodedRows>,
    files: Option<Files>,
    source: Option<Source>,
}

/// The tensors of an index and its numbers, checked by whoever makes one.
pub(crate) struct Checked {
    pub(crate) dims: Dims,
    pub(crate) defaults: Defaults,
    pub(crate) cluster_weights: Matrix,
    pub(crate) cluster_bias: Tensor<f32>,
    pub(crate) adjacency: Adjacency,
    pub(crate) label_weights: Matrix,
    pub(crate) label_bias: Tensor<f32>,
    pub(crate) label_projection: Option<Matrix>,
    pub(crate) label_names: Option<LabelNames>,
}

impl Index {
    pub(crate) fn from_checked(parts: Checked) -> Self {
        // TODO(storage): stored, optional, and label_weights optional too.
        let cluster =
            CodedRows::of(parts.cluster_weights.view(), parts.cluster_bias.as_slice()).unwrap();
        let cluster_panels = Some(Panels::pack(cluster.codes.view(), cluster.meta).unwrap());
        let label_codes =
            Some(CodedRows::of(parts.label_weights.view(), parts.label_bias.as_slice()).unwrap());
        Self {
            cluster_panels,
            label_codes,
            dims: parts.dims,
            defaults: parts.defaults,
            cluster_weights: parts.cluster_weights,
            cluster_bias: parts.cluster_bias,
            adjacency: parts.adjacency,
            label_weights: parts.label_weights,
            label_bias: parts.label_bias,
            label_projection: parts.label_projection,
            label_names: parts.label_names,
            files: None,
            source: None,
        }
    }

    /// Opens an index folder. Sizes, headers, shapes and the whole adjacency are checked; the
    /// classifiers and checksums of tensors are not, see [`Index::verify`].
    ///
    /// Mapped files must not be changed in place by others; [`Index::save`] never does so.
    ///
    /// # Errors
    /// [`crate::Error::Format`] for anything but a whole index of a known version,
    /// [`crate::Error::Io`] when the file system refuses.
    pub fn load(path: impl AsRef<Path>, loading: Loading) -> Result<Self> {
        let path = path.as_ref();
        let files = Files::open(path, loading)?;
        let source = Source {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
            sha256: files.manifest.sha256().to_owned(),
            loading,
        };
        Ok(Self { source: Some(source), ..Self::from_open_files(files)? })
    }

    /// Opens an index whose files are in memory, by file name; the bytes are copied.
    ///
    /// # Errors
    /// As [`Index::load`].
    pub fn from_files<B: AsRef<[u8]>>(files: &BTreeMap<String, B>) -> Result<Self> {
        Self::from_open_files(Files::from_memory(files)?)
    }

    fn from_open_files(files: Files) -> Result<Self> {
        let Dims { num_labels, num_clusters, dim, label_dim } = files.manifest.dims;
        let matrix = |name, rows, cols| -> Result<Matrix> {
            Ok(Matrix::new(files.tensor(name, &[rows, cols])?, cols))
        };
        let label_projection = match files.shape(schema::LABEL_PROJECTION) {
            Some(_) => Some(matrix(schema::LABEL_PROJECTION, label_dim, dim)?),
            None if label_dim == dim => None,
            None => {
                let message = format!("label_dim {label_dim} is not dim {dim}, and there is no T");
                return Err(files.error(MANIFEST_FILE, FormatError::Invalid(message)));
            }
        };
        let parts = Checked {
            dims: files.manifest.dims,
            defaults: files.manifest.defaults,
            cluster_weights: matrix(schema::CLUSTER_WEIGHTS, num_clusters, dim)?,
            cluster_bias: bias(&files, schema::CLUSTER_BIAS, num_clusters)?,
            adjacency: adjacency(&files)?,
            label_weights: matrix(schema::LABEL_WEIGHTS, num_labels, label_dim)?,
            label_bias: bias(&files, schema::LABEL_BIAS, num_labels)?,
            label_projection,
            label_names: label_names(&files)?,
        };
        Ok(Self { files: Some(files), ..Self::from_checked(parts) })
    }

    /// Writes the index to a folder: beside its target first, then moved there at once. The folder
    /// that this index is mapped from may be overwritten; this index goes on working.
    ///
    /// # Errors
    /// [`crate::Error::Io`], of kind `AlreadyExists` when something is there and `overwrite` is not
    /// set, or when it is set and the folder there is no index or holds more than one.
    pub fn save(&self, path: impl AsRef<Path>, overwrite: bool) -> Result<()> {
        write::save(&self.tensors(), self.dims, self.defaults, path.as_ref(), overwrite)
    }

    /// The files that [`Index::save`] would write, by name.
    ///
    /// # Errors
    /// None but that of memory.
    pub fn to_files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        write::emit_files(&self.tensors(), self.dims, self.defaults, |name, parts| {
            files.insert(name.to_owned(), parts.concat());
            Ok(())
        })?;
        Ok(files)
    }

    /// Recomputes the checksums of all files as they are mapped or held. An index that was built
    /// has none and is fine.
    ///
    /// # Errors
    /// [`crate::Error::Format`] naming the first damaged file.
    pub fn verify(&self) -> Result<()> {
        self.files.as_ref().map_or(Ok(()), Files::verify)
    }

    fn tensors(&self) -> Vec<NamedTensor<'_>> {
        let Dims { num_labels, num_clusters, dim, label_dim } = self.dims;
        let edges = self.adjacency.labels.as_slice().len();
        let mut tensors = vec![
            NamedTensor::new(schema::CLUSTER_WEIGHTS, &[num_clusters, dim], self.cluster_weights()),
            NamedTensor::new(schema::CLUSTER_BIAS, &[num_clusters], self.cluster_bias()),
            NamedTensor::new(schema::ADJACENCY_OFFSETS, &[num_clusters + 1], self.adjacency().0),
            NamedTensor::new(schema::ADJACENCY_LABELS, &[edges], self.adjacency().1),
            NamedTensor::new(schema::ADJACENCY_WEIGHTS, &[edges], self.adjacency().2),
            NamedTensor::new(schema::LABEL_WEIGHTS, &[num_labels, label_dim], self.label_weights()),
            NamedTensor::new(schema::LABEL_BIAS, &[num_labels], self.label_bias()),
        ];
        if let Some(projection) = self.label_projection() {
            tensors.push(NamedTensor::new(schema::LABEL_PROJECTION, &[label_dim, dim], projection));
        }
        if let Some(names) = &self.label_names {
            let (offsets, bytes) = (names.offsets.as_slice(), names.bytes.as_slice());
            let shape = [num_labels + 1];
            tensors.push(NamedTensor::new(schema::LABEL_NAME_OFFSETS, &shape, offsets));
            tensors.push(NamedTensor::new(schema::LABEL_NAME_BYTES, &[bytes.len()], bytes));
        }
        tensors
    }
}

/// What an index consists of.
impl Index {
    /// L.
    #[must_use]
    pub fn num_labels(&self) -> usize {
        self.dims.num_labels
    }

    /// C.
    #[must_use]
    pub fn num_clusters(&self) -> usize {
        self.dims.num_clusters
    }

    /// D, the size of a query embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dims.dim
    }

    /// D', the size of a label's classifier; D without a projection.
    #[must_use]
    pub fn label_dim(&self) -> usize {
        self.dims.label_dim
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.bytes.len()).sum()
    }

    /// Where the index was loaded from; None for one that was built or came from memory.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// α, and the sizes that a search uses unless told otherwise.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// `W_C` \[C, D\].
    #[must_use]
    pub fn cluster_weights(&self) -> &[f32] {
        self.cluster_weights.tensor().as_slice()
    }

    /// `b_C` \[C\].
    #[must_use]
    pub fn cluster_bias(&self) -> &[f32] {
        self.cluster_bias.as_slice()
    }

    /// A \[C, L\] as CSR: offsets \[C+1\], labels \[nnz\], weights \[nnz\]. Each row is by
    /// descending weight, then label.
    #[must_use]
    pub fn adjacency(&self) -> (&[u64], &[u32], &[f32]) {
        let adjacency = &self.adjacency;
        (adjacency.offsets.as_slice(), adjacency.labels.as_slice(), adjacency.weights.as_slice())
    }

    /// `W_L` \[L, D'\].
    #[must_use]
    pub fn label_weights(&self) -> &[f32] {
        self.label_weights.tensor().as_slice()
    }

    /// `b_L` \[L\].
    #[must_use]
    pub fn label_bias(&self) -> &[f32] {
        self.label_bias.as_slice()
    }

    /// T \[D', D\].
    #[must_use]
    pub fn label_projection(&self) -> Option<&[f32]> {
        self.label_projection.as_ref().map(|matrix| matrix.tensor().as_slice())
    }

    /// The labels' names.
    #[must_use]
    pub fn label_names(&self) -> Option<&LabelNames> {
        self.label_names.as_ref()
    }
}

fn bias(files: &Files, name: &'static str, len: usize) -> Result<Tensor<f32>> {
    let tensor: Tensor<f32> = files.tensor(name, &[len])?;
    check_finite(name, tensor.as_slice(), None).map_err(|error| files.invalid(name, error))?;
    Ok(tensor)
}

fn adjacency(files: &Files) -> Result<Adjacency> {
    let Dims { num_labels, num_clusters, .. } = files.manifest.dims;
    let edges = files.len_of(schema::ADJACENCY_LABELS);
    let adjacency = Adjacency {
        offsets: files.tensor(schema::ADJACENCY_OFFSETS, &[num_clusters + 1])?,
        labels: files.tensor(schema::ADJACENCY_LABELS, &[edges])?,
        weights: files.tensor(schema::ADJACENCY_WEIGHTS, &[edges])?,
    };
    adjacency.check(num_labels).map_err(|(tensor, message)| files.invalid(tensor, message))?;
    Ok(adjacency)
}

fn label_names(files: &Files) -> Result<Option<LabelNames>> {
    if files.shape(schema::LABEL_NAME_OFFSETS).is_none() {
        return Ok(None);
    }
    let names = LabelNames {
        offsets: files.tensor(schema::LABEL_NAME_OFFSETS, &[files.manifest.dims.num_labels + 1])?,
        bytes: files.tensor(schema::LABEL_NAME_BYTES, &[files.len_of(schema::LABEL_NAME_BYTES)])?,
    };
    names.check_ends().map_err(|message| files.invalid(schema::LABEL_NAME_OFFSETS, message))?;
    Ok(Some(names))
}

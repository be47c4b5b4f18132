//! The index itself: its parts, and how it is loaded, saved and verified.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use crate::adjacency::Adjacency;
use crate::by_label::ByLabel;
use crate::error::{ArgumentError, FormatError, Result};
use crate::format::MANIFEST_FILE;
use crate::format::manifest::{Defaults, Dims};
use crate::format::read::Files;
use crate::format::schema::{self, Element};
use crate::format::write::{Destination, Store};
use crate::fusion::Fusion;
use crate::label_names::LabelNames;
use crate::label_rows::{Dtype, ExactRows, FloatRows, LabelWeights};
use crate::lazy::Lazy;
use crate::matrix::{Matrix, Tensor, check_finite};
use crate::panels::{self, Panels};
use crate::quantize::{CodedRows, MAX_COLS, RowMeta};
use crate::search::Workers;
use crate::storage::Loading;

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
    /// Exact; None where there are codes alone.
    pub(crate) label_weights: Option<FloatRows>,
    pub(crate) label_bias: Tensor<f32>,
    pub(crate) label_projection: Option<Matrix>,
    pub(crate) label_names: Option<LabelNames>,
    pub(crate) cluster_panels: Option<Panels>,
    pub(crate) label_codes: Option<CodedRows>,
    /// For searches with sparse features.
    pub(crate) fusion: Option<Fusion>,
    /// Memory for searches.
    pub(crate) workers: Workers,
    pub(crate) by_label: Lazy<ByLabel>,
    /// What all of these lie in.
    files: Files,
    source: Option<Source>,
}

impl Index {
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

    pub(crate) fn from_open_files(files: Files) -> Result<Self> {
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
        let label_codes = label_codes(&files)?;
        Ok(Self {
            workers: Workers::default(),
            by_label: Lazy::default(),
            dims: files.manifest.dims,
            defaults: files.manifest.defaults,
            cluster_weights: matrix(schema::CLUSTER_WEIGHTS, num_clusters, dim)?,
            cluster_panels: cluster_panels(&files)?,
            cluster_bias: bias(&files, schema::CLUSTER_BIAS, num_clusters)?,
            adjacency: adjacency(&files)?,
            label_weights: label_weights(&files, label_codes.is_some())?,
            label_codes,
            label_bias: bias(&files, schema::LABEL_BIAS, num_labels)?,
            label_projection,
            label_names: label_names(&files)?,
            fusion: Fusion::open(&files)?,
            files,
            source: None,
        })
    }

    /// Writes the index to a folder: beside its target first, then moved there at once. The folder
    /// that this index is mapped from may be overwritten; this index goes on working.
    ///
    /// # Errors
    /// [`crate::Error::Io`], of kind `AlreadyExists` when something is there and `overwrite` is not
    /// set, or when it is set and the folder there is no index or holds more than one;
    /// [`crate::Error::Format`] when this index's own files are damaged.
    pub fn save(&self, path: impl AsRef<Path>, overwrite: bool) -> Result<()> {
        let destination = Destination::Folder { path: path.as_ref(), overwrite };
        let mut store = Store::new(destination)?;
        for name in self.files.tensor_names() {
            store.copy(&self.files, name)?;
        }
        store.publish(self.files.manifest_bytes().to_vec()).map(drop)
    }

    /// The files that [`Index::save`] writes, by name.
    #[must_use]
    pub fn to_files(&self) -> BTreeMap<String, Vec<u8>> {
        let tensors = self.files.tensor_names().map(|name| {
            let (entry, bytes) = self.files.file(name);
            (entry.file.clone(), bytes.to_vec())
        });
        let manifest = (MANIFEST_FILE.to_owned(), self.files.manifest_bytes().to_vec());
        tensors.chain([manifest]).collect()
    }

    /// Recomputes the checksums of all files as they are mapped or held.
    ///
    /// # Errors
    /// [`crate::Error::Format`] naming the first damaged file.
    pub fn verify(&self) -> Result<()> {
        self.files.verify()
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// The checksum that covers all of the index.
    pub(crate) fn sha256(&self) -> &str {
        self.files.manifest.sha256()
    }

    pub(crate) fn dims(&self) -> Dims {
        self.dims
    }

    /// The label rows that count as exact.
    pub(crate) fn exact_rows(&self) -> ExactRows<'_> {
        let float = self.label_weights.as_ref().map(FloatRows::view);
        let coded = || self.label_codes.as_ref().map(|codes| ExactRows::Int8(codes.view()));
        float.or_else(coded).expect("an index has at least one of the two")
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

    /// Bytes of each tensor, by its name in the format's specification.
    #[must_use]
    pub fn memory(&self) -> BTreeMap<&'static str, usize> {
        let known = schema::tensors();
        known.filter_map(|name| self.files.data_bytes(name).map(|bytes| (name, bytes))).collect()
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.memory().values().sum()
    }

    /// What the label weights are stored as.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.label_weights.as_ref().map_or(Dtype::Int8, FloatRows::dtype)
    }

    /// Whether 8-bit codes stand beside the exact weights, or, where the dtype is int8, beside those
    /// of the clusters.
    #[must_use]
    pub fn has_screen(&self) -> bool {
        self.cluster_panels.is_some() && self.label_codes.is_some()
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

    /// The clusters that lead to a label and the weights of their edges, by descending weight, then
    /// cluster. The first call on an index sorts all edges by label; `stop` may end it.
    ///
    /// # Errors
    /// [`ArgumentError::NoSuchLabel`]; [`crate::Error::OutOfMemory`];
    /// [`crate::Error::Interrupted`] when `stop` returns true.
    pub fn clusters_of(
        &self,
        label: usize,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<(Vec<u32>, Vec<f32>)> {
        if label >= self.num_labels() {
            let (label, num_labels) = (label as i64, self.num_labels());
            return Err(ArgumentError::NoSuchLabel { label, num_labels }.into());
        }
        let mut edges = self.by_label(stop)?.row(label as u32).to_vec();
        edges.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        Ok(edges.iter().map(|edge| (edge.cluster, edge.weight)).unzip())
    }

    /// `W_L` \[L, D'\]; None where the dtype is int8. See [`Index::label_row`] for a row of any dtype.
    #[must_use]
    pub fn label_weights(&self) -> Option<LabelWeights<'_>> {
        self.label_weights.as_ref().map(FloatRows::weights)
    }

    /// Writes a label's classifier as float32 to `out` \[D'\]: exactly the one that is stored.
    ///
    /// # Errors
    /// [`ArgumentError::NoSuchLabel`], and [`ArgumentError::WrongLength`] for `out`.
    pub fn label_row(&self, label: usize, out: &mut [f32]) -> Result<()> {
        let Dims { num_labels, label_dim, .. } = self.dims;
        if label >= num_labels {
            let label = i64::try_from(label).unwrap_or(i64::MAX);
            return Err(ArgumentError::NoSuchLabel { label, num_labels }.into());
        }
        if out.len() != label_dim {
            let (expected, received) = (label_dim, out.len());
            return Err(ArgumentError::WrongLength { name: "out", expected, received }.into());
        }
        self.exact_rows().copy_row(label, out);
        Ok(())
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

/// The exact label weights, which an index without codes must have.
fn label_weights(files: &Files, has_codes: bool) -> Result<Option<FloatRows>> {
    let Dims { num_labels, label_dim, .. } = files.manifest.dims;
    let (name, shape) = (schema::LABEL_WEIGHTS, [num_labels, label_dim]);
    let rows = match files.dtype(name) {
        None if has_codes => return Ok(None),
        Some(bf16::DTYPE) => {
            FloatRows::BFloat16(Matrix::new(files.tensor(name, &shape)?, label_dim))
        }
        Some(f16::DTYPE) => FloatRows::Float16(Matrix::new(files.tensor(name, &shape)?, label_dim)),
        _ => FloatRows::Float32(Matrix::new(files.tensor(name, &shape)?, label_dim)),
    };
    Ok(Some(rows))
}

fn label_codes(files: &Files) -> Result<Option<CodedRows>> {
    let Dims { num_labels, label_dim, .. } = files.manifest.dims;
    if files.shape(schema::LABEL_CODES).is_none() {
        return Ok(None);
    }
    check_coded(files, schema::LABEL_CODES, label_dim)?;
    let codes = files.tensor(schema::LABEL_CODES, &[num_labels, label_dim])?;
    let meta = row_meta(files, schema::LABEL_CODE_META, num_labels)?;
    Ok(Some(CodedRows { codes: Matrix::new(codes, label_dim), meta }))
}

fn cluster_panels(files: &Files) -> Result<Option<Panels>> {
    let Dims { num_clusters, dim, .. } = files.manifest.dims;
    if files.shape(schema::CLUSTER_PANELS).is_none() {
        return Ok(None);
    }
    check_coded(files, schema::CLUSTER_PANELS, dim)?;
    let shape = panels::shape(num_clusters, dim);
    let codes = files.tensor(schema::CLUSTER_PANELS, &shape)?;
    let meta = row_meta(files, schema::CLUSTER_PANEL_META, num_clusters)?;
    Ok(Some(Panels::new(codes, meta, dim)))
}

fn check_coded(files: &Files, name: &str, cols: usize) -> Result<()> {
    if cols <= MAX_COLS {
        return Ok(());
    }
    Err(files.invalid(name, format!("codes of {cols} dimensions, {MAX_COLS} are the most")))
}

fn row_meta(files: &Files, name: &'static str, rows: usize) -> Result<Tensor<RowMeta>> {
    let meta = files.tensor::<f32>(name, &[rows, RowMeta::LEN])?.cast::<RowMeta>();
    if RowMeta::are_sound(meta.as_slice()) {
        return Ok(meta);
    }
    let message = "holds a bias that isn't finite, or a scale or bound that no row has";
    Err(files.invalid(name, message))
}

fn adjacency(files: &Files) -> Result<Adjacency> {
    let Dims { num_labels, num_clusters, .. } = files.manifest.dims;
    let edges = files.len_of(schema::ADJACENCY_LABELS);
    let adjacency = Adjacency::from_stored(
        files.tensor(schema::ADJACENCY_OFFSETS, &[num_clusters + 1])?,
        files.tensor(schema::ADJACENCY_LABELS, &[edges])?,
        files.tensor(schema::ADJACENCY_WEIGHTS, &[edges])?,
        num_labels,
    )?;
    adjacency.map_err(|(tensor, message)| files.invalid(tensor, message))
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

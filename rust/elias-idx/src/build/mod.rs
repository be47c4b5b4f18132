//! Building an index from a caller's arrays, all of which are checked and copied: to memory, or to a
//! folder that is written as they come.

mod adjacency;
mod change;
mod clusters;
mod defaults;
mod labels;

use crate::arguments::{check_len, check_positive};
use crate::error::{ArgumentError, Result};
use crate::format::manifest::{Defaults, Dims, FusionSizes};
use crate::format::schema;
use crate::format::write::{Destination, Store, Stored};
use crate::index::Index;
use crate::label_names::LabelNames;
use crate::label_rows::Dtype;
use crate::matrix::{MAX_IDS, MatrixView, check_finite};
use crate::quantize::MAX_COLS;
use crate::storage::Loading;
use adjacency::AdjacencyWriter;
pub(crate) use adjacency::check_offsets;
pub(crate) use change::Change;
pub use change::{NewEvidence, NewLabels};
use labels::LabelWriter;

/// What an index is built from; matrices are row after row.
#[derive(Clone, Copy)]
pub struct IndexParts<'a> {
    /// L, at least 1.
    pub num_labels: usize,
    /// C, at least 1.
    pub num_clusters: usize,
    /// D, at least 1.
    pub dim: usize,
    /// D' with a `label_projection`; without one it is D whatever this says.
    pub label_dim: usize,
    /// `W_C` \[C, D\].
    pub cluster_weights: &'a [f32],
    /// `b_C` \[C\].
    pub cluster_bias: &'a [f32],
    /// CSR offsets \[C+1\], ascending from 0 to nnz.
    pub adjacency_offsets: &'a [i64],
    /// The label of each edge \[nnz\], in any order within a row, but none twice.
    pub adjacency_labels: &'a [i64],
    /// The weight of each edge \[nnz\], in (0, 1].
    pub adjacency_weights: &'a [f32],
    /// `W_L` \[L, D'\].
    pub label_weights: &'a [f32],
    /// `b_L` \[L\].
    pub label_bias: &'a [f32],
    /// T \[D', D\].
    pub label_projection: Option<&'a [f32]>,
    /// The labels' names, L of them.
    pub label_names: Option<&'a LabelNames>,
    /// α, B and S.
    pub defaults: Defaults,
    /// What the label weights are stored as, rounded to nearest. `Int8` takes at most 65,536
    /// dimensions.
    pub dtype: Dtype,
    /// Whether 8-bit codes of clusters and labels stand beside exact weights: a search reads these
    /// few bytes first, and exact weights only where they can matter. Above 65,536 dimensions there
    /// are none.
    pub screen: bool,
}

impl Default for IndexParts<'_> {
    /// Nothing, as float32 with a screen.
    fn default() -> Self {
        Self {
            num_labels: 0,
            num_clusters: 0,
            dim: 0,
            label_dim: 0,
            cluster_weights: &[],
            cluster_bias: &[],
            adjacency_offsets: &[],
            adjacency_labels: &[],
            adjacency_weights: &[],
            label_weights: &[],
            label_bias: &[],
            label_projection: None,
            label_names: None,
            defaults: Defaults::default(),
            dtype: Dtype::default(),
            screen: true,
        }
    }
}

/// Building and converting.
impl Index {
    /// Builds an index in memory.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when the parts don't fit together or hold values that an index
    /// can't have.
    pub fn build(parts: &IndexParts<'_>) -> Result<Self> {
        let num_edges = parts.adjacency_labels.len();
        let mut writer = IndexWriter::new(parts, num_edges, Destination::Memory)?;
        check_length(schema::LABEL_BIAS, parts.label_bias.len(), parts.num_labels, 1)?;
        writer.push_edges(parts.adjacency_labels, parts.adjacency_weights)?;
        writer.push_labels(parts.label_weights, parts.label_bias)?;
        writer.finish()
    }

    /// The same index with its label weights in another dtype. Float32 of bfloat16 or float16 is
    /// exact; other conversions of floats round to nearest. Of an index whose dtype is int8 only
    /// another int8 one can be made, with or without a screen.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] where the dtype can't hold the weights, or they are gone;
    /// [`crate::Error::Format`] where this index's files are damaged;
    /// [`crate::Error::Io`] as [`Index::save`].
    pub fn quantize(
        &self,
        dtype: Dtype,
        screen: bool,
        destination: Destination<'_>,
    ) -> Result<Self> {
        if self.dtype() == Dtype::Int8 && dtype != Dtype::Int8 {
            return Err(ArgumentError::NoExactRows { dtype: dtype.name() }.into());
        }
        let dims = self.dims();
        let screen = has_screen(dims, dtype, screen)?;
        let mut store = Store::new(destination)?;
        for name in schema::converted_as_they_are() {
            if self.files().dtype(name).is_some() {
                store.copy(self.files(), name)?;
            }
        }
        if screen {
            let weights = MatrixView::new(self.cluster_weights(), dims.dim);
            clusters::write_screen(&mut store, weights, self.cluster_bias())?;
        }
        if self.dtype() == Dtype::Int8 {
            for name in [schema::LABEL_BIAS, schema::LABEL_CODES, schema::LABEL_CODE_META] {
                store.copy(self.files(), name)?;
            }
        } else {
            // What is written of these has checksums of its own, which would hide a damage.
            for name in [schema::LABEL_WEIGHTS, schema::LABEL_BIAS] {
                self.files().verify_tensor(name)?;
            }
            let mut labels = LabelWriter::new(&store, dims, dtype, screen)?;
            labels.push_from(self.exact_rows(), self.label_bias(), 0..dims.num_labels)?;
            labels.finish(&mut store)?;
        }
        finish(store, dims, self.defaults(), self.files().manifest.fusion.clone(), dtype)
    }
}

/// An index in the making, whose edges and label rows are pushed in blocks, so that they are never
/// all in memory. One that is dropped unfinished leaves nothing behind.
pub struct IndexWriter {
    store: Store,
    dims: Dims,
    defaults: Defaults,
    dtype: Dtype,
    adjacency: AdjacencyWriter,
    labels: LabelWriter,
    /// Whether a push failed: a part of it may have been written.
    broken: bool,
}

impl IndexWriter {
    /// Writes all of `parts` but its edges and label rows, which are ignored here: `num_edges` edges
    /// and `num_labels` rows are to be pushed.
    ///
    /// # Errors
    /// As [`Index::build`], and [`crate::Error::Io`] as [`Index::save`].
    pub fn new(
        parts: &IndexParts<'_>,
        num_edges: usize,
        destination: Destination<'_>,
    ) -> Result<Self> {
        let dims = check_dims(parts)?;
        parts.defaults.check()?;
        let screen = has_screen(dims, parts.dtype, parts.screen)?;
        let Dims { num_labels, num_clusters, dim, label_dim } = dims;
        if let Some(names) = parts.label_names {
            check_length("label_names", names.len(), num_labels, 1)?;
        }
        let mut store = Store::new(destination)?;
        let adjacency = AdjacencyWriter::new(
            &mut store,
            parts.adjacency_offsets,
            num_edges,
            num_clusters,
            num_labels,
        )?;
        if let Some(values) = parts.label_projection {
            put_matrix(&mut store, schema::LABEL_PROJECTION, values, label_dim, dim)?;
        }
        put_matrix(&mut store, schema::CLUSTER_WEIGHTS, parts.cluster_weights, num_clusters, dim)?;
        let bias = parts.cluster_bias;
        check_length(schema::CLUSTER_BIAS, bias.len(), num_clusters, 1)?;
        check_finite(schema::CLUSTER_BIAS, bias, None)?;
        store.put(schema::CLUSTER_BIAS, &[num_clusters], bias)?;
        if screen {
            let weights = MatrixView::new(parts.cluster_weights, dim);
            clusters::write_screen(&mut store, weights, bias)?;
        }
        if let Some(names) = parts.label_names {
            put_names(&mut store, names)?;
        }
        let labels = LabelWriter::new(&store, dims, parts.dtype, screen)?;
        let (defaults, dtype) = (parts.defaults, parts.dtype);
        Ok(Self { store, dims, defaults, dtype, adjacency, labels, broken: false })
    }

    /// Takes the edges of the next rows of the adjacency: whole rows, as many as these edges fill.
    ///
    /// # Errors
    /// [`ArgumentError::BadAdjacency`], [`crate::Error::Io`]. The writer is of no use afterwards.
    pub fn push_edges(&mut self, labels: &[i64], weights: &[f32]) -> Result<()> {
        self.check()?;
        let pushed = self.adjacency.push(labels, weights);
        self.broken = pushed.is_err();
        pushed
    }

    /// Takes the classifiers of the next labels: weights \[n, D'\] and biases \[n\].
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for lengths that don't fit and values that the index can't have,
    /// [`crate::Error::Io`]. The writer is of no use afterwards.
    pub fn push_labels(&mut self, weights: &[f32], bias: &[f32]) -> Result<()> {
        self.check()?;
        let pushed = self.labels.push(weights, bias);
        self.broken = pushed.is_err();
        pushed
    }

    /// Gives the index, mapped from its folder or in memory, once everything was pushed.
    ///
    /// # Errors
    /// [`ArgumentError::WrongLength`] where edges or rows are missing,
    /// [`ArgumentError::BrokenWriter`] after a push that failed, [`crate::Error::Io`].
    pub fn finish(mut self) -> Result<Index> {
        self.check()?;
        self.adjacency.finish(&mut self.store)?;
        self.labels.finish(&mut self.store)?;
        finish(self.store, self.dims, self.defaults, None, self.dtype)
    }

    fn check(&self) -> Result<(), ArgumentError> {
        if self.broken { Err(ArgumentError::BrokenWriter) } else { Ok(()) }
    }
}

/// Ends an index and opens it.
pub(crate) fn finish(
    store: Store,
    dims: Dims,
    defaults: Defaults,
    fusion: Option<FusionSizes>,
    dtype: Dtype,
) -> Result<Index> {
    match store.finish(dims, defaults, fusion, schema::required_feature(dtype))? {
        Stored::Memory(files) => Index::from_open_files(*files),
        Stored::Folder(path) => Index::load(path, Loading::Map),
    }
}

/// Whether an index gets the screen that is asked for.
fn has_screen(dims: Dims, dtype: Dtype, asked: bool) -> Result<bool, ArgumentError> {
    if dtype == Dtype::Int8 && dims.label_dim > MAX_COLS {
        return Err(ArgumentError::TooWide { limit: MAX_COLS, received: dims.label_dim });
    }
    Ok(asked && dims.dim.max(dims.label_dim) <= MAX_COLS)
}

fn check_dims(parts: &IndexParts<'_>) -> Result<Dims, ArgumentError> {
    let label_dim = if parts.label_projection.is_some() { parts.label_dim } else { parts.dim };
    for (name, ids) in [("num_labels", parts.num_labels), ("num_clusters", parts.num_clusters)] {
        check_positive(name, ids)?;
        if ids > MAX_IDS {
            return Err(ArgumentError::TooMany { name, received: ids });
        }
    }
    check_positive("dim", parts.dim)?;
    check_positive("label_dim", label_dim)?;
    Ok(Dims {
        num_labels: parts.num_labels,
        num_clusters: parts.num_clusters,
        dim: parts.dim,
        label_dim,
    })
}

fn check_length(
    name: &'static str,
    received: usize,
    rows: usize,
    cols: usize,
) -> Result<(), ArgumentError> {
    check_len(name, received, rows.saturating_mul(cols))
}

fn put_names(store: &mut Store, names: &LabelNames) -> Result<()> {
    let (offsets, bytes) = (names.offsets.as_slice(), names.bytes.as_slice());
    store.put(schema::LABEL_NAME_OFFSETS, &[offsets.len()], offsets)?;
    store.put(schema::LABEL_NAME_BYTES, &[bytes.len()], bytes)
}

fn put_matrix(
    store: &mut Store,
    name: &'static str,
    values: &[f32],
    rows: usize,
    cols: usize,
) -> Result<()> {
    check_length(name, values.len(), rows, cols)?;
    check_finite(name, values, Some(cols))?;
    store.put(name, &[rows, cols], values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label_rows::LabelWeights;

    fn parts() -> IndexParts<'static> {
        IndexParts {
            num_labels: 2,
            num_clusters: 1,
            dim: 2,
            label_dim: 1,
            cluster_weights: &[1.0, 2.0],
            cluster_bias: &[0.5],
            adjacency_offsets: &[0, 2],
            adjacency_labels: &[1, 0],
            adjacency_weights: &[0.5, 1.0],
            label_weights: &[1.0, 2.0],
            label_bias: &[3.0, 4.0],
            label_projection: Some(&[5.0, 6.0]),
            label_names: None,
            defaults: Defaults::default(),
            dtype: Dtype::Float32,
            screen: false,
        }
    }

    fn message(parts: &IndexParts<'_>) -> String {
        Index::build(parts).err().unwrap().to_string()
    }

    #[test]
    fn parts_come_back() {
        let names = LabelNames::new(&["a", "b"]).unwrap();
        let index = Index::build(&IndexParts { label_names: Some(&names), ..parts() }).unwrap();
        assert_eq!((index.num_labels(), index.num_clusters()), (2, 1));
        assert_eq!((index.dim(), index.label_dim()), (2, 1));
        assert_eq!(index.cluster_weights(), [1.0, 2.0]);
        assert_eq!(index.cluster_bias(), [0.5]);
        assert_eq!(index.adjacency(), (&[0, 2][..], &[0, 1][..], &[1.0, 0.5][..]));
        assert_eq!(index.label_weights(), Some(LabelWeights::Float32(&[1.0, 2.0])));
        assert_eq!(index.label_bias(), [3.0, 4.0]);
        assert_eq!(index.label_projection(), Some(&[5.0, 6.0][..]));
        assert_eq!(index.label_names().unwrap().get(1).unwrap(), "b");
        assert!(index.source().is_none());
        index.verify().unwrap();
        assert_eq!(index.nbytes(), 8 + 4 + 16 + 8 + 8 + 8 + 8 + 8 + 24 + 2);
    }

    #[test]
    fn sizes_of_zero_or_beyond_ids_are_refused() {
        assert!(message(&IndexParts { num_labels: 0, ..parts() }).contains("num_labels"));
        assert!(message(&IndexParts { num_clusters: 0, ..parts() }).contains("num_clusters"));
        assert!(message(&IndexParts { dim: 0, ..parts() }).contains("dim"));
        assert!(message(&IndexParts { label_dim: 0, ..parts() }).contains("label_dim"));
        let many = IndexParts { num_labels: MAX_IDS + 1, ..parts() };
        assert_eq!(message(&many), "num_labels must be at most 4294967294, got 4294967295");
    }

    #[test]
    fn lengths_must_fit() {
        for (name, wrong) in [
            ("cluster_weights", IndexParts { cluster_weights: &[1.0], ..parts() }),
            ("cluster_bias", IndexParts { cluster_bias: &[], ..parts() }),
            ("label_weights", IndexParts { label_weights: &[1.0; 4], ..parts() }),
            ("label_bias", IndexParts { label_bias: &[1.0], ..parts() }),
            ("label_projection", IndexParts { label_projection: Some(&[1.0]), ..parts() }),
            ("adjacency", IndexParts { adjacency_offsets: &[0], ..parts() }),
        ] {
            assert!(message(&wrong).starts_with(name), "{name}");
        }
        let names = LabelNames::new(&["a"]).unwrap();
        let wrong = IndexParts { label_names: Some(&names), ..parts() };
        assert_eq!(message(&wrong), "label_names must have 2 values, got 1");
    }

    #[test]
    fn values_must_be_finite() {
        for (start, wrong) in [
            ("cluster_weights[0, 1]", IndexParts { cluster_weights: &[1.0, f32::NAN], ..parts() }),
            ("cluster_bias[0]", IndexParts { cluster_bias: &[f32::INFINITY], ..parts() }),
            ("label_weights[1, 0]", IndexParts { label_weights: &[1.0, f32::NAN], ..parts() }),
            ("label_bias[0]", IndexParts { label_bias: &[f32::NAN, 0.0], ..parts() }),
            (
                "label_projection[0, 1]",
                IndexParts { label_projection: Some(&[0.0, f32::NAN]), ..parts() },
            ),
        ] {
            assert!(message(&wrong).starts_with(start), "{start}");
        }
    }

    #[test]
    fn defaults_must_make_sense() {
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let defaults = Defaults { alpha, ..Defaults::default() };
            assert!(message(&IndexParts { defaults, ..parts() }).contains("alpha"));
        }
        let defaults = Defaults { beam_size: 0, ..Defaults::default() };
        assert!(message(&IndexParts { defaults, ..parts() }).contains("beam_size"));
        let defaults = Defaults { shortlist_size: 0, ..Defaults::default() };
        assert!(message(&IndexParts { defaults, ..parts() }).contains("shortlist_size"));
    }
}

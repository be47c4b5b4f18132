//! The extension module `elias_idx._core`: the core's index over NumPy arrays.
//!
//! Arguments arrive normalised by the Python package (contiguous arrays of fixed dtypes); what can
//! be wrong with their contents is checked by the core. Work runs detached from the interpreter.

mod change;
mod cluster;
mod ensemble;
mod errors;
mod explain;
mod features;
mod filter;
mod fusion;
mod interpreter;
mod ranker;
mod sparse;
mod train;
mod views;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use elias_idx::{Dtype, HitsMut, LabelNames, LabelWeights, Loading, SearchOptions, Source};
use numpy::{
    PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use errors::{EliasIdxError, FormatError, raise};
use explain::Explanations;
use filter::{Filter, LabelFilter};
use interpreter::{detached, interruptible};
use sparse::Csr;
use writer::{IndexWriter, destination};

/// A read-only, thread-safe index; see `elias_idx.Index`.
#[pyclass(frozen, module = "elias_idx._core")]
struct Index(elias_idx::Index);

/// Where results go: label or cluster ids, and scores.
type Out<'py> = (PyReadwriteArray2<'py, i64>, PyReadwriteArray2<'py, f32>);

/// Clusters, and the weights of the edges that lead from them.
type Edges<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

#[pymethods]
impl Index {
    /// Opens a folder.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, mmap: bool, prefault: bool) -> PyResult<Self> {
        let loading = match (mmap, prefault) {
            (true, false) => Loading::Map,
            (true, true) => Loading::Prefault,
            (false, _) => Loading::Read,
        };
        detached(py, || elias_idx::Index::load(path, loading)).map(Self)
    }

    /// Opens files given as bytes, by file name.
    #[staticmethod]
    fn from_files(py: Python<'_>, files: BTreeMap<String, Bound<'_, PyBytes>>) -> PyResult<Self> {
        let files: BTreeMap<String, &[u8]> =
            files.iter().map(|(name, bytes)| (name.clone(), bytes.as_bytes())).collect();
        detached(py, || elias_idx::Index::from_files(&files)).map(Self)
    }

    /// The files that `save` would write, by name.
    fn to_files<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let files = PyDict::new(py);
        for (name, bytes) in detached(py, || Ok(self.0.to_files()))? {
            files.set_item(name, PyBytes::new(py, &bytes))?;
        }
        Ok(files)
    }

    /// The same index with its label weights in another dtype, in memory or mapped from `path`.
    #[pyo3(signature = (dtype, screen, path, overwrite))]
    fn quantize(
        &self,
        py: Python<'_>,
        dtype: &str,
        screen: bool,
        path: Option<PathBuf>,
        overwrite: bool,
    ) -> PyResult<Self> {
        let dtype = parse_dtype(dtype)?;
        let quantized = detached(py, || {
            self.0.quantize(dtype, screen, destination(path.as_deref(), overwrite))
        })?;
        Ok(Self(quantized))
    }

    /// The same index without some labels, in memory or mapped from `path`.
    #[pyo3(signature = (labels, path, overwrite))]
    fn remove_labels(
        &self,
        py: Python<'_>,
        labels: PyReadonlyArray1<'_, i64>,
        path: Option<PathBuf>,
        overwrite: bool,
    ) -> PyResult<Self> {
        let labels = labels.as_slice()?;
        let destination = destination(path.as_deref(), overwrite);
        detached(py, || self.0.remove_labels(labels, destination)).map(Self)
    }

    /// The same index with more labels, in memory or mapped from `path`.
    #[pyo3(signature = (dense, names, evidence, path, overwrite))]
    fn add_labels(
        &self,
        py: Python<'_>,
        dense: change::Dense<'_>,
        names: Option<&Bound<'_, PyList>>,
        evidence: change::Evidence<'_>,
        path: Option<PathBuf>,
        overwrite: bool,
    ) -> PyResult<Self> {
        let names = names.map(read_label_names).transpose()?;
        let new = change::new_labels(&dense, names.as_ref(), &evidence)?;
        let destination = destination(path.as_deref(), overwrite);
        detached(py, || self.0.add_labels(&new, destination)).map(Self)
    }

    /// Writes a folder.
    fn save(&self, py: Python<'_>, path: PathBuf, overwrite: bool) -> PyResult<()> {
        detached(py, || self.0.save(path, overwrite))
    }

    /// Recomputes all checksums.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.verify())
    }

    /// Searches for `queries` [Q, D] and fills `out`, two arrays [Q, k].
    #[pyo3(signature = (queries, out, beam_size, shortlist_size, num_threads, filter, min_score, sparse, num_candidates))]
    #[expect(clippy::too_many_arguments, reason = "a search has many options")]
    fn search(
        &self,
        py: Python<'_>,
        queries: PyReadonlyArray2<'_, f32>,
        out: Out<'_>,
        beam_size: Option<usize>,
        shortlist_size: Option<usize>,
        num_threads: Option<usize>,
        filter: Option<Filter<'_>>,
        min_score: Option<f64>,
        sparse: Option<Csr<'_>>,
        num_candidates: Option<usize>,
    ) -> PyResult<()> {
        let options = SearchOptions {
            beam_size,
            shortlist_size,
            num_threads,
            min_score,
            sparse: sparse.as_ref().map(sparse::rows).transpose()?,
            num_candidates,
            filter: None,
        };
        let k = out.0.shape()[1];
        filter::with_filter(&self.0, filter, options, |options| {
            self.run(py, &queries, out, |queries, out, stop| {
                self.0.search_into(queries, k, options, out, stop)
            })
        })
    }

    /// The candidates of `queries` [Q, D] with the features `sparse` [Q, F], and their evidence: offsets, labels,
    /// values [n, P].
    #[pyo3(signature = (queries, sparse, beam_size, shortlist_size, num_threads, num_candidates))]
    #[expect(clippy::too_many_arguments, reason = "a search has many options")]
    fn evidence<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'_, f32>,
        sparse: Csr<'_>,
        beam_size: Option<usize>,
        shortlist_size: Option<usize>,
        num_threads: Option<usize>,
        num_candidates: Option<usize>,
    ) -> PyResult<fusion::Evidence<'py>> {
        let options = SearchOptions {
            beam_size,
            shortlist_size,
            num_threads,
            sparse: Some(sparse::rows(&sparse)?),
            num_candidates,
            ..SearchOptions::default()
        };
        check_dim(&self.0, &queries)?;
        let queries = queries.as_slice()?;
        let found = interruptible(py, |stop| self.0.evidence(queries, &options, stop))?;
        fusion::to_arrays(py, found)
    }

    /// The same index with what evidence is computed from.
    #[pyo3(signature = (num_features, num_candidates, num_neighbours, label_counts, ranker, neighbours, label_texts, cooccurrence))]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of an index")]
    fn with_evidence(
        &self,
        py: Python<'_>,
        num_features: usize,
        num_candidates: usize,
        num_neighbours: usize,
        label_counts: PyReadonlyArray1<'_, u32>,
        ranker: Option<(Csr<'_>, PyReadonlyArray1<'_, f32>)>,
        neighbours: Option<(Csr<'_>, Csr<'_>)>,
        label_texts: Option<Csr<'_>>,
        cooccurrence: Option<Csr<'_>>,
    ) -> PyResult<Self> {
        let sizes = (num_features, num_candidates, num_neighbours);
        let parts =
            fusion::parts(sizes, &label_counts, &ranker, &neighbours, &label_texts, &cooccurrence)?;
        detached(py, || self.0.with_evidence(&parts)).map(Self)
    }

    /// The same index with what makes scores of evidence.
    #[pyo3(signature = (linear, bias, trees))]
    fn with_fusion(
        &self,
        py: Python<'_>,
        linear: PyReadonlyArray1<'_, f32>,
        bias: f32,
        trees: Option<fusion::Trees<'_>>,
    ) -> PyResult<Self> {
        let trees = trees.as_ref().map(fusion::trees).transpose()?;
        let linear = linear.as_slice()?;
        detached(py, || self.0.with_fusion(linear, bias, trees.as_ref())).map(Self)
    }

    /// The same index with other sizes that a search uses unless told otherwise.
    #[pyo3(signature = (beam_size, shortlist_size, num_candidates))]
    fn with_defaults(
        &self,
        py: Python<'_>,
        beam_size: Option<usize>,
        shortlist_size: Option<usize>,
        num_candidates: Option<usize>,
    ) -> PyResult<Self> {
        detached(py, || self.0.with_defaults(beam_size, shortlist_size, num_candidates)).map(Self)
    }

    /// Weights of the columns of evidence, then the bias; None without fusion.
    #[getter]
    fn fusion_linear<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyArray1<f32>>>> {
        slf.get().0.fusion_linear().map(|linear| views::vector(slf, linear)).transpose()
    }

    /// The trees of the fusion; None without any.
    #[getter]
    fn fusion_trees<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<fusion::TreeViews<'py>>> {
        slf.get().0.fusion_trees().map(|trees| fusion::tree_views(slf, &trees)).transpose()
    }

    /// Finds the beams of `queries` [Q, D] and fills `out`, two arrays [Q, min(B, C)].
    #[pyo3(signature = (queries, out, beam_size, num_threads))]
    fn beam(
        &self,
        py: Python<'_>,
        queries: PyReadonlyArray2<'_, f32>,
        out: Out<'_>,
        beam_size: Option<usize>,
        num_threads: Option<usize>,
    ) -> PyResult<()> {
        let options = SearchOptions { beam_size, num_threads, ..SearchOptions::default() };
        self.run(py, &queries, out, |queries, out, stop| {
            self.0.beam_into(queries, &options, out, stop)
        })
    }

    /// Finds the shortlists of `queries` [Q, D] and fills `out`, two arrays [Q, min(S, L)].
    #[pyo3(signature = (queries, out, beam_size, shortlist_size, num_threads, filter))]
    #[expect(clippy::too_many_arguments, reason = "a search has many options")]
    fn shortlist(
        &self,
        py: Python<'_>,
        queries: PyReadonlyArray2<'_, f32>,
        out: Out<'_>,
        beam_size: Option<usize>,
        shortlist_size: Option<usize>,
        num_threads: Option<usize>,
        filter: Option<Filter<'_>>,
    ) -> PyResult<()> {
        let options =
            SearchOptions { beam_size, shortlist_size, num_threads, ..SearchOptions::default() };
        filter::with_filter(&self.0, filter, options, |options| {
            self.run(py, &queries, out, |queries, out, stop| {
                self.0.shortlist_into(queries, options, out, stop)
            })
        })
    }

    /// A filter of the labels with these ids.
    fn label_filter(
        &self,
        py: Python<'_>,
        labels: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<LabelFilter> {
        let labels = labels.as_slice()?;
        detached(py, || self.0.label_filter(labels)).map(LabelFilter)
    }

    /// A filter of the labels whose element of `mask` [L] isn't 0.
    fn label_filter_of_mask(
        &self,
        py: Python<'_>,
        mask: PyReadonlyArray1<'_, u8>,
    ) -> PyResult<LabelFilter> {
        let mask = filter::booleans(mask.as_slice()?);
        detached(py, || self.0.label_filter_of_mask(&mask)).map(LabelFilter)
    }

    /// The ids of the labels with these names.
    fn find_labels<'py>(
        &self,
        py: Python<'py>,
        names: &Bound<'_, PyList>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let names = read_names("labels", names)?;
        let label_names = self.names_or_error()?;
        let ids = detached(py, || label_names.find(&names))?;
        Ok(PyArray1::from_vec(py, ids))
    }

    /// How a search for `queries` [1, D] treats `labels`.
    #[pyo3(signature = (queries, labels, beam_size, shortlist_size, filter))]
    fn explain(
        &self,
        py: Python<'_>,
        queries: PyReadonlyArray2<'_, f32>,
        labels: PyReadonlyArray1<'_, i64>,
        beam_size: Option<usize>,
        shortlist_size: Option<usize>,
        filter: Option<Filter<'_>>,
    ) -> PyResult<Explanations> {
        let options = SearchOptions { beam_size, shortlist_size, ..SearchOptions::default() };
        let (query, labels) = (queries.as_slice()?, labels.as_slice()?);
        filter::with_filter(&self.0, filter, options, |options| {
            interruptible(py, |stop| self.0.explain(query, labels, options, stop))
        })
        .map(Explanations::from)
    }

    /// The clusters that lead to a label, and the weights of these edges.
    fn clusters_of<'py>(&self, py: Python<'py>, label: usize) -> PyResult<Edges<'py>> {
        let (clusters, weights) = interruptible(py, |stop| self.0.clusters_of(label, stop))?;
        Ok((PyArray1::from_vec(py, clusters), PyArray1::from_vec(py, weights)))
    }

    /// Writes the classifiers of `labels` [n] to `out` [n, D'], as float32.
    fn label_rows(
        &self,
        py: Python<'_>,
        labels: PyReadonlyArray1<'_, i64>,
        mut out: PyReadwriteArray2<'_, f32>,
    ) -> PyResult<()> {
        let (labels, out) = (labels.as_slice()?, out.as_slice_mut()?);
        detached(py, || {
            let rows = out.chunks_mut(self.0.label_dim());
            labels.iter().zip(rows).try_for_each(|(&label, row)| {
                // A negative id becomes one that no label has.
                self.0.label_row(usize::try_from(label).unwrap_or(usize::MAX), row)
            })
        })
    }

    /// The names of labels, None for −1.
    fn names<'py>(
        &self,
        py: Python<'py>,
        labels: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let names = self.names_or_error()?;
        let list = PyList::empty(py);
        for &label in labels.as_slice()? {
            if label == -1 {
                list.append(py.None())?;
            } else {
                // A negative id becomes one that no label has.
                let label = usize::try_from(label).unwrap_or(usize::MAX);
                list.append(names.get(label).map_err(raise)?)?;
            }
        }
        Ok(list)
    }

    #[getter]
    fn num_labels(&self) -> usize {
        self.0.num_labels()
    }

    #[getter]
    fn num_clusters(&self) -> usize {
        self.0.num_clusters()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.0.dim()
    }

    #[getter]
    fn label_dim(&self) -> usize {
        self.0.label_dim()
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.0.nbytes()
    }

    /// Bytes of each tensor.
    fn memory(&self) -> BTreeMap<&'static str, usize> {
        self.0.memory()
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.dtype().name()
    }

    #[getter]
    fn has_screen(&self) -> bool {
        self.0.has_screen()
    }

    #[getter]
    fn has_names(&self) -> bool {
        self.0.label_names().is_some()
    }

    #[getter]
    fn num_features(&self) -> Option<usize> {
        self.0.num_features()
    }

    #[getter]
    fn num_candidates(&self) -> Option<usize> {
        self.0.num_candidates()
    }

    #[getter]
    fn num_neighbours(&self) -> Option<usize> {
        self.0.num_neighbours()
    }

    #[getter]
    fn has_ranker(&self) -> bool {
        self.0.has_ranker()
    }

    #[getter]
    fn has_neighbours(&self) -> bool {
        self.0.has_neighbours()
    }

    #[getter]
    fn has_label_texts(&self) -> bool {
        self.0.has_label_texts()
    }

    #[getter]
    fn has_cooccurrence(&self) -> bool {
        self.0.has_cooccurrence()
    }

    #[getter]
    fn has_fusion(&self) -> bool {
        self.0.has_fusion()
    }

    #[getter]
    fn alpha(&self) -> f64 {
        self.0.defaults().alpha
    }

    #[getter]
    fn beam_size(&self) -> usize {
        self.0.defaults().beam_size
    }

    #[getter]
    fn shortlist_size(&self) -> usize {
        self.0.defaults().shortlist_size
    }

    /// Path, checksum, and how it was loaded (`mmap`, `prefault`), of an index from a folder.
    #[getter]
    fn source(&self) -> Option<(PathBuf, &str, bool, bool)> {
        let Source { path, sha256, loading } = self.0.source()?;
        let (mapped, prefaulted) = (*loading != Loading::Read, *loading == Loading::Prefault);
        Some((path.clone(), sha256, mapped, prefaulted))
    }

    #[getter]
    fn cluster_weights<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        views::matrix(slf, slf.get().0.cluster_weights(), slf.get().0.dim())
    }

    #[getter]
    fn cluster_bias<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        views::vector(slf, slf.get().0.cluster_bias())
    }

    #[getter]
    fn adjacency<'py>(slf: &Bound<'py, Self>) -> PyResult<views::Csr<'py>> {
        let (offsets, labels, weights) = slf.get().0.adjacency();
        // Offsets are at most the number of edges in memory, far below 2^63.
        let offsets: &[i64] = bytemuck::cast_slice(offsets);
        Ok((
            views::vector(slf, offsets)?,
            views::vector(slf, labels)?,
            views::vector(slf, weights)?,
        ))
    }

    /// float32 or float16 [L, D'], or None where NumPy has no such dtype.
    #[getter]
    fn label_weights<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let cols = slf.get().0.label_dim();
        Ok(match slf.get().0.label_weights() {
            Some(LabelWeights::Float32(rows)) => Some(views::matrix(slf, rows, cols)?.into_any()),
            Some(LabelWeights::Float16(rows)) => Some(views::matrix(slf, rows, cols)?.into_any()),
            Some(LabelWeights::BFloat16(_)) | None => None,
        })
    }

    #[getter]
    fn label_bias<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        views::vector(slf, slf.get().0.label_bias())
    }

    #[getter]
    fn label_projection<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<Option<Bound<'py, PyArray2<f32>>>> {
        let dim = slf.get().0.dim();
        let projection = slf.get().0.label_projection();
        projection.map(|projection| views::matrix(slf, projection, dim)).transpose()
    }
}

impl Index {
    /// Runs one of the searches detached from the interpreter; signals are looked at meanwhile.
    fn run(
        &self,
        py: Python<'_>,
        queries: &PyReadonlyArray2<'_, f32>,
        mut out: Out<'_>,
        search: impl FnOnce(&[f32], HitsMut<'_>, &mut dyn FnMut() -> bool) -> elias_idx::Result<()>
        + Send,
    ) -> PyResult<()> {
        check_dim(&self.0, queries)?;
        let queries = queries.as_slice()?;
        let out = HitsMut { ids: out.0.as_slice_mut()?, scores: out.1.as_slice_mut()? };
        interruptible(py, |stop| search(queries, out, stop))
    }

    fn names_or_error(&self) -> PyResult<&LabelNames> {
        let message = "this index has no label names: give label_names to Index.build";
        self.0.label_names().ok_or_else(|| PyValueError::new_err(message))
    }
}

/// Refuses queries of another dim than the index's.
fn check_dim(index: &elias_idx::Index, queries: &PyReadonlyArray2<'_, f32>) -> PyResult<()> {
    let (expected, received) = (index.dim(), queries.shape()[1]);
    if expected == received {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("embeddings must have dim {expected}, got {received}")))
}

fn parse_dtype(name: &str) -> PyResult<Dtype> {
    name.parse().map_err(|error: elias_idx::ArgumentError| raise(error.into()))
}

/// Joins a list of `str`.
fn read_label_names(names: &Bound<'_, PyList>) -> PyResult<LabelNames> {
    let texts = read_names("label_names", names)?;
    detached(names.py(), || LabelNames::new(&texts))
}

/// The texts of a list of `str`, which the caller calls `what`.
fn read_names(what: &str, names: &Bound<'_, PyList>) -> PyResult<Vec<String>> {
    let mut texts = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        let text = name.cast_into::<PyString>()?.to_str().map(str::to_owned).map_err(|_| {
            let message = "is not valid Unicode (it holds a lone surrogate)";
            PyValueError::new_err(format!("{what}[{at}] {message}"))
        })?;
        texts.push(text);
    }
    Ok(texts)
}

/// A hidden folder beside `target`, to be written to and then published.
///
/// What killed processes have left of such folders for the same target is removed.
#[pyclass(frozen)]
struct Staging {
    path: PathBuf,
    made: Mutex<Option<elias_idx::Staging>>,
}

#[pymethods]
impl Staging {
    #[new]
    fn new(py: Python<'_>, target: PathBuf, overwrite: bool) -> PyResult<Self> {
        let made = detached(py, || elias_idx::Staging::beside(&target, overwrite))?;
        Ok(Self { path: made.path().to_owned(), made: Mutex::new(Some(made)) })
    }

    /// The folder.
    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Forces all of the folder to disk and moves it to its place at once; a folder that is there and is to be
    /// overwritten is exchanged with it and removed.
    fn publish(&self, py: Python<'_>) -> PyResult<()> {
        let made = self.take();
        detached(py, || made.map_or(Ok(()), elias_idx::Staging::sync_and_publish))
    }

    /// Removes the folder, unless it was published.
    fn remove(&self, py: Python<'_>) {
        let made = self.take();
        py.detach(|| drop(made));
    }
}

impl Staging {
    fn take(&self) -> Option<elias_idx::Staging> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The instruction set that searches use on this machine: "portable", "avx2", "avx512" or "amx".
///
/// The environment variable ELIAS_IDX_ISA chooses a lower one than the best; it is read once.
///
/// Raises:
///     ValueError: the variable names none that this machine has.
#[pyfunction]
fn instruction_set() -> PyResult<&'static str> {
    elias_idx::instruction_set().map_err(raise)
}

// Untried without the GIL, which free-threaded interpreters switch on again for such modules, with a warning.
#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("EliasIdxError", module.py().get_type::<EliasIdxError>())?;
    module.add("FormatError", module.py().get_type::<FormatError>())?;
    module.add("EVIDENCE", elias_idx::EVIDENCE)?;
    module.add_class::<Index>()?;
    module.add_class::<LabelFilter>()?;
    module.add_class::<IndexWriter>()?;
    module.add_class::<Staging>()?;
    module.add_class::<train::LabelStep>()?;
    module.add_class::<features::TextFeatures>()?;
    module.add_function(wrap_pyfunction!(features::split_words, module)?)?;
    module.add_function(wrap_pyfunction!(features::embed_bags, module)?)?;
    module.add_function(wrap_pyfunction!(train::bag_product, module)?)?;
    module.add_function(wrap_pyfunction!(train::bag_gradient, module)?)?;
    module.add_function(wrap_pyfunction!(train::apply_gradients, module)?)?;
    module.add_function(wrap_pyfunction!(cluster::cluster_labels, module)?)?;
    module.add_function(wrap_pyfunction!(ranker::train_ranker, module)?)?;
    module.add_function(wrap_pyfunction!(ensemble::search_ensemble, module)?)?;
    module.add_function(wrap_pyfunction!(ensemble::shared_labels, module)?)?;
    module.add_function(wrap_pyfunction!(instruction_set, module)?)?;
    Ok(())
}

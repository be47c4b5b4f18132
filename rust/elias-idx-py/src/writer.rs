//! `elias_idx._core.IndexWriter`: an index built block by block.

use std::path::{Path, PathBuf};

use elias_idx::{Defaults, Destination, IndexParts};
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::errors::raise;
use crate::interpreter::detached;
use crate::{Index, parse_dtype, read_label_names};

/// Builds an index in memory or in a folder; see `elias_idx::IndexWriter`. A context manager: what is
/// unfinished at the end of its block is given up, and nothing is left of it.
#[pyclass(module = "elias_idx._core")]
pub(crate) struct IndexWriter(Option<elias_idx::IndexWriter>);

#[pymethods]
impl IndexWriter {
    #[new]
    #[pyo3(signature = (cluster_weights, cluster_bias, indptr, num_edges, label_shape, label_projection, label_names, alpha, beam_size, shortlist_size, dtype, screen, path, overwrite))]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of an index")]
    fn new(
        py: Python<'_>,
        cluster_weights: PyReadonlyArray2<'_, f32>,
        cluster_bias: PyReadonlyArray1<'_, f32>,
        indptr: PyReadonlyArray1<'_, i64>,
        num_edges: usize,
        label_shape: (usize, usize),
        label_projection: Option<PyReadonlyArray2<'_, f32>>,
        label_names: Option<&Bound<'_, PyList>>,
        alpha: f64,
        beam_size: usize,
        shortlist_size: usize,
        dtype: &str,
        screen: bool,
        path: Option<PathBuf>,
        overwrite: bool,
    ) -> PyResult<Self> {
        let label_names = label_names.map(read_label_names).transpose()?;
        let parts = IndexParts {
            num_labels: label_shape.0,
            num_clusters: cluster_weights.shape()[0],
            dim: cluster_weights.shape()[1],
            label_dim: label_shape.1,
            cluster_weights: cluster_weights.as_slice()?,
            cluster_bias: cluster_bias.as_slice()?,
            adjacency_offsets: indptr.as_slice()?,
            label_projection: match &label_projection {
                Some(projection) => Some(projection.as_slice()?),
                None => None,
            },
            label_names: label_names.as_ref(),
            defaults: Defaults { alpha, beam_size, shortlist_size },
            dtype: parse_dtype(dtype)?,
            screen,
            ..IndexParts::default()
        };
        let destination = destination(path.as_deref(), overwrite);
        detached(py, || elias_idx::IndexWriter::new(&parts, num_edges, destination))
            .map(|writer| Self(Some(writer)))
    }

    /// Takes the edges of the next rows of the adjacency, whole rows.
    fn push_edges(
        &mut self,
        py: Python<'_>,
        indices: PyReadonlyArray1<'_, i64>,
        data: PyReadonlyArray1<'_, f32>,
    ) -> PyResult<()> {
        let (indices, data) = (indices.as_slice()?, data.as_slice()?);
        self.push(py, |writer| writer.push_edges(indices, data))
    }

    /// Takes the classifiers of the next labels: weights [n, D'], biases [n].
    fn push_labels(
        &mut self,
        py: Python<'_>,
        weights: PyReadonlyArray2<'_, f32>,
        bias: PyReadonlyArray1<'_, f32>,
    ) -> PyResult<()> {
        let (weights, bias) = (weights.as_slice()?, bias.as_slice()?);
        self.push(py, |writer| writer.push_labels(weights, bias))
    }

    /// Gives the index, once everything was pushed.
    fn finish(&mut self, py: Python<'_>) -> PyResult<Index> {
        let writer = self.0.take().ok_or_else(finished)?;
        detached(py, || writer.finish()).map(Index)
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&mut self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        let unfinished = self.0.take();
        py.detach(|| drop(unfinished));
    }
}

impl IndexWriter {
    /// Nothing is left to push to after a panic.
    fn push(
        &mut self,
        py: Python<'_>,
        push: impl FnOnce(&mut elias_idx::IndexWriter) -> elias_idx::Result<()> + Send,
    ) -> PyResult<()> {
        let mut writer = self.0.take().ok_or_else(finished)?;
        let (writer, pushed) = detached(py, || {
            let pushed = push(&mut writer);
            Ok((writer, pushed))
        })?;
        self.0 = Some(writer);
        pushed.map_err(raise)
    }
}

fn finished() -> PyErr {
    PyRuntimeError::new_err("this writer is finished")
}

pub(crate) fn destination(path: Option<&Path>, overwrite: bool) -> Destination<'_> {
    match path {
        Some(path) => Destination::Folder { path, overwrite },
        None => Destination::Memory,
    }
}

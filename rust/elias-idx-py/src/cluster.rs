//! `elias_idx._core.cluster_labels`.

use elias_idx::{ClusterOptions, LabelFeatures};
use numpy::{PyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::interpreter::reporting;
use crate::sparse::{Csr, rows};

/// The cluster of each label, [L]; see `elias_idx::cluster_labels`. `report` gets the share that is done, from
/// 0 to 1, now and then.
#[pyfunction]
#[pyo3(signature = (texts, sparse, dense, num_clusters, max_entries, seed, num_threads, report))]
#[expect(clippy::too_many_arguments, reason = "they are called by name")]
pub(crate) fn cluster_labels<'py>(
    py: Python<'py>,
    texts: Csr<'py>,
    sparse: Option<Csr<'py>>,
    dense: Option<PyReadonlyArray2<'py, f32>>,
    num_clusters: usize,
    max_entries: usize,
    seed: u64,
    num_threads: Option<usize>,
    report: Py<PyAny>,
) -> PyResult<Bound<'py, PyArray1<u32>>> {
    let features = LabelFeatures {
        texts: rows(&texts)?,
        sparse: sparse.as_ref().map(rows).transpose()?,
        dense: match &dense {
            Some(dense) => Some(dense.as_slice()?),
            None => None,
        },
    };
    let options = ClusterOptions { num_clusters, max_entries, seed, num_threads };
    let clusters = reporting(py, report, |progress, stop| {
        elias_idx::cluster_labels(&features, options, progress, stop)
    })?;
    Ok(PyArray1::from_vec(py, clusters))
}

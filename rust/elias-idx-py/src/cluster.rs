//! `elias_idx._core.cluster_labels`.

use elias_idx::{ClusterOptions, ClusterProgress, LabelFeatures, SparseRows};
use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::interruptible;

/// A CSR matrix: indptr, indices, data, number of columns.
pub(crate) type Csr<'py> =
    (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i32>, PyReadonlyArray1<'py, f32>, usize);

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
    let progress = ClusterProgress::default();
    let mut failure = None;
    let clusters = interruptible(py, |stop| {
        elias_idx::cluster_labels(&features, options, &progress, &mut || {
            failure = Python::attach(|py| report.call1(py, (progress.share(),)).err());
            failure.is_some() || stop()
        })
    });
    match failure {
        Some(failure) => Err(failure),
        None => clusters.map(|clusters| PyArray1::from_vec(py, clusters)),
    }
}

pub(crate) fn rows<'a>(csr: &'a Csr<'_>) -> PyResult<SparseRows<'a>> {
    let (indptr, indices, data, num_columns) = csr;
    Ok(SparseRows {
        offsets: indptr.as_slice()?,
        columns: indices.as_slice()?,
        values: data.as_slice()?,
        num_columns: *num_columns,
    })
}

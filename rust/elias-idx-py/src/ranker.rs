//! `elias_idx._core.train_ranker`.

use elias_idx::train::{self, Ranker, RankerData, RankerOptions};
use numpy::{PyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::interpreter::reporting;
use crate::sparse::{Csr, rows};

/// Weights as CSR (indptr, indices, data), and biases.
type RankerArrays<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<f32>>,
);

/// A classifier of each label; see `elias_idx::train::train_ranker`. `report` gets the share that is done, from 0
/// to 1, now and then.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are called by name")]
pub(crate) fn train_ranker<'py>(
    py: Python<'py>,
    features: Csr<'py>,
    labels: Csr<'py>,
    shortlists: PyReadonlyArray2<'py, i64>,
    positive_cost: f32,
    negative_cost: f32,
    tolerance: f32,
    max_passes: usize,
    weights_per_label: usize,
    seed: u64,
    num_threads: Option<usize>,
    report: Py<PyAny>,
) -> PyResult<RankerArrays<'py>> {
    let data = RankerData {
        features: rows(&features)?,
        labels: rows(&labels)?,
        shortlists: shortlists.as_slice()?,
    };
    let options = RankerOptions {
        positive_cost,
        negative_cost,
        tolerance,
        max_passes,
        weights_per_label,
        seed,
        num_threads,
    };
    let Ranker { offsets, features, weights, bias } = reporting(py, report, |progress, stop| {
        train::train_ranker(&data, options, progress, stop)
    })?;
    Ok((
        PyArray1::from_vec(py, offsets),
        PyArray1::from_vec(py, features),
        PyArray1::from_vec(py, weights),
        PyArray1::from_vec(py, bias),
    ))
}

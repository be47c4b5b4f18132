//! Sparse matrices from Python, and what is done with them there alone.

use elias_idx::SparseRows;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::interruptible;

/// A CSR matrix: indptr, indices, data, number of columns.
pub(crate) type Csr<'py> =
    (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i32>, PyReadonlyArray1<'py, f32>, usize);

pub(crate) fn rows<'a>(csr: &'a Csr<'_>) -> PyResult<SparseRows<'a>> {
    let (indptr, indices, data, num_columns) = csr;
    Ok(SparseRows {
        offsets: indptr.as_slice()?,
        columns: indices.as_slice()?,
        values: data.as_slice()?,
        num_columns: *num_columns,
    })
}

/// Texts and their cosines, [Q, count] both.
type Nearest<'py> = (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<f32>>);

/// The texts [N, F] that are nearest to queries [Q, F]; see `elias_idx::nearest_texts`.
#[pyfunction]
pub(crate) fn nearest_texts<'py>(
    py: Python<'py>,
    texts: Csr<'py>,
    queries: Csr<'py>,
    count: usize,
    max_texts: usize,
    num_threads: Option<usize>,
) -> PyResult<Nearest<'py>> {
    let (texts, queries) = (rows(&texts)?, rows(&queries)?);
    let shape = [queries.offsets.len().saturating_sub(1), count];
    let (found, cosines) = interruptible(py, |stop| {
        elias_idx::nearest_texts(&texts, &queries, count, max_texts, num_threads, stop)
    })?;
    let found = PyArray1::from_vec(py, found).reshape(shape)?;
    Ok((found, PyArray1::from_vec(py, cosines).reshape(shape)?))
}

//! Sparse matrices from Python.

use elias_idx::SparseRows;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

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

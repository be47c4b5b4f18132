//! Read-only NumPy arrays over an index's own memory, which keep the index alive.

use numpy::ndarray::{ArrayView1, ArrayView2};
use numpy::{Element, PyArray1, PyArray2};
use pyo3::prelude::*;

use crate::Index;

/// CSR arrays: indptr, indices, data.
pub(crate) type Csr<'py> =
    (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

/// A view of `values`, which belong to `owner`.
pub(crate) fn vector<'py, T: Element>(
    owner: &Bound<'py, Index>,
    values: &[T],
) -> PyResult<Bound<'py, PyArray1<T>>> {
    let view = ArrayView1::from(values);
    // SAFETY: the values lie in the index, which is frozen, never moves them, and lives as long as
    // the array, whose base it becomes.
    let array = unsafe { PyArray1::borrow_from_array(&view, owner.clone().into_any()) };
    make_read_only(&array)?;
    Ok(array)
}

/// A view of `values`, rows of `cols` that belong to `owner`.
pub(crate) fn matrix<'py, T: Element>(
    owner: &Bound<'py, Index>,
    values: &[T],
    cols: usize,
) -> PyResult<Bound<'py, PyArray2<T>>> {
    let view = ArrayView2::from_shape((values.len() / cols, cols), values)
        .expect("a matrix has whole rows");
    // SAFETY: as above.
    let array = unsafe { PyArray2::borrow_from_array(&view, owner.clone().into_any()) };
    make_read_only(&array)?;
    Ok(array)
}

/// Clears the flag that lets the array be written to. NumPy doesn't let anyone set it again, as the
/// base has no writable buffer.
fn make_read_only(array: &Bound<'_, PyAny>) -> PyResult<()> {
    array.call_method1("setflags", (false,)).map(drop)
}

//! Filters as they come from Python.

use elias_idx::SearchOptions;
use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::errors::raise;

/// Labels that a search may return, made by `Index.label_filter`.
///
/// It belongs to that index, and to copies of it that were saved, loaded or pickled, and serves any number of
/// searches on any threads. Its length is the number of labels.
#[pyclass(frozen, module = "elias_idx")]
pub(crate) struct LabelFilter(pub(crate) elias_idx::LabelFilter);

#[pymethods]
impl LabelFilter {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("<elias_idx.LabelFilter: {} labels>", self.0.len())
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    fn __reduce__(&self) -> PyResult<()> {
        let message = "a LabelFilter can't be pickled: make it again by Index.label_filter";
        Err(PyTypeError::new_err(message))
    }
}

/// What may stand for `filter`: one for all queries, a list of one or None for each, or CSR arrays
/// [Q, L]: indptr, indices, and which elements count, as bytes.
#[derive(FromPyObject)]
pub(crate) enum Filter<'py> {
    All(Bound<'py, LabelFilter>),
    Each(Vec<Option<Bound<'py, LabelFilter>>>),
    Rows(PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, u8>),
}

impl Filter<'_> {
    /// What the core takes, once it has looked at CSR arrays.
    pub(crate) fn resolve(&self, index: &elias_idx::Index) -> PyResult<Resolved<'_>> {
        Ok(match self {
            Self::All(filter) => Resolved::All(&filter.get().0),
            Self::Each(filters) => {
                let filters = filters.iter().map(|filter| Some(&filter.as_ref()?.get().0));
                Resolved::Each(filters.collect())
            }
            Self::Rows(indptr, indices, counts) => {
                let (indptr, indices, counts) =
                    (indptr.as_slice()?, indices.as_slice()?, counts.as_slice()?);
                Resolved::Rows(
                    index.filter_rows(indptr, indices, &booleans(counts)).map_err(raise)?,
                )
            }
        })
    }
}

/// A copy of NumPy's booleans. They come as bytes: NumPy takes any byte but 0 for true, Rust knows no others than 0 and 1.
pub(crate) fn booleans(bytes: &[u8]) -> Vec<bool> {
    bytes.iter().map(|&byte| byte != 0).collect()
}

/// The memory behind a filter of the core.
pub(crate) enum Resolved<'a> {
    All(&'a elias_idx::LabelFilter),
    Each(Vec<Option<&'a elias_idx::LabelFilter>>),
    Rows(elias_idx::FilterRows),
}

impl Resolved<'_> {
    pub(crate) fn filter(&self) -> elias_idx::Filter<'_> {
        match self {
            Self::All(filter) => elias_idx::Filter::All(filter),
            Self::Each(filters) => elias_idx::Filter::Each(filters),
            Self::Rows(rows) => elias_idx::Filter::Rows(rows),
        }
    }
}

/// Calls `search` with `options` to which the filter is added.
pub(crate) fn with_filter<T>(
    index: &elias_idx::Index,
    filter: Option<Filter<'_>>,
    options: SearchOptions<'_>,
    search: impl FnOnce(&SearchOptions<'_>) -> PyResult<T>,
) -> PyResult<T> {
    let resolved = filter.as_ref().map(|filter| filter.resolve(index)).transpose()?;
    search(&SearchOptions { filter: resolved.as_ref().map(Resolved::filter), ..options })
}

//! `elias_idx._core.search_ensemble` and what it needs.

use elias_idx::{EnsembleMember, EnsembleOptions, HitsMut, SearchOptions, SharedLabels};
use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::filter::{Filter, Resolved};
use crate::interpreter::{detached, interruptible};
use crate::sparse::{Csr, rows};
use crate::{Index, Out, check_dim};

/// An index, its queries [Q, D], the ensemble's ids of its labels (None where they are the same), its filter, and the
/// queries' sparse features [Q, F] for its fusion.
type Member<'py> = (
    Bound<'py, Index>,
    PyReadonlyArray2<'py, f32>,
    Option<PyReadonlyArray1<'py, u32>>,
    Option<Filter<'py>>,
    Option<Csr<'py>>,
);

/// The ids of the labels of each index, None where they are those of the first one, and the names that it lacks.
type Shared<'py> = (Vec<Option<Bound<'py, PyArray1<u32>>>>, Vec<String>);

/// Searches all members, each for `depth` labels at least, and fills `out`, two arrays [Q, k], with the best means.
#[pyfunction]
#[pyo3(signature = (members, out, depth, beam_size, shortlist_size, num_threads, min_score))]
#[expect(clippy::too_many_arguments, reason = "a search has many options")]
pub(crate) fn search_ensemble(
    py: Python<'_>,
    members: Vec<Member<'_>>,
    mut out: Out<'_>,
    depth: usize,
    beam_size: Option<usize>,
    shortlist_size: Option<usize>,
    num_threads: Option<usize>,
    min_score: Option<f64>,
) -> PyResult<()> {
    let k = out.0.shape()[1];
    let filters = members
        .iter()
        .map(|(index, _, _, filter, _)| {
            filter.as_ref().map(|filter| filter.resolve(&index.get().0)).transpose()
        })
        .collect::<PyResult<Vec<Option<Resolved<'_>>>>>()?;
    let members = members
        .iter()
        .zip(&filters)
        .map(|((index, queries, labels, _, sparse), filter)| {
            let index = &index.get().0;
            check_dim(index, queries)?;
            let labels = labels.as_ref().map(|labels| labels.as_slice()).transpose()?;
            let options = SearchOptions {
                beam_size,
                shortlist_size,
                filter: filter.as_ref().map(Resolved::filter),
                sparse: sparse.as_ref().map(rows).transpose()?,
                ..SearchOptions::default()
            };
            Ok(EnsembleMember { index, queries: queries.as_slice()?, labels, options })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let options = EnsembleOptions { depth, num_threads, min_score };
    let out = HitsMut { ids: out.0.as_slice_mut()?, scores: out.1.as_slice_mut()? };
    interruptible(py, |stop| elias_idx::search_ensemble(&members, k, &options, out, stop))
}

/// The labels of several indexes as one set; see `elias_idx::SharedLabels`.
#[pyfunction]
pub(crate) fn shared_labels<'py>(
    py: Python<'py>,
    first: &Bound<'py, Index>,
    others: Vec<Bound<'py, Index>>,
) -> PyResult<Shared<'py>> {
    let first = first.get().names_or_error()?;
    let others = others.iter().map(|index| index.get().names_or_error());
    let others = others.collect::<PyResult<Vec<_>>>()?;
    let SharedLabels { ids, further } = detached(py, || SharedLabels::new(first, &others))?;
    Ok((ids.into_iter().map(|ids| ids.map(|ids| PyArray1::from_vec(py, ids))).collect(), further))
}

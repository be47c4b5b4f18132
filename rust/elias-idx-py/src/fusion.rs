//! What searches with sparse features take, and evidence, as arrays.

use elias_idx::{EVIDENCE, EvidenceParts, FusionTrees};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::sparse::{Csr, rows};
use crate::{Index, views};

/// Offsets [Q + 1], labels [n], values [n, P].
pub(crate) type Evidence<'py> =
    (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray2<f32>>);

/// Offsets, columns, thresholds, children, values.
pub(crate) type Trees<'py> = (
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i32>,
    PyReadonlyArray1<'py, f32>,
    PyReadonlyArray2<'py, i32>,
    PyReadonlyArray1<'py, f32>,
);

/// The same of an index, as views.
pub(crate) type TreeViews<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray2<i32>>,
    Bound<'py, PyArray1<f32>>,
);

pub(crate) fn to_arrays(py: Python<'_>, found: elias_idx::Evidence) -> PyResult<Evidence<'_>> {
    let shape = [found.labels.len(), EVIDENCE.len()];
    Ok((
        PyArray1::from_vec(py, found.offsets),
        PyArray1::from_vec(py, found.labels),
        PyArray1::from_vec(py, found.values).reshape(shape)?,
    ))
}

pub(crate) fn parts<'a>(
    (num_features, num_candidates, num_neighbours): (usize, usize, usize),
    label_counts: &'a PyReadonlyArray1<'_, u32>,
    ranker: &'a Option<(Csr<'_>, PyReadonlyArray1<'_, f32>)>,
    neighbours: &'a Option<(Csr<'_>, Csr<'_>)>,
    label_texts: &'a Option<Csr<'_>>,
    cooccurrence: &'a Option<Csr<'_>>,
) -> PyResult<EvidenceParts<'a>> {
    Ok(EvidenceParts {
        num_features,
        num_candidates,
        num_neighbours,
        label_counts: label_counts.as_slice()?,
        ranker: match ranker {
            Some((weights, bias)) => Some((rows(weights)?, bias.as_slice()?)),
            None => None,
        },
        neighbours: match neighbours {
            Some((texts, labels)) => Some((rows(texts)?, rows(labels)?)),
            None => None,
        },
        label_texts: label_texts.as_ref().map(rows).transpose()?,
        cooccurrence: cooccurrence.as_ref().map(rows).transpose()?,
    })
}

pub(crate) fn trees<'a>(trees: &'a Trees<'_>) -> PyResult<FusionTrees<'a>> {
    let (offsets, columns, thresholds, children, values) = trees;
    Ok(FusionTrees {
        offsets: offsets.as_slice()?,
        columns: columns.as_slice()?,
        thresholds: thresholds.as_slice()?,
        children: children.as_slice()?,
        values: values.as_slice()?,
    })
}

pub(crate) fn tree_views<'py>(
    owner: &Bound<'py, Index>,
    trees: &FusionTrees<'_>,
) -> PyResult<TreeViews<'py>> {
    Ok((
        views::vector(owner, trees.offsets)?,
        views::vector(owner, trees.columns)?,
        views::vector(owner, trees.thresholds)?,
        views::matrix(owner, trees.children, 2)?,
        views::vector(owner, trees.values)?,
    ))
}

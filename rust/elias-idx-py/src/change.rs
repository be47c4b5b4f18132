//! Labels that join an index, as arrays.

use elias_idx::{LabelNames, NewEvidence, NewLabels};
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::sparse::{Csr, rows};

/// Weights \[n, D'\], biases \[n\], edges \[C, n\].
pub(crate) type Dense<'py> = (PyReadonlyArray2<'py, f32>, PyReadonlyArray1<'py, f32>, Csr<'py>);

/// Label counts, ranker, label texts, co-occurrence, neighbours; each may be missing.
pub(crate) type Evidence<'py> = (
    Option<PyReadonlyArray1<'py, u32>>,
    Option<(Csr<'py>, PyReadonlyArray1<'py, f32>)>,
    Option<Csr<'py>>,
    Option<Csr<'py>>,
    Option<(Csr<'py>, Csr<'py>)>,
);

pub(crate) fn new_labels<'a>(
    (weights, bias, edges): &'a Dense<'_>,
    names: Option<&'a LabelNames>,
    (label_counts, ranker, label_texts, cooccurrence, neighbours): &'a Evidence<'_>,
) -> PyResult<NewLabels<'a>> {
    let evidence = NewEvidence {
        label_counts: label_counts.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        ranker: match ranker {
            Some((weights, bias)) => Some((rows(weights)?, bias.as_slice()?)),
            None => None,
        },
        label_texts: label_texts.as_ref().map(rows).transpose()?,
        cooccurrence: cooccurrence.as_ref().map(rows).transpose()?,
        neighbours: match neighbours {
            Some((texts, labels)) => Some((rows(texts)?, rows(labels)?)),
            None => None,
        },
    };
    let (weights, bias, edges) = (weights.as_slice()?, bias.as_slice()?, rows(edges)?);
    Ok(NewLabels { weights, bias, edges, names, evidence })
}

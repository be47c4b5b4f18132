//! Building an index from a caller's arrays, all of which are checked and copied.

use crate::adjacency::Adjacency;
use crate::error::{ArgumentError, Result};
use crate::format::manifest::Dims;
use crate::index::{Checked, Defaults, Index, check_positive};
use crate::label_names::LabelNames;
use crate::matrix::{MAX_IDS, Matrix, Tensor, check_finite};

/// What an index is built from; matrices are row after row.
#[derive(Clone, Copy, Default)]
pub struct IndexParts<'a> {
    /// L, at least 1.
    pub num_labels: usize,
    /// C, at least 1.
    pub num_clusters: usize,
    /// D, at least 1.
    pub dim: usize,
    /// D' with a `label_projection`; without one it is D whatever this says.
    pub label_dim: usize,
    /// `W_C` \[C, D\].
    pub cluster_weights: &'a [f32],
    /// `b_C` \[C\].
    pub cluster_bias: &'a [f32],
    /// CSR offsets \[C+1\], ascending from 0 to nnz.
    pub adjacency_offsets: &'a [i64],
    /// The label of each edge \[nnz\], in any order within a row, but none twice.
    pub adjacency_labels: &'a [i64],
    /// The weight of each edge \[nnz\], in (0, 1].
    pub adjacency_weights: &'a [f32],
    /// `W_L` \[L, D'\].
    pub label_weights: &'a [f32],
    /// `b_L` \[L\].
    pub label_bias: &'a [f32],
    /// T \[D', D\].
    pub label_projection: Option<&'a [f32]>,
    /// The labels' names, L of them.
    pub label_names: Option<&'a LabelNames>,
    /// α, B and S.
    pub defaults: Defaults,
}

impl Index {
    /// Builds an index in memory.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] when the parts don't fit together or hold values that an index
    /// can't have.
    pub fn build(parts: &IndexParts<'_>) -> Result<Self> {
        let dims = check_dims(parts)?;
        parts.defaults.check()?;
        let Dims { num_labels, num_clusters, dim, label_dim } = dims;
        if let Some(names) = parts.label_names {
            check_length("label_names", names.len(), num_labels, 1)?;
        }
        let adjacency = Adjacency::from_csr(
            parts.adjacency_offsets,
            parts.adjacency_labels,
            parts.adjacency_weights,
            num_clusters,
            num_labels,
        )?;
        let label_projection = match parts.label_projection {
            Some(values) => Some(matrix("label_projection", values, label_dim, dim)?),
            None => None,
        };
        Ok(Self::from_checked(Checked {
            dims,
            defaults: parts.defaults,
            cluster_weights: matrix("cluster_weights", parts.cluster_weights, num_clusters, dim)?,
            cluster_bias: vector("cluster_bias", parts.cluster_bias, num_clusters)?,
            adjacency,
            label_weights: matrix("label_weights", parts.label_weights, num_labels, label_dim)?,
            label_bias: vector("label_bias", parts.label_bias, num_labels)?,
            label_projection,
            label_names: parts.label_names.cloned(),
        }))
    }
}

fn check_dims(parts: &IndexParts<'_>) -> Result<Dims, ArgumentError> {
    let label_dim = if parts.label_projection.is_some() { parts.label_dim } else { parts.dim };
    for (name, ids) in [("num_labels", parts.num_labels), ("num_clusters", parts.num_clusters)] {
        check_positive(name, ids)?;
        if ids > MAX_IDS {
            return Err(ArgumentError::TooMany { name, received: ids });
        }
    }
    check_positive("dim", parts.dim)?;
    check_positive("label_dim", label_dim)?;
    Ok(Dims {
        num_labels: parts.num_labels,
        num_clusters: parts.num_clusters,
        dim: parts.dim,
        label_dim,
    })
}

fn check_length(
    name: &'static str,
    received: usize,
    rows: usize,
    cols: usize,
) -> Result<(), ArgumentError> {
    let expected = rows.saturating_mul(cols);
    if received == expected {
        return Ok(());
    }
    Err(ArgumentError::WrongLength { name, expected, received })
}

fn matrix(name: &'static str, values: &[f32], rows: usize, cols: usize) -> Result<Matrix> {
    check_length(name, values.len(), rows, cols)?;
    check_finite(name, values, Some(cols))?;
    Ok(Matrix::new(Tensor::copy_of(values)?, cols))
}

fn vector(name: &'static str, values: &[f32], len: usize) -> Result<Tensor<f32>> {
    check_length(name, values.len(), len, 1)?;
    check_finite(name, values, None)?;
    Tensor::copy_of(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> IndexParts<'static> {
        IndexParts {
            num_labels: 2,
            num_clusters: 1,
            dim: 2,
            label_dim: 1,
            cluster_weights: &[1.0, 2.0],
            cluster_bias: &[0.5],
            adjacency_offsets: &[0, 2],
            adjacency_labels: &[1, 0],
            adjacency_weights: &[0.5, 1.0],
            label_weights: &[1.0, 2.0],
            label_bias: &[3.0, 4.0],
            label_projection: Some(&[5.0, 6.0]),
            label_names: None,
            defaults: Defaults::default(),
        }
    }

    fn message(parts: &IndexParts<'_>) -> String {
        Index::build(parts).err().unwrap().to_string()
    }

    #[test]
    fn parts_come_back() {
        let names = LabelNames::new(&["a", "b"]).unwrap();
        let index = Index::build(&IndexParts { label_names: Some(&names), ..parts() }).unwrap();
        assert_eq!((index.num_labels(), index.num_clusters()), (2, 1));
        assert_eq!((index.dim(), index.label_dim()), (2, 1));
        assert_eq!(index.cluster_weights(), [1.0, 2.0]);
        assert_eq!(index.cluster_bias(), [0.5]);
        assert_eq!(index.adjacency(), (&[0, 2][..], &[0, 1][..], &[1.0, 0.5][..]));
        assert_eq!(index.label_weights(), [1.0, 2.0]);
        assert_eq!(index.label_bias(), [3.0, 4.0]);
        assert_eq!(index.label_projection(), Some(&[5.0, 6.0][..]));
        assert_eq!(index.label_names().unwrap().get(1).unwrap(), "b");
        assert!(index.source().is_none());
        index.verify().unwrap();
        assert_eq!(index.nbytes(), 8 + 4 + 16 + 8 + 8 + 8 + 8 + 8 + 24 + 2);
    }

    #[test]
    fn sizes_of_zero_or_beyond_ids_are_refused() {
        assert!(message(&IndexParts { num_labels: 0, ..parts() }).contains("num_labels"));
        assert!(message(&IndexParts { num_clusters: 0, ..parts() }).contains("num_clusters"));
        assert!(message(&IndexParts { dim: 0, ..parts() }).contains("dim"));
        assert!(message(&IndexParts { label_dim: 0, ..parts() }).contains("label_dim"));
        let many = IndexParts { num_labels: MAX_IDS + 1, ..parts() };
        assert_eq!(message(&many), "num_labels must be at most 4294967294, got 4294967295");
    }

    #[test]
    fn lengths_must_fit() {
        for (name, wrong) in [
            ("cluster_weights", IndexParts { cluster_weights: &[1.0], ..parts() }),
            ("cluster_bias", IndexParts { cluster_bias: &[], ..parts() }),
            ("label_weights", IndexParts { label_weights: &[1.0; 4], ..parts() }),
            ("label_bias", IndexParts { label_bias: &[1.0], ..parts() }),
            ("label_projection", IndexParts { label_projection: Some(&[1.0]), ..parts() }),
            ("adjacency", IndexParts { adjacency_offsets: &[0], ..parts() }),
        ] {
            assert!(message(&wrong).starts_with(name), "{name}");
        }
        let names = LabelNames::new(&["a"]).unwrap();
        let wrong = IndexParts { label_names: Some(&names), ..parts() };
        assert_eq!(message(&wrong), "label_names must have 2 values, got 1");
    }

    #[test]
    fn values_must_be_finite() {
        for (start, wrong) in [
            ("cluster_weights[0, 1]", IndexParts { cluster_weights: &[1.0, f32::NAN], ..parts() }),
            ("cluster_bias[0]", IndexParts { cluster_bias: &[f32::INFINITY], ..parts() }),
            ("label_weights[1, 0]", IndexParts { label_weights: &[1.0, f32::NAN], ..parts() }),
            ("label_bias[0]", IndexParts { label_bias: &[f32::NAN, 0.0], ..parts() }),
            (
                "label_projection[0, 1]",
                IndexParts { label_projection: Some(&[0.0, f32::NAN]), ..parts() },
            ),
        ] {
            assert!(message(&wrong).starts_with(start), "{start}");
        }
    }

    #[test]
    fn defaults_must_make_sense() {
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let defaults = Defaults { alpha, ..Defaults::default() };
            assert!(message(&IndexParts { defaults, ..parts() }).contains("alpha"));
        }
        let defaults = Defaults { beam_size: 0, ..Defaults::default() };
        assert!(message(&IndexParts { defaults, ..parts() }).contains("beam_size"));
        let defaults = Defaults { shortlist_size: 0, ..Defaults::default() };
        assert!(message(&IndexParts { defaults, ..parts() }).contains("shortlist_size"));
    }
}

//! The weighted edges from clusters to labels, as CSR: each row by descending weight, then label.

use crate::error::{ArgumentError, Result};
use crate::format::schema;
use crate::matrix::Tensor;

/// The adjacency matrix A \[C, L\]: `offsets` u64 \[C+1\], `labels` u32 and `weights` f32 \[nnz\].
#[derive(Clone)]
pub(crate) struct Adjacency {
    pub(crate) offsets: Tensor<u64>,
    pub(crate) labels: Tensor<u32>,
    pub(crate) weights: Tensor<f32>,
}

/// A borrowed [`Adjacency`] whose invariants were checked.
#[derive(Clone, Copy)]
pub(crate) struct AdjacencyView<'a> {
    offsets: &'a [u64],
    labels: &'a [u32],
    weights: &'a [f32],
}

impl Adjacency {
    /// Copies a caller's CSR arrays, rows in any order, after checking all of it.
    pub(crate) fn from_csr(
        offsets: &[i64],
        labels: &[i64],
        weights: &[f32],
        num_clusters: usize,
        num_labels: usize,
    ) -> Result<Self> {
        check_offsets(offsets, labels.len(), weights.len(), num_clusters).map_err(bad)?;
        let (labels, weights) = sorted_rows(offsets, labels, weights, num_labels).map_err(bad)?;
        let offsets: Vec<u64> = offsets.iter().map(|&offset| offset.unsigned_abs()).collect();
        Ok(Self {
            offsets: Tensor::copy_of(&offsets)?,
            labels: Tensor::copy_of(&labels)?,
            weights: Tensor::copy_of(&weights)?,
        })
    }

    pub(crate) fn view(&self) -> AdjacencyView<'_> {
        AdjacencyView {
            offsets: self.offsets.as_slice(),
            labels: self.labels.as_slice(),
            weights: self.weights.as_slice(),
        }
    }

    /// Checks stored arrays: offsets ascending from 0 to nnz, label ids below `num_labels`, weights
    /// in (0, 1], rows sorted. `offsets` has C+1 elements and the others nnz each.
    /// A fault is given as the tensor's name and what is wrong with it.
    pub(crate) fn check(&self, num_labels: usize) -> Result<(), (&'static str, String)> {
        let view = self.view();
        let nnz = view.labels.len() as u64;
        let ascending =
            view.offsets.windows(2).fold(true, |good, pair| good & (pair[0] <= pair[1]));
        if view.offsets.first() != Some(&0) || view.offsets.last() != Some(&nnz) || !ascending {
            let message = format!("must ascend from 0 to the number of edges, {nnz}");
            return Err((schema::ADJACENCY_OFFSETS, message));
        }
        if !view.labels.iter().fold(true, |good, &label| good & ((label as usize) < num_labels)) {
            let message = format!("holds an id that is none of the {num_labels} labels");
            return Err((schema::ADJACENCY_LABELS, message));
        }
        if !view.weights.iter().fold(true, |good, &weight| good & is_weight(weight)) {
            return Err((schema::ADJACENCY_WEIGHTS, "holds a weight outside (0, 1]".to_owned()));
        }
        match (0..view.num_rows()).find(|&row| !view.row_is_sorted(row)) {
            Some(row) => {
                let message = format!("row {row} is not by descending weight, then label");
                Err((schema::ADJACENCY_WEIGHTS, message))
            }
            None => Ok(()),
        }
    }
}

impl<'a> AdjacencyView<'a> {
    pub(crate) fn num_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The labels of a cluster and the weights of its edges, best first.
    pub(crate) fn row(&self, cluster: usize) -> (&'a [u32], &'a [f32]) {
        // The offsets index slices that are in memory, so they fit a usize.
        let range = self.offsets[cluster] as usize..self.offsets[cluster + 1] as usize;
        (&self.labels[range.clone()], &self.weights[range])
    }

    fn row_is_sorted(&self, row: usize) -> bool {
        let (labels, weights) = self.row(row);
        let labels_ahead = labels.iter().skip(1);
        let weights_ahead = weights.iter().skip(1);
        let pairs = labels.iter().zip(labels_ahead).zip(weights.iter().zip(weights_ahead));
        pairs.fold(true, |good, ((label, next_label), (weight, next_weight))| {
            good & ((weight > next_weight) | ((weight == next_weight) & (label < next_label)))
        })
    }
}

fn is_weight(weight: f32) -> bool {
    (weight > 0.0) & (weight <= 1.0)
}

fn bad(message: String) -> ArgumentError {
    ArgumentError::BadAdjacency(message)
}

/// Checks the structure of a caller's CSR before anything walks it.
fn check_offsets(
    offsets: &[i64],
    num_labels_given: usize,
    num_weights_given: usize,
    num_clusters: usize,
) -> Result<(), String> {
    if offsets.len() != num_clusters + 1 {
        return Err(format!(
            "indptr must have num_clusters + 1 = {} entries, got {}",
            num_clusters + 1,
            offsets.len()
        ));
    }
    if num_labels_given != num_weights_given {
        return Err(format!(
            "indices and data must have the same length, got {num_labels_given} and {num_weights_given}"
        ));
    }
    if offsets[0] != 0 {
        return Err(format!("indptr must start at 0, got {}", offsets[0]));
    }
    if let Some(row) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(format!(
            "indptr decreases at row {row}, from {} to {}",
            offsets[row],
            offsets[row + 1]
        ));
    }
    if offsets[num_clusters] != num_labels_given as i64 {
        return Err(format!(
            "indptr must end at the number of entries, {num_labels_given}, got {}",
            offsets[num_clusters]
        ));
    }
    Ok(())
}

/// The rows sorted by descending weight, then label, once each edge is known to be good.
fn sorted_rows(
    offsets: &[i64],
    labels: &[i64],
    weights: &[f32],
    num_labels: usize,
) -> Result<(Vec<u32>, Vec<f32>), String> {
    let mut out_labels = Vec::with_capacity(labels.len());
    let mut out_weights = Vec::with_capacity(weights.len());
    let mut edges: Vec<(u32, u32)> = Vec::new();
    for (row, pair) in offsets.windows(2).enumerate() {
        let range = pair[0] as usize..pair[1] as usize;
        edges.clear();
        for (at, (&label, &weight)) in labels[range.clone()].iter().zip(&weights[range]).enumerate()
        {
            edges.push(checked_edge(row, pair[0] as usize + at, label, weight, num_labels)?);
        }
        sort_row(row, &mut edges)?;
        out_labels.extend(edges.iter().map(|edge| edge.1));
        out_weights.extend(edges.iter().map(|edge| f32::from_bits(!edge.0)));
    }
    Ok((out_labels, out_weights))
}

/// An edge as a pair that sorts by descending weight, then label.
fn checked_edge(
    row: usize,
    position: usize,
    label: i64,
    weight: f32,
    num_labels: usize,
) -> Result<(u32, u32), String> {
    if label < 0 || label >= num_labels as i64 {
        return Err(format!(
            "indices[{position}] (row {row}) is {label}, must be from 0 to {}",
            num_labels - 1
        ));
    }
    if !is_weight(weight) {
        let hint =
            if weight == 0.0 { "; drop explicit zeros, eliminate_zeros() in SciPy" } else { "" };
        return Err(format!(
            "data[{position}] (row {row}) is {weight}, must be in (0, 1] as float32{hint}"
        ));
    }
    Ok((!weight.to_bits(), label as u32))
}

/// Sorts a row's edges and refuses a label that occurs twice.
fn sort_row(row: usize, edges: &mut [(u32, u32)]) -> Result<(), String> {
    edges.sort_unstable_by_key(|edge| edge.1);
    if let Some(pair) = edges.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        return Err(format!(
            "label {} occurs twice in row {row}; sum_duplicates() in SciPy merges them",
            pair[0].1
        ));
    }
    edges.sort_unstable();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn build(offsets: &[i64], labels: &[i64], weights: &[f32]) -> Result<Adjacency> {
        Adjacency::from_csr(offsets, labels, weights, 2, 4)
    }

    #[test]
    fn rows_are_sorted_by_weight_then_label() {
        let adjacency = build(&[0, 4, 4], &[3, 2, 1, 0], &[0.5, 1.0, 0.5, 0.25]).unwrap();
        let (labels, weights) = adjacency.view().row(0);
        assert_eq!(labels, [2, 1, 3, 0]);
        assert_eq!(weights, [1.0, 0.5, 0.5, 0.25]);
        assert_eq!(adjacency.view().row(1), (&[][..], &[][..]));
        adjacency.check(4).unwrap();
    }

    #[test]
    fn broken_csr_arrays_are_refused() {
        type Case = (&'static [i64], &'static [i64], &'static [f32], &'static str);
        let cases: [Case; 14] = [
            (&[0, 1], &[0], &[1.0], "entries, got 2"),
            (&[1, 1, 1], &[0], &[1.0], "start at 0"),
            (&[0, 2, 1], &[0], &[1.0], "decreases at row 1"),
            (&[0, -1, 1], &[0], &[1.0], "decreases at row 0"),
            (&[0, 1, 2], &[0], &[1.0], "must end at"),
            (&[0, 1, i64::MAX], &[0], &[1.0], "must end at"),
            (&[0, 1, 1], &[0], &[1.0, 1.0], "same length, got 1 and 2"),
            (&[0, 1, 2], &[0, 4], &[1.0, 1.0], "indices[1] (row 1) is 4"),
            (&[0, 1, 2], &[0, -1], &[1.0, 1.0], "indices[1] (row 1) is -1"),
            (&[0, 1, 2], &[0, 1], &[1.0, 0.0], "data[1] (row 1) is 0"),
            (&[0, 1, 2], &[0, 1], &[-0.5, 1.0], "data[0] (row 0) is -0.5"),
            (&[0, 1, 2], &[0, 1], &[1.5, 1.0], "data[0] (row 0) is 1.5"),
            (&[0, 1, 2], &[0, 1], &[f32::NAN, 1.0], "data[0] (row 0) is NaN"),
            (&[0, 3, 3], &[1, 2, 1], &[1.0, 0.5, 0.5], "label 1 occurs twice in row 0"),
        ];
        for (offsets, labels, weights, message) in cases {
            let error = build(offsets, labels, weights).err().unwrap();
            assert!(matches!(error, Error::Argument(ArgumentError::BadAdjacency(_))));
            assert!(error.to_string().contains(message), "{error} lacks {message}");
        }
    }

    #[test]
    fn stored_arrays_are_checked() {
        let stored = |offsets: &[u64], labels: &[u32], weights: &[f32]| {
            let adjacency = Adjacency {
                offsets: Tensor::copy_of(offsets).unwrap(),
                labels: Tensor::copy_of(labels).unwrap(),
                weights: Tensor::copy_of(weights).unwrap(),
            };
            adjacency.check(4)
        };
        assert_eq!(stored(&[0, 2, 2, 3], &[1, 0, 3], &[1.0, 0.5, 1.0]), Ok(()));
        assert!(stored(&[0, 2, 1, 3], &[1, 0, 3], &[1.0, 0.5, 1.0]).is_err(), "decreasing");
        assert!(stored(&[0, u64::MAX, 3], &[1, 0, 3], &[1.0, 0.5, 1.0]).is_err(), "far");
        assert!(stored(&[1, 2, 3], &[1, 0, 3], &[1.0, 0.5, 1.0]).is_err(), "start");
        assert!(stored(&[0, 2], &[1, 0, 3], &[1.0, 0.5, 1.0]).is_err(), "end");
        assert!(stored(&[0, 3], &[1, 0, 4], &[1.0, 0.5, 0.1]).is_err(), "id");
        assert!(stored(&[0, 3], &[1, 0, 3], &[1.0, 0.5, 0.0]).is_err(), "weight 0");
        assert!(stored(&[0, 3], &[1, 0, 3], &[1.0, 0.5, f32::NAN]).is_err(), "NaN");
        assert!(stored(&[0, 3], &[1, 0, 3], &[0.5, 1.0, 1.0]).is_err(), "ascending");
        assert!(stored(&[0, 3], &[1, 3, 0], &[1.0, 0.5, 0.5]).is_err(), "tie by label");
    }
}

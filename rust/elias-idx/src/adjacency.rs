//! The weighted edges from clusters to labels, as CSR: each row by descending weight, then label.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::schema;
use crate::matrix::Tensor;

/// The adjacency matrix A \[C, L\]: `offsets` u64 \[C+1\], `labels` u32 and `weights` f32 \[nnz\].
#[derive(Clone)]
pub(crate) struct Adjacency {
    pub(crate) offsets: Tensor<u64>,
    pub(crate) labels: Tensor<u32>,
    pub(crate) weights: Tensor<f32>,
    sketch: Arc<Sketch>,
}

/// A borrowed [`Adjacency`].
#[derive(Clone, Copy)]
pub(crate) struct AdjacencyView<'a> {
    rows: CsrRows<'a>,
    sketch: &'a Sketch,
}

/// The CSR arrays of an adjacency.
#[derive(Clone, Copy)]
struct CsrRows<'a> {
    offsets: &'a [u64],
    labels: &'a [u32],
    weights: &'a [f32],
}

/// What is wrong with a stored tensor: its name, and the fault.
pub(crate) type Fault = (&'static str, String);

impl Adjacency {
    /// Takes stored arrays, `offsets` of C+1 elements and the others of nnz each, if they are as
    /// they should be: offsets ascending from 0 to nnz, label ids below `num_labels`, weights in
    /// (0, 1], rows by descending weight, then label.
    pub(crate) fn from_stored(
        offsets: Tensor<u64>,
        labels: Tensor<u32>,
        weights: Tensor<f32>,
        num_labels: usize,
    ) -> Result<Result<Self, Fault>> {
        let rows = CsrRows {
            offsets: offsets.as_slice(),
            labels: labels.as_slice(),
            weights: weights.as_slice(),
        };
        if let Err(fault) = rows.check_offsets() {
            return Ok(Err(fault));
        }
        // All of a row at once, while it is in the cache.
        let mut sketch = Sketch::with_room_for(rows)?;
        for row in 0..rows.len() {
            if let Err(fault) = rows.check_row(row, num_labels) {
                return Ok(Err(fault));
            }
            sketch.push(rows, row);
        }
        Ok(Ok(Self { offsets, labels, weights, sketch: Arc::new(sketch) }))
    }

    pub(crate) fn view(&self) -> AdjacencyView<'_> {
        let rows = CsrRows {
            offsets: self.offsets.as_slice(),
            labels: self.labels.as_slice(),
            weights: self.weights.as_slice(),
        };
        AdjacencyView { rows, sketch: &self.sketch }
    }
}

impl<'a> AdjacencyView<'a> {
    pub(crate) fn num_rows(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn num_edges(&self) -> usize {
        self.rows.labels.len()
    }

    /// The labels of a cluster and the weights of its edges, best first.
    pub(crate) fn row(&self, cluster: usize) -> (&'a [u32], &'a [f32]) {
        self.rows.row(cluster)
    }

    /// The weights that stand for [`SKETCH_STEP`] edges of a cluster each, best first.
    pub(crate) fn sketch(&self, cluster: usize) -> &'a [f32] {
        self.sketch.row(self.rows, cluster)
    }

    /// How many of a cluster's weights satisfy `reaches`, which holds up to some weight and not
    /// from there on.
    #[inline]
    pub(crate) fn prefix_len(&self, cluster: usize, reaches: impl Fn(&f32) -> bool) -> usize {
        let (_, weights) = self.row(cluster);
        // The prefix ends between the middles of two neighbouring groups of edges.
        let groups = self.sketch(cluster).partition_point(&reaches);
        let start = groups.saturating_sub(1) * SKETCH_STEP;
        let end = ((groups + 1) * SKETCH_STEP).min(weights.len());
        start + weights[start..end].partition_point(&reaches)
    }
}

impl<'a> CsrRows<'a> {
    fn len(self) -> usize {
        self.offsets.len() - 1
    }

    fn range(self, row: usize) -> Range<usize> {
        // The offsets index slices that are in memory, so they fit a usize.
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    fn row(self, row: usize) -> (&'a [u32], &'a [f32]) {
        let range = self.range(row);
        (&self.labels[range.clone()], &self.weights[range])
    }

    fn check_offsets(self) -> Result<(), Fault> {
        let nnz = self.labels.len() as u64;
        let ascending =
            self.offsets.windows(2).fold(true, |good, pair| good & (pair[0] <= pair[1]));
        if self.offsets.first() != Some(&0) || self.offsets.last() != Some(&nnz) || !ascending {
            let message = format!("must ascend from 0 to the number of edges, {nnz}");
            return Err((schema::ADJACENCY_OFFSETS, message));
        }
        Ok(())
    }

    fn check_row(self, row: usize, num_labels: usize) -> Result<(), Fault> {
        // Without branches between the edges, so that each of these vectorises.
        let (labels, weights) = self.row(row);
        if !labels.iter().fold(true, |good, &label| good & ((label as usize) < num_labels)) {
            let message = format!("row {row} holds an id that is none of the {num_labels} labels");
            return Err((schema::ADJACENCY_LABELS, message));
        }
        if !weights.iter().fold(true, |good, &weight| good & is_weight(weight)) {
            let message = format!("row {row} holds a weight outside (0, 1]");
            return Err((schema::ADJACENCY_WEIGHTS, message));
        }
        if !is_sorted(labels, weights) {
            let message = format!("row {row} is not by descending weight, then label");
            return Err((schema::ADJACENCY_WEIGHTS, message));
        }
        Ok(())
    }
}

/// Edges that one weight of a sketch stands for.
pub(crate) const SKETCH_STEP: usize = 16;

/// The middle weight of every [`SKETCH_STEP`] edges of each row. A search looks at these few
/// numbers, which are close together, to find where a row's weights fall below a bound.
struct Sketch(Vec<f32>);

impl Sketch {
    fn with_room_for(rows: CsrRows<'_>) -> Result<Self> {
        let len = Self::start(rows.len(), rows.labels.len());
        let bytes = len.saturating_mul(size_of::<f32>());
        let mut weights = Vec::new();
        weights
            .try_reserve_exact(len)
            .map_err(|_| Error::OutOfMemory { what: "index tensors", bytes })?;
        Ok(Self(weights))
    }

    /// Adds the next row.
    fn push(&mut self, rows: CsrRows<'_>, row: usize) {
        let range = rows.range(row);
        self.0.resize(Self::start(row, range.start), 0.0);
        let groups = rows.weights[range].chunks(SKETCH_STEP);
        self.0.extend(groups.map(|group| group[group.len() / 2]));
    }

    fn row(&self, rows: CsrRows<'_>, row: usize) -> &[f32] {
        let range = rows.range(row);
        let start = Self::start(row, range.start);
        &self.0[start..start + range.len().div_ceil(SKETCH_STEP)]
    }

    /// Where a row's part begins, by its first edge. That leaves each row its share of the edges
    /// before rounded down, and one more: at least its share rounded up.
    fn start(row: usize, first_edge: usize) -> usize {
        first_edge / SKETCH_STEP + row
    }
}

fn is_sorted(labels: &[u32], weights: &[f32]) -> bool {
    let labels_ahead = labels.iter().skip(1);
    let weights_ahead = weights.iter().skip(1);
    let pairs = labels.iter().zip(labels_ahead).zip(weights.iter().zip(weights_ahead));
    pairs.fold(true, |good, ((label, next_label), (weight, next_weight))| {
        good & ((weight > next_weight) | ((weight == next_weight) & (label < next_label)))
    })
}

/// Whether an edge may have this weight.
pub(crate) fn is_weight(weight: f32) -> bool {
    (weight > 0.0) & (weight <= 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stored_arrays_are_checked() {
        let stored = |offsets: &[u64], labels: &[u32], weights: &[f32]| {
            let offsets = Tensor::copy_of(offsets).unwrap();
            let (labels, weights) = (Tensor::copy_of(labels), Tensor::copy_of(weights));
            Adjacency::from_stored(offsets, labels.unwrap(), weights.unwrap(), 4).unwrap()
        };
        assert!(stored(&[0, 2, 2, 3], &[1, 0, 3], &[1.0, 0.5, 1.0]).is_ok());
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

    proptest! {
        #[test]
        fn a_prefix_is_as_long_as_the_weights_say(
            lens in prop::collection::vec(0..100_usize, 1..8),
            levels in prop::collection::vec(1..=40_u8, 800),
            bound in 0..=41_u8,
        ) {
            let offsets: Vec<u64> =
                (0..=lens.len()).map(|row| lens[..row].iter().sum::<usize>() as u64).collect();
            let labels: Vec<u32> = lens.iter().flat_map(|&len| 0..len as u32).collect();
            let mut weights: Vec<f32> =
                levels[..labels.len()].iter().map(|&level| f32::from(level) / 40.0).collect();
            for range in offsets.windows(2) {
                weights[range[0] as usize..range[1] as usize].sort_by(|a, b| b.total_cmp(a));
            }
            let (offsets, labels) = (Tensor::copy_of(&offsets), Tensor::copy_of(&labels));
            let weights = Tensor::copy_of(&weights).unwrap();
            let adjacency =
                Adjacency::from_stored(offsets.unwrap(), labels.unwrap(), weights, 100).unwrap().unwrap();
            let bound = f32::from(bound) / 40.0;
            for (row, &len) in lens.iter().enumerate() {
                let (_, weights) = adjacency.view().row(row);
                prop_assert_eq!(adjacency.view().sketch(row).len(), len.div_ceil(SKETCH_STEP));
                let prefix_len = adjacency.view().prefix_len(row, |weight| *weight >= bound);
                prop_assert_eq!(prefix_len, weights.iter().filter(|w| **w >= bound).count());
            }
        }
    }
}

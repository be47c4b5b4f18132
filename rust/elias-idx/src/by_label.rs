//! The adjacency the other way round: from labels to the clusters that lead to them.

use std::ops::Range;

use crate::adjacency::AdjacencyView;
use crate::error::{Error, Result};
use crate::storage::zeros;

/// The edges of each label, ascending by cluster.
pub(crate) struct ByLabel {
    /// L+2, of which the first L+1 delimit rows of `edges`.
    offsets: Vec<usize>,
    edges: Vec<Edge>,
}

/// One edge, seen from its label.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Edge {
    pub(crate) cluster: u32,
    pub(crate) weight: f32,
}

impl ByLabel {
    /// Sorts all edges by label. `stopped` is asked row by row; when it says so, this ends with
    /// [`Error::Interrupted`].
    pub(crate) fn new(
        adjacency: AdjacencyView<'_>,
        num_labels: usize,
        stopped: &mut dyn FnMut() -> bool,
    ) -> Result<Self> {
        let rows = || (0..adjacency.num_rows()).map(|cluster| adjacency.row(cluster));
        // A counting sort. Counts stand two places on, so that, once summed up, the start of a
        // label's edges stands one place on; placing its edges moves it to their end, which is
        // where the next label's begin.
        let mut offsets = zeros("edges by label", num_labels + 2)?;
        for (labels, _) in rows() {
            if stopped() {
                return Err(Error::Interrupted);
            }
            labels.iter().for_each(|&label| offsets[label as usize + 2] += 1);
        }
        let mut total = 0;
        for offset in &mut offsets {
            total += *offset;
            *offset = total;
        }
        let mut edges = zeros("edges by label", total)?;
        for (cluster, (labels, weights)) in (0..).zip(rows()) {
            if stopped() {
                return Err(Error::Interrupted);
            }
            for (&label, &weight) in labels.iter().zip(weights) {
                let place: &mut usize = &mut offsets[label as usize + 1];
                edges[*place] = Edge { cluster, weight };
                *place += 1;
            }
        }
        Ok(Self { offsets, edges })
    }

    /// The edges that lead to a label.
    pub(crate) fn row(&self, label: u32) -> &[Edge] {
        &self.edges[self.range(label)]
    }

    /// Copies the edges of `labels` into `rows`, in place of what was there.
    pub(crate) fn gather(&self, labels: &[u32], rows: &mut GatheredRows) {
        rows.edges.clear();
        rows.ends.clear();
        for labels in labels.chunks(GATHERED_AT_ONCE) {
            // GatheredRows lie anywhere in memory. One look at each of them first, with nothing that waits
            // for what is seen, has the memory deliver them together instead of one by one.
            let seen = labels.iter().fold(0, |seen, &label| {
                seen ^ self.edges.get(self.range(label).start).map_or(0, |edge| edge.cluster)
            });
            std::hint::black_box(seen);
            for &label in labels {
                rows.edges.extend_from_slice(self.row(label));
                rows.ends.push(rows.edges.len());
            }
        }
    }

    #[inline]
    fn range(&self, label: u32) -> Range<usize> {
        self.offsets[label as usize]..self.offsets[label as usize + 1]
    }
}

const GATHERED_AT_ONCE: usize = 64;

/// The edges of some labels, row after row.
#[derive(Default)]
pub(crate) struct GatheredRows {
    edges: Vec<Edge>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl GatheredRows {
    pub(crate) fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The edges of each label.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Edge]> {
        self.ends.iter().scan(0, |start, &end| {
            let row = &self.edges[*start..end];
            *start = end;
            Some(row)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adjacency::Adjacency;
    use crate::lazy::Lazy;
    use crate::matrix::Tensor;

    fn adjacency(rows: &[Vec<bool>], num_labels: usize) -> Adjacency {
        let (mut offsets, mut labels) = (vec![0_u64], Vec::new());
        for row in rows {
            labels.extend((0..).zip(row).filter(|pair| *pair.1).map(|pair| pair.0));
            offsets.push(labels.len() as u64);
        }
        let weights: Vec<f32> = (1..=labels.len()).map(|i| 1.0 / i as f32).collect();
        let (offsets, labels) = (Tensor::copy_of(&offsets), Tensor::copy_of(&labels));
        let weights = Tensor::copy_of(&weights).unwrap();
        Adjacency::from_stored(offsets.unwrap(), labels.unwrap(), weights, num_labels)
            .unwrap()
            .unwrap()
    }

    proptest! {
        #[test]
        fn it_holds_the_same_edges(
            rows in prop::collection::vec(prop::collection::vec(any::<bool>(), 20), 1..9),
        ) {
            let adjacency = adjacency(&rows, 20);
            let view = adjacency.view();
            let by_label = ByLabel::new(view, 20, &mut || false).unwrap();
            for label in 0..20 {
                let expected: Vec<Edge> = (0..rows.len())
                    .filter_map(|cluster| {
                        let (labels, weights) = view.row(cluster);
                        let at = labels.iter().position(|&other| other == label)?;
                        Some(Edge { cluster: cluster as u32, weight: weights[at] })
                    })
                    .collect();
                prop_assert_eq!(by_label.row(label), expected);
            }
            let mut gathered = GatheredRows::default();
            for labels in [&[3, 19, 0, 3][..], &[7; 100], &[]] {
                by_label.gather(labels, &mut gathered);
                let expected: Vec<&[Edge]> =
                    labels.iter().map(|&label| by_label.row(label)).collect();
                prop_assert_eq!(gathered.iter().collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn a_stop_leaves_it_to_the_next_call() {
        let adjacency = adjacency(&[vec![true; 3], vec![true; 3]], 3);
        let lazy = Lazy::default();
        let make = |stopped: &mut dyn FnMut() -> bool| ByLabel::new(adjacency.view(), 3, stopped);
        for calls_before_stop in 0..4 {
            let mut calls = 0;
            let result = lazy.get(make, &mut || {
                calls += 1;
                calls > calls_before_stop
            });
            assert!(matches!(result, Err(Error::Interrupted)));
        }
        assert_eq!(lazy.get(make, &mut || false).unwrap().row(2).len(), 2);
    }
}

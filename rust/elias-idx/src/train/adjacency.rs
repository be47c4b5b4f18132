//! The clusters that a step's beams reach: their edges' weights, and what these learn.

use std::sync::atomic::{AtomicBool, Ordering};

use super::inputs::{AdjacencyRows, Logits};
use super::rows::{Mode, RowGradients, TableRows};
use super::{check, checked_id};
use crate::error::Result;
use crate::kernels::{Kernels, RowValues};
use crate::threads::{Loops, Team};

/// No cluster: padding of a beam.
pub(super) const NONE: u32 = u32::MAX;

/// The T clusters in the beams of a batch, numbered anew, and their edges. An edge's *slot* is its
/// cluster's new number times κ, plus its place in the cluster's row.
#[derive(Default)]
pub(super) struct Reached {
    /// By ascending id.
    pub(super) clusters: Vec<u32>,
    /// \[Q, B\]: new numbers, padded with [`NONE`].
    pub(super) beam: Vec<u32>,
    /// \[T, κ\]: β · softmax of the logits; empty where all weights are 1.
    scaled: Vec<f32>,
}

/// The learned logits \[C, κ\] of the adjacency.
pub(super) struct LearnedLogits<'a> {
    pub(super) table: TableRows<'a>,
    pub(super) beta: f64,
}

impl<'a> LearnedLogits<'a> {
    /// # Errors
    /// Arrays whose lengths don't fit.
    pub(super) fn new(logits: Logits<'a>, rows: &AdjacencyRows<'_>) -> Result<Self> {
        let table = TableRows::new(logits.table)?;
        let fits = table.dim == rows.width && table.num_rows == rows.lengths.len();
        check(fits && !table.has_bias(), || {
            "the adjacency's logits must be as many as its labels, without bias".into()
        })?;
        check(logits.beta > 0.0, || "beta must be positive".into())?;
        Ok(Self { table, beta: logits.beta })
    }
}

impl Reached {
    /// Numbers the clusters of the beams.
    ///
    /// # Errors
    /// Ids below −1 or of no cluster.
    pub(super) fn fill(&mut self, beam: &[i64], num_clusters: usize) -> Result<()> {
        self.clusters.clear();
        for &cluster in beam.iter().filter(|&&cluster| cluster != -1) {
            self.clusters.push(checked_id("the beam", cluster, num_clusters)? as u32);
        }
        self.clusters.sort_unstable();
        self.clusters.dedup();
        self.beam.clear();
        let number = |cluster: i64| {
            let found = u32::try_from(cluster).ok().map(|id| self.clusters.binary_search(&id));
            found.map_or(NONE, |number| number.expect("it was put there") as u32)
        };
        self.beam.extend(beam.iter().map(|&cluster| number(cluster)));
        self.scaled.clear();
        Ok(())
    }

    /// Computes the weights of the clusters' edges. Returns whether they are numbers.
    ///
    /// # Errors
    /// Those of the loops.
    pub(super) fn compute_weights(
        &mut self,
        logits: &LearnedLogits<'_>,
        rows: &AdjacencyRows<'_>,
        kernels: Kernels,
        team: &mut Team<'_>,
    ) -> Result<bool> {
        let len = self.clusters.len() * rows.width;
        self.scaled.resize(len, 0.0);
        let (clusters, all_valid) = (&self.clusters, AtomicBool::new(true));
        team.for_each_part(&mut self.scaled, rows.width, &|number, scaled| {
            let cluster = clusters[number] as usize;
            // SAFETY: rows are updated only when all weights are computed.
            if let RowValues::Float32(logits) = unsafe { logits.table.values(cluster) } {
                scaled.copy_from_slice(logits);
            }
            let (row, padding) = scaled.split_at_mut(rows.len(cluster));
            // The softmax would make them finite.
            if !row.iter().all(|logit| *logit < f32::INFINITY) {
                all_valid.store(false, Ordering::Relaxed);
            }
            kernels.scaled_softmax(row, logits.beta);
            padding.fill(0.0);
        })?;
        Ok(all_valid.into_inner())
    }

    /// The weight of the edge in a slot.
    #[inline]
    pub(super) fn weight(&self, slot: usize) -> f32 {
        self.scaled.get(slot).map_or(1.0, |scaled| scaled.min(1.0))
    }

    /// β · softmax of a cluster's logits, by its new number; None where all weights are 1.
    #[inline]
    pub(super) fn scaled(&self, number: usize, rows: &AdjacencyRows<'_>) -> Option<&[f32]> {
        let cluster = self.clusters[number] as usize;
        self.scaled
            .get(number * rows.width..)
            .filter(|row| !row.is_empty())
            .map(|row| &row[..rows.len(cluster)])
    }

    /// Makes gradients \[T, κ\] by the weights those by the logits, and applies or returns them.
    ///
    /// # Errors
    /// Those of the loops.
    pub(super) fn finish(
        &self,
        logits: &LearnedLogits<'_>,
        rows: &AdjacencyRows<'_>,
        gradient: &mut [f32],
        mode: Mode,
        kernels: Kernels,
        team: &mut Team<'_>,
    ) -> Result<RowGradients> {
        let (clusters, scaled) = (&self.clusters, &self.scaled);
        team.for_each_part(gradient, rows.width, &|number, gradient| {
            let cluster = clusters[number] as usize;
            let len = rows.len(cluster);
            let scaled = &scaled[number * rows.width..][..len];
            kernels.softmax_gradient(scaled, logits.beta as f32, &mut gradient[..len]);
            if mode == Mode::Apply {
                // SAFETY: each cluster is there once.
                unsafe { logits.table.update(kernels, cluster, gradient, 0.0) };
            }
        })?;
        if mode == Mode::Apply {
            return Ok(RowGradients::default());
        }
        let rows = self.clusters.iter().map(|&cluster| i64::from(cluster)).collect();
        Ok(RowGradients { rows, weight: gradient.to_vec(), bias: Vec::new() })
    }
}

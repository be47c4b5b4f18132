//! What is known of a query and each of its candidates: a table of numbers, a column for each kind.

use super::Fusion;
use super::candidates::Candidates;
use super::query_features::QueryFeatures;
use super::sparse_matrix::SparseMatrix;
use crate::kernels::{Lanes, TREE_LANES};
use crate::search::plan::Plan;

/// Numbers that are known of a pair of a query and a label.
pub(crate) const NUM_COLUMNS: usize = 15;

/// Their names. Those of parts that an index lacks are 0.
pub const EVIDENCE: [&str; NUM_COLUMNS] = [
    "logit",
    "log_path",
    "found",
    "log_dense",
    "log_dense_gap",
    "margin",
    "log_hinge",
    "margin_gap",
    "vote_share",
    "log_votes",
    "nearest",
    "best_neighbour",
    "log_frequency",
    "name_overlap",
    "log_cooccurrence",
];

/// Their places.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// w · T e + b of the dense model, within ±[`MAX_LOGIT`].
    Logit,
    /// log s of the path score s, at least [`MIN_LOG_PATH`]. For labels that the dense search didn't return it is one
    /// less than the smallest of those that it did: further away would say more than is known.
    LogPath,
    /// 1 if the dense search returned the label, else 0.
    Found,
    /// log s + log σ(logit), at least [`MIN_LOG_DENSE`].
    LogDense,
    /// The same, less the largest of the query's candidates.
    LogDenseGap,
    /// w · x + b of the sparse ranker, within ±[`MAX_LOGIT`].
    Margin,
    /// −max(0, 1 − margin)³, at least [`MIN_LOG_HINGE`].
    LogHinge,
    /// The margin, less the largest of the query's candidates.
    MarginGap,
    /// The votes of the neighbours that have the label, divided by those of all neighbours.
    VoteShare,
    /// log(votes + [`LEAST_VOTES`]).
    LogVotes,
    /// The largest cosine of the neighbours that have the label.
    Nearest,
    /// The largest cosine of all neighbours.
    BestNeighbour,
    /// log(1 + training texts that have the label).
    LogFrequency,
    /// The cosine of the query's features and those of the label's own text.
    NameOverlap,
    /// log(Σ e^[`LogDense`](Column::LogDense) m · share of the texts with m that have the label + [`LEAST_SHARE`]), over the
    /// [`COMPANIONS`] best labels m of the dense search.
    LogCooccurrence,
}

const MAX_LOGIT: f32 = 30.0;
const MIN_LOG_PATH: f32 = -20.0;
const MIN_LOG_DENSE: f32 = -40.0;
const MIN_LOG_HINGE: f32 = -27.0;
const LEAST_VOTES: f32 = 1e-3;
const MAX_LOG_VOTES: f32 = 30.0;
const COMPANIONS: usize = 10;
const LEAST_SHARE: f32 = 1e-3;

/// The evidence of a query's candidates: column after column, each in whole blocks, the last one filled up with zeros.
#[derive(Default)]
pub(crate) struct EvidenceTable {
    len: usize,
    blocks: Vec<Lanes>,
}

/// What a query's neighbours have in common.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Neighbourhood {
    /// Σ cosine³.
    pub(crate) votes: f32,
    /// The largest cosine.
    pub(crate) nearest: f32,
}

impl EvidenceTable {
    pub(crate) fn blocks(&self) -> &[Lanes] {
        &self.blocks
    }

    /// Blocks of a column.
    pub(crate) fn num_blocks(&self) -> usize {
        self.len.div_ceil(TREE_LANES)
    }

    pub(crate) fn value(&self, column: usize, row: usize) -> f32 {
        self.column(column)[row]
    }

    fn column(&self, column: usize) -> &[f32] {
        let blocks = self.num_blocks();
        &self.blocks[column * blocks..][..blocks].as_flattened()[..self.len]
    }

    fn column_mut(&mut self, column: Column) -> &mut [f32] {
        let blocks = self.num_blocks();
        &mut self.blocks[column as usize * blocks..][..blocks].as_flattened_mut()[..self.len]
    }

    /// Takes the evidence of a query's candidates. `label_query` is what label classifiers are multiplied with.
    pub(crate) fn fill(
        &mut self,
        plan: &Plan<'_>,
        fusion: &Fusion,
        label_query: &[f32],
        features: &QueryFeatures,
        candidates: &Candidates,
        neighbourhood: Neighbourhood,
    ) {
        let labels = &candidates.labels[..];
        self.len = labels.len();
        self.blocks.clear();
        self.blocks.resize(NUM_COLUMNS * self.num_blocks(), [0.0; TREE_LANES]);
        self.fill_dense(plan, label_query, candidates);
        if let Some(ranker) = &fusion.ranker {
            let margins = self.column_mut(Column::Margin);
            features.dots(&ranker.rows, labels, margins);
            let bias = ranker.bias.as_slice();
            for (margin, &label) in margins.iter_mut().zip(labels) {
                *margin = clip(*margin + bias[label as usize], -MAX_LOGIT, MAX_LOGIT);
            }
            self.map(Column::Margin, Column::LogHinge, |margin| {
                (-(1.0 - margin).max(0.0).powi(3)).max(MIN_LOG_HINGE)
            });
            self.subtract_largest(Column::Margin, Column::MarginGap);
        }
        if fusion.neighbours.is_some() {
            self.fill_votes(candidates, neighbourhood);
        }
        let counts = fusion.label_counts.as_slice();
        for (value, &label) in self.column_mut(Column::LogFrequency).iter_mut().zip(labels) {
            *value = (counts[label as usize] as f32).ln_1p();
        }
        if let Some(texts) = &fusion.label_texts {
            let overlaps = self.column_mut(Column::NameOverlap);
            features.dots(texts, labels, overlaps);
            overlaps.iter_mut().for_each(|overlap| *overlap = clip(*overlap, -1.0, 1.0));
        }
        if let Some(cooccurrence) = &fusion.cooccurrence {
            self.fill_cooccurrence(cooccurrence, candidates);
        }
    }

    fn fill_dense(&mut self, plan: &Plan<'_>, label_query: &[f32], candidates: &Candidates) {
        let labels = &candidates.labels;
        let logits = self.column_mut(Column::Logit);
        plan.kernels.linear_rows(plan.label_rows, plan.label_bias, labels, label_query, logits);
        logits.iter_mut().for_each(|logit| *logit = clip(*logit, -MAX_LOGIT, MAX_LOGIT));
        self.map(Column::Logit, Column::LogDense, |logit| {
            // log σ, without overflow.
            logit.min(0.0) - (-logit.abs()).exp().ln_1p()
        });
        let num_found = candidates.num_dense;
        let (found, others) = self.column_mut(Column::LogPath).split_at_mut(num_found);
        for (value, path_score) in found.iter_mut().zip(&candidates.path_scores) {
            *value = clip(path_score.ln(), MIN_LOG_PATH, 0.0);
        }
        others.fill(found.iter().copied().fold(0.0, f32::min) - 1.0);
        self.column_mut(Column::Found)[..num_found].fill(1.0);
        for row in 0..self.len {
            let sum = self.value(Column::LogDense as usize, row)
                + self.value(Column::LogPath as usize, row);
            self.column_mut(Column::LogDense)[row] = sum.max(MIN_LOG_DENSE);
        }
        self.subtract_largest(Column::LogDense, Column::LogDenseGap);
    }

    fn fill_votes(&mut self, candidates: &Candidates, neighbourhood: Neighbourhood) {
        for (row, (&votes, &nearest)) in
            candidates.votes.iter().zip(&candidates.nearest).enumerate()
        {
            let share = if votes > 0.0 { votes / neighbourhood.votes } else { 0.0 };
            self.column_mut(Column::VoteShare)[row] = clip(share, 0.0, 1.0);
            let log_votes = (votes + LEAST_VOTES).ln();
            self.column_mut(Column::LogVotes)[row] = log_votes.min(MAX_LOG_VOTES);
            self.column_mut(Column::Nearest)[row] = clip(nearest, 0.0, 1.0);
        }
        let best = clip(neighbourhood.nearest, 0.0, 1.0);
        self.column_mut(Column::BestNeighbour).fill(best);
    }

    fn fill_cooccurrence(&mut self, cooccurrence: &SparseMatrix, candidates: &Candidates) {
        for row in 0..candidates.num_dense.min(COMPANIONS) {
            let probability = self.value(Column::LogDense as usize, row).exp();
            let (labels, shares) = cooccurrence.row(candidates.labels[row] as usize);
            let sums = self.column_mut(Column::LogCooccurrence);
            for (&label, share) in labels.iter().zip(shares) {
                if let Some(place) = candidates.place(label) {
                    sums[place] += probability * clip(*share, 0.0, 1.0);
                }
            }
        }
        self.map(Column::LogCooccurrence, Column::LogCooccurrence, |sum| (sum + LEAST_SHARE).ln());
    }

    /// Fills a column from another one.
    fn map(&mut self, from: Column, to: Column, function: impl Fn(f32) -> f32) {
        for row in 0..self.len {
            let value = function(self.value(from as usize, row));
            self.column_mut(to)[row] = value;
        }
    }

    fn subtract_largest(&mut self, from: Column, to: Column) {
        let largest = self.column(from as usize).iter().copied().fold(f32::MIN, f32::max);
        self.map(from, to, |value| value - largest);
    }
}

/// The value, or the nearest bound; `low` for NaN.
fn clip(value: f32, low: f32, high: f32) -> f32 {
    value.max(low).min(high)
}

//! What a training step is made from: queries, their labels, the adjacency, and numbers.

use super::rows::Table;

/// The Q queries of a batch.
#[derive(Clone, Copy)]
pub struct Queries<'a> {
    /// D.
    pub dim: usize,
    /// \[Q, D\].
    pub embeddings: &'a [f32],
    /// s_c in \[0, 1\], \[Q, C\].
    pub cluster_scores: &'a [f32],
    /// Distinct clusters, \[Q, B\], padded with −1.
    pub beam: &'a [i64],
}

/// The queries' own labels, as ragged rows.
#[derive(Clone, Copy)]
pub struct Positives<'a> {
    /// \[Q + 1\].
    pub offsets: &'a [i64],
    /// Distinct within a query.
    pub labels: &'a [i64],
    /// In (0, 1].
    pub relevance: &'a [f32],
}

/// The edges from C clusters to L labels.
#[derive(Clone, Copy)]
pub struct AdjacencyRows<'a> {
    /// κ.
    pub width: usize,
    /// \[C, κ\]: each cluster's distinct labels, then padding.
    pub labels: &'a [i32],
    /// \[C\]: how many labels each cluster has.
    pub lengths: &'a [i64],
    /// \[L + 1\]: where each label's slots begin.
    pub label_offsets: &'a [i64],
    /// Where the label stands in `labels`, for each of its edges.
    pub label_slots: &'a [i32],
}

impl AdjacencyRows<'_> {
    /// A cluster's number of labels.
    #[inline]
    pub(super) fn len(&self, cluster: usize) -> usize {
        self.lengths[cluster] as usize
    }
}

/// What the edges' weights min(1, β · softmax) are learned as.
pub struct Logits<'a> {
    /// \[C, κ\], with second moments of the same shape.
    pub table: Table<'a>,
    /// β.
    pub beta: f64,
}

/// Numbers that a step needs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// S.
    pub shortlist_size: usize,
    /// λ.
    pub path_loss_weight: f32,
    /// What losses are divided by: the number of texts in the whole step.
    pub divisor: f32,
    /// Pairs whose derivative by the logit is smaller in magnitude add nothing to the gradients.
    pub skip_below: f32,
    /// Threads at most.
    pub num_threads: usize,
}

//! Step 5: the final scores p = s · sigmoid(w · T e + b) of the shortlist, query by query.
//!
//! Where the index has codes of the label classifiers, these tell which labels may be among the best
//! k (see [`crate::screen`]), and only they are scored exactly.

use super::plan::Plan;
use super::survivors::{Survivors, SurvivorsView};
use super::top_k::TopK;
use crate::error::Result;
use crate::kernels::LogitBounds;
use crate::matrix::MatrixView;
use crate::query_codes::QueryCodesView;
use crate::screen::{lower_score, upper_score};
use crate::threads::Loops;

/// A shortlist is screened when it is this many times as long as what is wanted of it.
const WORTH_SCREENING: usize = 3;

/// The memory that one query after the other is scored in.
#[derive(Default)]
pub(crate) struct Rerank {
    scores: Vec<f32>,
    /// For each [`PART`] of the labels the scores of upper bounds, then those of lower ones.
    bounds: Vec<f32>,
    survivors: Survivors,
}

/// Labels that a thread screens at once.
const PART: usize = 128;
/// Labels that a thread scores exactly at once.
const EXACT_PART: usize = 16;
/// Labels that are scored exactly between two looks at which others may still be among the best.
const EXACT_STEP: usize = 32;

/// Whether screening pays for shortlists of about `shortlist` labels.
pub(crate) fn worth_screening(shortlist: usize, k: usize) -> bool {
    shortlist / WORTH_SCREENING > k
}

impl Rerank {
    /// Scores a query's shortlist, given as labels and path scores, and collects the best `k`. `query`
    /// is [`project`]ed, and `codes` are its codes if the index has any of the labels.
    ///
    /// # Errors
    /// Those of the loops.
    pub(crate) fn run(
        &mut self,
        plan: &Plan<'_>,
        query: &[f32],
        codes: Option<QueryCodesView<'_>>,
        (labels, path_scores): (&[u32], &[f32]),
        (top, k): (&mut TopK, usize),
        loops: &mut impl Loops,
    ) -> Result<()> {
        let screen = plan.label_codes.zip(codes);
        let Some((rows, codes)) = screen.filter(|_| worth_screening(labels.len(), k)) else {
            return self.score_exactly(plan, query, (labels, path_scores), (top, k), loops);
        };
        self.bounds.resize(2 * labels.len(), 0.0);
        loops.for_each_part(&mut self.bounds, 2 * PART, &|part, bounds| {
            let (upper, lower) = bounds.split_at_mut(bounds.len() / 2);
            let range = part * PART..part * PART + upper.len();
            let path_scores = &path_scores[range.clone()];
            let bounds = LogitBounds { upper: &mut *upper, lower: &mut *lower };
            plan.kernels.coded_rows(rows, &labels[range], codes, bounds);
            plan.kernels.final_scores(upper, path_scores);
            plan.kernels.final_scores(lower, path_scores);
        })?;
        self.survivors.reset(k);
        let parts = labels.chunks(PART).zip(path_scores.chunks(PART));
        for ((labels, path_scores), bounds) in parts.zip(self.bounds.chunks(2 * PART)) {
            let (upper, lower) = bounds.split_at(bounds.len() / 2);
            for (i, (&label, &path_score)) in labels.iter().zip(path_scores).enumerate() {
                let upper = upper_score(upper[i]);
                if upper >= self.survivors.threshold() {
                    let lower = lower_score(lower[i]);
                    self.survivors.push(plan.kernels, label, path_score, upper, lower);
                }
            }
        }
        let mut survivors = std::mem::take(&mut self.survivors);
        let result =
            self.score_survivors(plan, query, survivors.finish(plan.kernels), (top, k), loops);
        self.survivors = survivors;
        result
    }

    /// Scores what screening left exactly, the likeliest first, until the rest can't reach the best `k`
    /// any more, and collects these.
    ///
    /// # Errors
    /// Those of the loops.
    pub(crate) fn score_survivors(
        &mut self,
        plan: &Plan<'_>,
        query: &[f32],
        survivors: SurvivorsView<'_>,
        (top, k): (&mut TopK, usize),
        loops: &mut impl Loops,
    ) -> Result<()> {
        top.reset(k);
        let mut end = 0;
        while end < survivors.labels.len() {
            let start = end;
            let bound = top.kth_score();
            let reaching = |upper: &f32| bound.is_none_or(|bound| *upper >= bound);
            let step = if start == 0 { k } else { EXACT_STEP };
            let upper = &survivors.upper[start..survivors.labels.len().min(start + step)];
            end = start + upper.partition_point(reaching);
            if start == end {
                break;
            }
            let part = (&survivors.labels[start..end], &survivors.path_scores[start..end]);
            self.score_part(plan, query, part, top, loops)?;
        }
        Ok(())
    }

    /// Scores labels of the given path scores from their exact rows and collects the best `k`.
    ///
    /// # Errors
    /// Those of the loops.
    fn score_exactly(
        &mut self,
        plan: &Plan<'_>,
        query: &[f32],
        shortlist: (&[u32], &[f32]),
        (top, k): (&mut TopK, usize),
        loops: &mut impl Loops,
    ) -> Result<()> {
        top.reset(k);
        self.score_part(plan, query, shortlist, top, loops)
    }

    fn score_part(
        &mut self,
        plan: &Plan<'_>,
        query: &[f32],
        (labels, path_scores): (&[u32], &[f32]),
        top: &mut TopK,
        loops: &mut impl Loops,
    ) -> Result<()> {
        self.scores.resize(labels.len(), 0.0);
        loops.for_each_part(&mut self.scores, EXACT_PART, &|part, scores| {
            let range = part * EXACT_PART..part * EXACT_PART + scores.len();
            let labels = &labels[range.clone()];
            plan.kernels.linear_rows(plan.label_rows, plan.label_bias, labels, query, scores);
            plan.kernels.final_scores(scores, &path_scores[range]);
        })?;
        for (&score, &label) in self.scores.iter().zip(labels) {
            top.push(score, label);
        }
        Ok(())
    }
}

/// Writes T e to `projected`, of D' values.
pub(crate) fn project(
    plan: &Plan<'_>,
    projection: MatrixView<'_>,
    query: &[f32],
    projected: &mut [f32],
) {
    plan.kernels.linear(projection, None, MatrixView::new(query, query.len()), projected);
    // Products that overflow must not turn all labels' scores into NaN.
    for value in projected.iter_mut() {
        *value = if value.is_nan() { 0.0 } else { value.clamp(f32::MIN, f32::MAX) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::build::IndexParts;
    use crate::index::Index;
    use crate::search::SearchOptions;
    use crate::search::top_k::unkey;
    use crate::threads::Pulse;

    fn index(projection: Option<&[f32]>) -> Index {
        Index::build(&IndexParts {
            num_labels: 3,
            num_clusters: 1,
            dim: 2,
            label_dim: 2,
            cluster_weights: &[0.0; 2],
            cluster_bias: &[0.0],
            adjacency_offsets: &[0, 3],
            adjacency_labels: &[0, 1, 2],
            adjacency_weights: &[1.0; 3],
            label_weights: &[1.0, 0.0, 0.0, 1.0, 500.0, 500.0],
            label_bias: &[0.0, 1.0, 0.0],
            label_projection: projection,
            ..IndexParts::default()
        })
        .unwrap()
    }

    fn scores(index: &Index, query: [f32; 2], candidates: &[(u32, f32)]) -> Vec<(u32, f32)> {
        let plan = Plan::new(index, &SearchOptions::default()).unwrap();
        let (labels, path_scores): (Vec<u32>, Vec<f32>) = candidates.iter().copied().unzip();
        let mut values = query.to_vec();
        if let Some(projection) = plan.label_projection {
            project(&plan, projection, &query, &mut values);
        }
        let flag = AtomicBool::new(false);
        let mut top = TopK::default();
        let mut pulse = Pulse::follower(&flag);
        let shortlist = (&labels[..], &path_scores[..]);
        Rerank::default().run(&plan, &values, None, shortlist, (&mut top, 3), &mut pulse).unwrap();
        top.finish().iter().map(|&key| unkey(key)).collect()
    }

    fn sigmoid(z: f64) -> f32 {
        (1.0 / (1.0 + (-z).exp())) as f32
    }

    #[test]
    fn scores_are_path_score_times_sigmoid() {
        let found = scores(&index(None), [2.0, -1.0], &[(1, 1.0), (0, 0.5)]);
        let expected = [(1, sigmoid(0.0)), (0, 0.5 * sigmoid(2.0))];
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.0, expected.0);
            assert!((found.1 - expected.1).abs() < 1e-7);
        }
    }

    #[test]
    fn a_projection_comes_before_the_label_classifiers() {
        // T swaps the two dims.
        let found = scores(&index(Some(&[0.0, 1.0, 1.0, 0.0])), [2.0, -1.0], &[(0, 1.0)]);
        assert!((found[0].1 - sigmoid(-1.0)).abs() < 1e-7);
    }

    #[test]
    fn a_score_that_underflows_keeps_its_label() {
        assert_eq!(scores(&index(None), [-1.0, -1.0], &[(2, 1.0)]), [(2, 0.0)]);
        assert_eq!(scores(&index(None), [1.0, 1.0], &[(2, 1.0)]), [(2, 1.0)]);
    }
}

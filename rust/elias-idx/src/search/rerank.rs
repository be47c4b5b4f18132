//! Step 5: the final scores p = s · sigmoid(w · T e + b) of the shortlist.

use super::plan::Plan;
use super::pulse::Pulse;
use super::shortlist::Candidate;
use super::top_k::TopK;
use crate::matrix::MatrixView;

/// Labels that are scored between two looks at whether to stop.
const BLOCK: usize = 4096;

/// The memory that one query after the other is scored in.
#[derive(Default)]
pub(crate) struct Rerank {
    projected: Vec<f32>,
    labels: Vec<u32>,
    path_scores: Vec<f32>,
    scores: Vec<f32>,
}

impl Rerank {
    /// Scores the candidates of one query and collects the best `k`; false when stopped meanwhile.
    pub(crate) fn run(
        &mut self,
        plan: &Plan<'_>,
        query: &[f32],
        candidates: &[Candidate],
        (top, k): (&mut TopK, usize),
        pulse: &mut Pulse<'_>,
    ) -> bool {
        let query = project(plan, query, &mut self.projected);
        top.reset(k);
        for candidates in candidates.chunks(BLOCK) {
            self.labels.clear();
            self.labels.extend(candidates.iter().map(|candidate| candidate.label));
            self.path_scores.clear();
            self.path_scores.extend(candidates.iter().map(|candidate| candidate.score));
            self.scores.resize(candidates.len(), 0.0);
            let (labels, scores) = (&self.labels, &mut self.scores);
            plan.kernels.linear_rows(plan.label_weights, plan.label_bias, labels, query, scores);
            plan.kernels.final_scores(scores, &self.path_scores);
            for (&score, &label) in scores.iter().zip(labels) {
                top.push(score, label);
            }
            if pulse.stopped() {
                return false;
            }
        }
        true
    }
}

/// T e where the index has a projection, else e.
fn project<'a>(plan: &Plan<'_>, query: &'a [f32], projected: &'a mut Vec<f32>) -> &'a [f32] {
    let Some(projection) = plan.label_projection else { return query };
    projected.resize(projection.rows(), 0.0);
    plan.kernels.linear(projection, None, MatrixView::new(query, query.len()), projected);
    // Products that overflow must not turn all labels' scores into NaN.
    for value in projected.iter_mut() {
        *value = if value.is_nan() { 0.0 } else { value.clamp(f32::MIN, f32::MAX) };
    }
    projected
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::build::IndexParts;
    use crate::index::Index;
    use crate::search::SearchOptions;
    use crate::search::top_k::unkey;

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
        let candidates: Vec<_> =
            candidates.iter().map(|&(label, score)| Candidate { label, score }).collect();
        let flag = AtomicBool::new(false);
        let mut top = TopK::default();
        let mut pulse = Pulse::follower(&flag);
        assert!(Rerank::default().run(&plan, &query, &candidates, (&mut top, 3), &mut pulse));
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

//! Steps 1 and 2: the scores of all clusters, s = min(1, α · softmax(W e + b)), and the best of them.

use super::plan::Plan;
use super::top_k::{TopK, unkey};
use crate::matrix::MatrixView;

/// A cluster of the beam with its score s_c.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BeamCluster {
    pub(crate) cluster: u32,
    pub(crate) score: f32,
}

/// The logits of all clusters: `queries` \[Q, D\], `logits` \[Q, C\].
pub(crate) fn cluster_logits(plan: &Plan<'_>, queries: MatrixView<'_>, logits: &mut [f32]) {
    plan.kernels.linear(plan.cluster_weights, Some(plan.cluster_bias), queries, logits);
}

/// The best B clusters of one query, best first; turns its `logits` \[C\] into scores on the way.
pub(crate) fn select(
    plan: &Plan<'_>,
    logits: &mut [f32],
    top: &mut TopK,
    beam: &mut Vec<BeamCluster>,
) {
    plan.kernels.cluster_scores(logits, plan.alpha);
    top.reset(plan.beam_size);
    top.push_all(logits);
    beam.clear();
    beam.extend(top.finish().iter().map(|&key| {
        let (cluster, score) = unkey(key);
        BeamCluster { cluster, score }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::SearchOptions;
    use crate::search::plan::tests::tiny_index;

    fn beam(logits: &[f32], beam_size: usize) -> Vec<(u32, f32)> {
        let index = tiny_index(logits.len(), 1);
        let options = SearchOptions { beam_size: Some(beam_size), ..SearchOptions::default() };
        let plan = Plan::new(&index, &options).unwrap();
        let mut beam = Vec::new();
        select(&plan, &mut logits.to_vec(), &mut TopK::default(), &mut beam);
        beam.iter().map(|entry| (entry.cluster, entry.score)).collect()
    }

    #[test]
    fn clusters_come_by_score_after_the_clamp() {
        // With α = 10 all of the first three exceed 1 and tie, so the smaller ids win.
        let clamped = beam(&[1.0, 1.5, 2.0, -9.0], 2);
        assert_eq!(clamped, [(0, 1.0), (1, 1.0)]);
        let all = beam(&[-9.0, 0.0, -8.0], 3);
        assert_eq!(all.iter().map(|entry| entry.0).collect::<Vec<_>>(), [1, 2, 0]);
        let exact = 10.0 * (-8.0_f64).exp() / (1.0 + (-8.0_f64).exp() + (-9.0_f64).exp());
        assert!((f64::from(all[1].1) - exact).abs() < 1e-8);
    }

    #[test]
    fn a_beam_beyond_the_clusters_is_clamped() {
        assert_eq!(beam(&[0.0, 0.0, 0.0], 50), [(0, 1.0), (1, 1.0), (2, 1.0)]);
    }

    #[test]
    fn clusters_whose_score_underflows_are_kept() {
        assert_eq!(beam(&[-500.0, 0.0, -400.0], 3), [(1, 1.0), (0, 0.0), (2, 0.0)]);
    }
}

//! Explanations as tuples, which `elias_idx.results` gives names.

use pyo3::prelude::*;

/// Clusters in the beam, labels reached, labels in the shortlist, and what is said of each label.
#[derive(IntoPyObject)]
pub(crate) struct Explanations(usize, usize, usize, Vec<Explanation>);

/// Label, whether allowed, paths, path score, logit, probability, score, path rank, rank.
#[derive(IntoPyObject)]
struct Explanation(usize, bool, Vec<Path>, f32, f32, f32, f32, Option<usize>, Option<usize>);

/// Cluster, its rank and score, the edge's weight, the path's score, whether in the beam.
#[derive(IntoPyObject)]
struct Path(usize, usize, f32, f32, f32, bool);

impl From<elias_idx::Explanations> for Explanations {
    fn from(all: elias_idx::Explanations) -> Self {
        let labels = all.labels.into_iter().map(Explanation::from).collect();
        Self(all.beam_size, all.num_reached, all.num_shortlisted, labels)
    }
}

impl From<elias_idx::Explanation> for Explanation {
    fn from(it: elias_idx::Explanation) -> Self {
        Self(
            it.label,
            it.allowed,
            it.paths.into_iter().map(Path::from).collect(),
            it.path_score,
            it.logit,
            it.probability,
            it.score,
            it.path_rank,
            it.rank,
        )
    }
}

impl From<elias_idx::Path> for Path {
    fn from(it: elias_idx::Path) -> Self {
        Self(it.cluster, it.cluster_rank, it.cluster_score, it.weight, it.score, it.in_beam)
    }
}

//! Which labels of a shortlist may still be among the best k, given bounds of their scores.

use crate::kernels::Kernels;

/// Labels whose upper score isn't below the lower scores of k others.
#[derive(Default)]
pub(crate) struct Survivors {
    k: usize,
    /// The k-th largest lower score when it was last looked at.
    threshold: f32,
    /// How many are collected before it is looked at again.
    limit: usize,
    labels: Vec<u32>,
    path_scores: Vec<f32>,
    upper: Vec<f32>,
    lower: Vec<f32>,
    order: Vec<u64>,
    /// Labels, path scores and upper scores in order.
    sorted: (Vec<u32>, Vec<f32>, Vec<f32>),
}

/// Labels, their path scores and upper bounds of their scores.
#[derive(Clone, Copy)]
pub(crate) struct SurvivorsView<'a> {
    pub(crate) labels: &'a [u32],
    pub(crate) path_scores: &'a [f32],
    pub(crate) upper: &'a [f32],
}

/// Labels that are collected, at least, between two looks.
const MIN_STEP: usize = 48;

impl Survivors {
    /// Starts anew, for the best `k` ≥ 1.
    pub(crate) fn reset(&mut self, k: usize) {
        self.k = k;
        self.threshold = f32::NEG_INFINITY;
        self.limit = k.saturating_add(self.step());
        self.labels.clear();
        self.path_scores.clear();
        self.upper.clear();
        self.lower.clear();
    }

    /// Below this, an upper score is of no use; it grows.
    pub(crate) fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Adds a label with its path score and bounds of its score, the upper one not below the threshold.
    pub(crate) fn push(
        &mut self,
        kernels: Kernels,
        label: u32,
        path_score: f32,
        upper: f32,
        lower: f32,
    ) {
        self.labels.push(label);
        self.path_scores.push(path_score);
        self.upper.push(upper);
        self.lower.push(lower);
        if self.labels.len() >= self.limit {
            self.prune(kernels);
            self.limit = self.labels.len() + self.step();
        }
    }

    /// What is left, by descending upper score.
    pub(crate) fn finish(&mut self, kernels: Kernels) -> SurvivorsView<'_> {
        self.prune(kernels);
        self.order.clear();
        // Upper scores aren't negative, so their bits are in their order.
        let keys = self.upper.iter().zip(0_u64..);
        self.order.extend(keys.map(|(upper, at)| u64::from(!upper.to_bits()) << 32 | at));
        self.order.sort_unstable();
        let places = || self.order.iter().map(|&key| key as u32 as usize);
        let sorted = &mut self.sorted;
        sorted.0.clear();
        sorted.1.clear();
        sorted.2.clear();
        sorted.0.extend(places().map(|at| self.labels[at]));
        sorted.1.extend(places().map(|at| self.path_scores[at]));
        sorted.2.extend(places().map(|at| self.upper[at]));
        SurvivorsView { labels: &sorted.0, path_scores: &sorted.1, upper: &sorted.2 }
    }

    fn step(&self) -> usize {
        self.k.max(MIN_STEP)
    }

    fn prune(&mut self, kernels: Kernels) {
        if self.labels.len() <= self.k {
            return;
        }
        self.threshold = kernels.kth_largest(&self.lower, self.k);
        let mut kept = 0;
        for i in 0..self.labels.len() {
            self.labels[kept] = self.labels[i];
            self.path_scores[kept] = self.path_scores[i];
            self.upper[kept] = self.upper[i];
            self.lower[kept] = self.lower[i];
            kept += usize::from(self.upper[i] >= self.threshold);
        }
        self.labels.truncate(kept);
        self.path_scores.truncate(kept);
        self.upper.truncate(kept);
        self.lower.truncate(kept);
    }
}

//! The labels that paths reach, each once, with the score of its best path.

use super::top_k::key;
use crate::kernels::Kernels;

/// Labels and scores in the order in which the labels were first reached, and a hash table that
/// finds them: open addressing with linear probing.
#[derive(Default)]
pub(crate) struct BestPaths {
    len: usize,
    /// The labels reached are the first `len`; what follows is room, left from other searches.
    labels: Vec<u32>,
    scores: Vec<f32>,
    /// Where a label stands in `labels`, or [`EMPTY`]. The first 2^`bits` are in use.
    slots: Vec<u32>,
    bits: u32,
    /// Labels whose scores are equal where the best are cut off.
    ties: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;
/// There are at least this many slots for a label.
const SLOTS_A_LABEL: usize = 2;

impl BestPaths {
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.bits = 0;
    }

    pub(crate) fn labels(&self) -> &[u32] {
        &self.labels[..self.len]
    }

    pub(crate) fn scores(&self) -> &[f32] {
        &self.scores[..self.len]
    }

    /// Makes room for `additional` labels that aren't there yet.
    pub(crate) fn reserve(&mut self, additional: usize) {
        // One place more, for a label that may be there already.
        let len = self.len + additional + 1;
        if self.labels.len() < len {
            self.labels.resize(len, 0);
            self.scores.resize(len, 0.0);
        }
        let bits = (SLOTS_A_LABEL * len).next_power_of_two().trailing_zeros();
        if self.bits < bits {
            self.rehash(bits);
        }
    }

    fn rehash(&mut self, bits: u32) {
        let size = 1 << bits;
        self.bits = bits;
        if self.slots.len() < size {
            self.slots.resize(size, EMPTY);
        }
        let slots = &mut self.slots[..size];
        slots.fill(EMPTY);
        for (place, &label) in (0..).zip(&self.labels[..self.len]) {
            let mut at = home(label, bits);
            while slots[at] != EMPTY {
                at = (at + 1) & (size - 1);
            }
            slots[at] = place;
        }
    }

    /// Follows the paths of a cluster with score `cluster_score` along `weights` to `labels`.
    /// There must be room for those that are new.
    pub(crate) fn follow(&mut self, cluster_score: f32, labels: &[u32], weights: &[f32]) {
        let slots = &mut self.slots[..1 << self.bits];
        let mask = slots.len() - 1;
        let (all_labels, all_scores) = (&mut *self.labels, &mut *self.scores);
        let mut len = self.len;
        for (&label, &weight) in labels.iter().zip(weights) {
            // The label is put where it belongs if it is new, and an empty slot is taken for that
            // place. So the search always ends at the label, and nothing depends on whether it is
            // new, which no processor could predict.
            all_labels[len] = label;
            all_scores[len] = 0.0;
            let mut at = home(label, self.bits) & mask;
            let mut place = (slots[at] as usize).min(len);
            while all_labels[place] != label {
                at = (at + 1) & mask;
                place = (slots[at] as usize).min(len);
            }
            slots[at] = place as u32;
            let score = cluster_score * weight;
            let best = all_scores[place];
            all_scores[place] = if score > best { score } else { best };
            len += usize::from(place == len);
        }
        self.len = len;
    }

    /// Keeps the best `size` labels; of those that tie with the last one, the smallest ids. After
    /// that nothing may be added before it is cleared.
    pub(crate) fn keep_best(&mut self, kernels: Kernels, size: usize) {
        if self.len <= size {
            return;
        }
        let (labels, scores) = (&mut self.labels[..self.len], &mut self.scores[..self.len]);
        let worst = kept_key(kernels, labels, scores, size, &mut self.ties);
        let mut kept = 0;
        for i in 0..labels.len().min(scores.len()) {
            let (label, score) = (labels[i], scores[i]);
            // Without a branch: whether a label is kept can't be predicted.
            labels[kept] = label;
            scores[kept] = score;
            kept += usize::from(key(score, label) <= worst);
        }
        self.len = kept;
    }
}

/// The largest key of the best `size` labels (smaller keys are better): of those that tie with the last one,
/// the smallest ids are kept. `ties` is memory.
pub(crate) fn kept_key(
    kernels: Kernels,
    labels: &[u32],
    scores: &[f32],
    size: usize,
    ties: &mut Vec<u32>,
) -> u64 {
    if labels.len() <= size {
        return u64::MAX;
    }
    let last = kernels.kth_largest(scores, size);
    let excess = kernels.count_from(scores, last) - size;
    if excess == 0 {
        return key(last, u32::MAX);
    }
    ties.clear();
    let scored = scores.iter().zip(labels);
    ties.extend(scored.filter(|(score, _)| **score == last).map(|(_, label)| label));
    let kept = ties.len() - excess;
    key(last, *ties.select_nth_unstable(kept - 1).1)
}

/// The slot where the search for a label begins.
#[inline]
pub(crate) fn home(label: u32, bits: u32) -> usize {
    // Multiplying by 2^64 / φ spreads ids over the high bits.
    (u64::from(label).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn collected(paths: &BestPaths) -> BTreeMap<u32, f32> {
        paths.labels().iter().copied().zip(paths.scores().iter().copied()).collect()
    }

    proptest! {
        #[test]
        fn a_label_keeps_its_best_path(
            searches in prop::collection::vec(
                prop::collection::vec((0..=4_u8, prop::collection::vec((0..300_u32, 0..=8_u8), 0..200)), 0..5),
                1..4,
            ),
        ) {
            let mut paths = BestPaths::default();
            for rows in searches {
                paths.clear();
                let mut expected: BTreeMap<u32, f32> = BTreeMap::new();
                for (score, edges) in rows {
                    let score = f32::from(score) / 4.0;
                    // Spread out, to reach large ids.
                    let labels: Vec<u32> =
                        edges.iter().map(|edge| edge.0.wrapping_mul(40_503_001)).collect();
                    let weights: Vec<f32> = edges.iter().map(|edge| f32::from(edge.1)).collect();
                    for (&label, weight) in labels.iter().zip(&weights) {
                        let best = expected.entry(label).or_insert(0.0);
                        *best = best.max(score * weight);
                    }
                    paths.reserve(labels.len());
                    paths.follow(score, &labels, &weights);
                }
                prop_assert_eq!(paths.labels().len(), expected.len());
                prop_assert_eq!(collected(&paths), expected);
            }
        }

        #[test]
        fn the_best_are_kept_and_ties_go_to_the_smaller_label(
            levels in prop::collection::vec(0..10_u8, 1..200),
            size in 1..250_usize,
        ) {
            let labels: Vec<u32> = (0..levels.len() as u32).rev().collect();
            let weights: Vec<f32> = levels.iter().map(|&level| f32::from(level)).collect();
            let mut expected: Vec<u64> =
                labels.iter().zip(&weights).map(|(&label, &weight)| key(weight, label)).collect();
            expected.sort_unstable();
            expected.truncate(size);
            for kernels in Kernels::available() {
                let mut paths = BestPaths::default();
                paths.reserve(labels.len());
                paths.follow(1.0, &labels, &weights);
                paths.keep_best(kernels, size);
                let mut kept: Vec<u64> =
                    collected(&paths).iter().map(|(&label, &score)| key(score, label)).collect();
                kept.sort_unstable();
                prop_assert_eq!(&kept, &expected);
            }
        }
    }
}

//! The labels that fusion scores for a query.

use super::neighbours::Vote;
use super::places::Places;
use crate::search::top_k::{TopK, unkey};

/// Labels, those of the dense search first, and what is known of them from finding them.
#[derive(Default)]
pub(crate) struct Candidates {
    pub(crate) labels: Vec<u32>,
    /// How many the dense search returned.
    pub(crate) num_dense: usize,
    /// 0 for labels that the dense search didn't return.
    pub(crate) path_scores: Vec<f32>,
    /// Σ cosine³ of the neighbours that have the label.
    pub(crate) votes: Vec<f32>,
    /// The largest cosine of these.
    pub(crate) nearest: Vec<f32>,
    places: Places,
    voted: TopK,
}

impl Candidates {
    /// Starts anew with what the dense search returned; `shortlist` has the path scores of these labels and
    /// more.
    pub(crate) fn reset(
        &mut self,
        dense: impl Iterator<Item = u32>,
        (labels, path_scores): (&[u32], &[f32]),
    ) {
        self.labels.clear();
        self.labels.extend(dense);
        self.num_dense = self.labels.len();
        for column in [&mut self.path_scores, &mut self.votes, &mut self.nearest] {
            column.clear();
            column.resize(self.labels.len(), 0.0);
        }
        self.places.set(&self.labels);
        for (&label, &path_score) in labels.iter().zip(path_scores) {
            if let Some(place) = self.places.find(&self.labels, label) {
                self.path_scores[place] = path_score;
            }
        }
    }

    /// Takes the votes, by ascending label; of labels that aren't candidates yet the `limit` ≥ 1 with the most
    /// votes become some.
    pub(crate) fn add_votes(
        &mut self,
        votes: &[Vote],
        limit: usize,
        is_allowed: impl Fn(u32) -> bool,
    ) {
        self.voted.reset(limit);
        for (at, vote) in (0..).zip(votes) {
            match self.places.find(&self.labels, vote.label) {
                Some(place) => {
                    self.votes[place] = vote.votes;
                    self.nearest[place] = vote.nearest;
                }
                // Of equal votes the first is that for the smallest label.
                None if is_allowed(vote.label) => self.voted.push(vote.votes, at),
                None => (),
            }
        }
        let num_known = self.labels.len();
        for &key in self.voted.finish() {
            let vote = votes[unkey(key).0 as usize];
            self.labels.push(vote.label);
            self.path_scores.push(0.0);
            self.votes.push(vote.votes);
            self.nearest.push(vote.nearest);
        }
        if self.labels.len() > num_known {
            self.places.set(&self.labels);
        }
    }

    /// Where a label stands among the candidates.
    pub(crate) fn place(&self, label: u32) -> Option<usize> {
        self.places.find(&self.labels, label)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_the_dense_labels_and_then_the_most_voted(
            dense in prop::collection::btree_set(0..60_u32, 0..20),
            votes in prop::collection::btree_map(0..60_u32, (0..4_u8, 0..4_u8), 0..40),
            limit in 1..30_usize, odd_only in any::<bool>(),
        ) {
            let dense: Vec<u32> = dense.into_iter().rev().collect();
            let shortlist: Vec<u32> = (0..60).collect();
            let path_scores: Vec<f32> = shortlist.iter().map(|&label| label as f32 + 1.0).collect();
            let votes: Vec<Vote> = votes.iter().map(|(&label, &(votes, nearest))| Vote {
                label, votes: f32::from(votes), nearest: f32::from(nearest)
            }).collect();
            let is_allowed = |label: u32| !odd_only || label % 2 == 1;
            let mut found = Candidates::default();
            // What other queries left doesn't matter.
            found.reset([1, 2].into_iter(), (&[2], &[1.0]));
            found.reset(dense.iter().copied(), (&shortlist, &path_scores));
            found.add_votes(&votes, limit, is_allowed);

            let mut more: Vec<&Vote> = votes.iter()
                .filter(|vote| !dense.contains(&vote.label) && is_allowed(vote.label)).collect();
            more.sort_by(|a, b| b.votes.total_cmp(&a.votes).then(a.label.cmp(&b.label)));
            let expected: Vec<u32> =
                dense.iter().copied().chain(more.iter().take(limit).map(|vote| vote.label)).collect();
            prop_assert_eq!(&found.labels, &expected);
            let by_label: BTreeMap<u32, &Vote> = votes.iter().map(|vote| (vote.label, vote)).collect();
            for (at, label) in expected.iter().enumerate() {
                let path_score = if at < dense.len() { *label as f32 + 1.0 } else { 0.0 };
                prop_assert_eq!(found.path_scores[at], path_score);
                let (votes, nearest) = by_label.get(label).map_or((0.0, 0.0), |v| (v.votes, v.nearest));
                prop_assert_eq!((found.votes[at], found.nearest[at]), (votes, nearest));
            }
        }
    }
}

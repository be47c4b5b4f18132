//! Steps 3 and 4: path scores s_c · a of the labels that the beam reaches, and the best S labels.
//!
//! Each cluster's edges are sorted by weight, so their path scores descend, and a merge of the
//! beam's rows meets all paths from the best one down. The first path that reaches a label is its
//! best. The merge ends at the S-th label, but not before all paths of that label's score: rounding
//! makes different weights' scores equal, and equal scores are cut by label id.

use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::beam::BeamCluster;
use super::label_set::LabelSet;
use super::plan::Plan;
use super::pulse::Pulse;

/// A shortlisted label with the score of its best path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) label: u32,
    pub(crate) score: f32,
}

/// A search's shortlist, and the memory that the merge reuses.
#[derive(Default)]
pub(crate) struct Shortlist {
    candidates: Vec<Candidate>,
    seen: LabelSet,
    heap: BinaryHeap<Head>,
}

/// The next path of one cluster of the beam. Ordered by score, equal ones by place in the beam.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    /// Path scores aren't negative, so their bits are in their order.
    score_bits: u32,
    beam_rank: u32,
    position: u32,
}

/// Paths that are followed between two looks at whether to stop.
const PATHS_BETWEEN_CHECKS: u32 = 1 << 16;

impl Shortlist {
    /// Finds the shortlist of a beam; false when the search was stopped meanwhile.
    pub(crate) fn fill(
        &mut self,
        plan: &Plan<'_>,
        beam: &[BeamCluster],
        pulse: &mut Pulse<'_>,
    ) -> bool {
        self.candidates.clear();
        self.seen.clear();
        self.start(plan, beam);
        let mut paths_left = PATHS_BETWEEN_CHECKS;
        while let Some(mut head) = self.heap.peek_mut() {
            let score = f32::from_bits(head.score_bits);
            if self.candidates.len() >= plan.shortlist_size
                && score < self.candidates[plan.shortlist_size - 1].score
            {
                break;
            }
            let cluster = beam[head.beam_rank as usize];
            let (labels, weights) = plan.adjacency.row(cluster.cluster as usize);
            let label = labels[head.position as usize];
            if self.seen.insert(label) {
                self.candidates.push(Candidate { label, score });
            }
            let next = head.position + 1;
            if let Some(weight) = weights.get(next as usize) {
                head.position = next;
                head.score_bits = path_score(cluster.score, *weight).to_bits();
            } else {
                PeekMut::pop(head);
            }
            paths_left -= 1;
            if paths_left == 0 {
                paths_left = PATHS_BETWEEN_CHECKS;
                if pulse.stopped() {
                    return false;
                }
            }
        }
        self.cut(plan.shortlist_size);
        true
    }

    /// The labels found, by descending score except that equal scores are in any order.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Sorts the labels by descending score, then id, and returns them.
    pub(crate) fn sorted(&mut self) -> &[Candidate] {
        self.candidates
            .sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.label.cmp(&b.label)));
        &self.candidates
    }

    fn start(&mut self, plan: &Plan<'_>, beam: &[BeamCluster]) {
        self.heap.clear();
        for (beam_rank, cluster) in (0..).zip(beam) {
            let (_, weights) = plan.adjacency.row(cluster.cluster as usize);
            if let Some(weight) = weights.first() {
                let score_bits = path_score(cluster.score, *weight).to_bits();
                self.heap.push(Head { score_bits, beam_rank, position: 0 });
            }
        }
    }

    /// Keeps the best `size` labels; of those that tie with the last one, the smallest ids.
    fn cut(&mut self, size: usize) {
        if self.candidates.len() <= size {
            return;
        }
        let last = self.candidates[size - 1].score;
        let first_tie = self.candidates.partition_point(|candidate| candidate.score > last);
        self.candidates[first_tie..]
            .select_nth_unstable_by_key(size - 1 - first_tie, |candidate| candidate.label);
        self.candidates.truncate(size);
    }
}

fn path_score(cluster_score: f32, weight: f32) -> f32 {
    cluster_score * weight
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;
    use crate::build::IndexParts;
    use crate::index::Index;
    use crate::search::SearchOptions;

    type Rows = Vec<BTreeMap<u32, f32>>;

    fn index(rows: &Rows, num_labels: usize) -> Index {
        let mut offsets = vec![0];
        let (mut labels, mut weights) = (Vec::new(), Vec::new());
        for row in rows {
            labels.extend(row.keys().map(|&label| i64::from(label)));
            weights.extend(row.values());
            offsets.push(labels.len() as i64);
        }
        Index::build(&IndexParts {
            num_labels,
            num_clusters: rows.len(),
            dim: 1,
            cluster_weights: &vec![0.0; rows.len()],
            cluster_bias: &vec![0.0; rows.len()],
            adjacency_offsets: &offsets,
            adjacency_labels: &labels,
            adjacency_weights: &weights,
            label_weights: &vec![0.0; num_labels],
            label_bias: &vec![0.0; num_labels],
            ..IndexParts::default()
        })
        .unwrap()
    }

    fn shortlist(rows: &Rows, beam: &[(u32, f32)], size: usize) -> Vec<(u32, f32)> {
        let index = index(rows, 50);
        let options = SearchOptions { shortlist_size: Some(size), ..SearchOptions::default() };
        let plan = Plan::new(&index, &options).unwrap();
        let beam: Vec<_> =
            beam.iter().map(|&(cluster, score)| BeamCluster { cluster, score }).collect();
        let flag = AtomicBool::new(false);
        let mut shortlist = Shortlist::default();
        // Twice, to see that nothing is left over from the first time.
        assert!(shortlist.fill(&plan, &beam, &mut Pulse::follower(&flag)));
        assert!(shortlist.fill(&plan, &beam, &mut Pulse::follower(&flag)));
        shortlist.sorted().iter().map(|candidate| (candidate.label, candidate.score)).collect()
    }

    fn by_sorting(rows: &Rows, beam: &[(u32, f32)], size: usize) -> Vec<(u32, f32)> {
        let mut best: BTreeMap<u32, f32> = BTreeMap::new();
        for &(cluster, score) in beam {
            for (&label, &weight) in &rows[cluster as usize] {
                let entry = best.entry(label).or_insert(0.0);
                *entry = entry.max(score * weight);
            }
        }
        let mut labels: Vec<_> = best.into_iter().collect();
        labels.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        labels.truncate(size);
        labels
    }

    #[test]
    fn a_label_keeps_its_best_path() {
        let rows = vec![BTreeMap::from([(3, 0.5), (4, 1.0)]), BTreeMap::from([(3, 1.0)])];
        assert_eq!(shortlist(&rows, &[(0, 1.0), (1, 0.75)], 9), [(4, 1.0), (3, 0.75)]);
    }

    #[test]
    fn a_tie_at_the_cut_goes_to_the_smaller_label() {
        let rows = vec![BTreeMap::from([(9, 1.0), (8, 0.5), (7, 0.5)]), BTreeMap::from([(2, 1.0)])];
        assert_eq!(shortlist(&rows, &[(0, 1.0), (1, 0.5)], 2), [(9, 1.0), (2, 0.5)]);
    }

    #[test]
    fn weights_whose_scores_round_to_the_same_tie() {
        // Distinct weights, but the products with a subnormal score are equal.
        let score = f32::from_bits(2);
        let rows = vec![BTreeMap::from([(5, 1.0), (1, 0.99), (0, 0.98)])];
        assert_eq!(shortlist(&rows, &[(0, score)], 1), [(0, score)]);
    }

    #[test]
    fn scores_of_zero_reach_their_labels() {
        let rows = vec![BTreeMap::from([(5, 1.0), (1, 0.5)]), BTreeMap::new()];
        assert_eq!(shortlist(&rows, &[(1, 1.0), (0, 0.0)], 9), [(1, 0.0), (5, 0.0)]);
    }

    #[test]
    fn an_empty_reach_is_an_empty_shortlist() {
        assert_eq!(shortlist(&vec![BTreeMap::new()], &[(0, 1.0)], 5), []);
    }

    #[test]
    fn a_stop_is_heeded_within_a_query() {
        let row: BTreeMap<u32, f32> = (0..70_000).map(|label| (label, 0.5)).collect();
        let index = index(&vec![row], 70_000);
        let options = SearchOptions { shortlist_size: Some(70_000), ..SearchOptions::default() };
        let plan = Plan::new(&index, &options).unwrap();
        let beam = [BeamCluster { cluster: 0, score: 1.0 }];
        let flag = AtomicBool::new(true);
        assert!(!Shortlist::default().fill(&plan, &beam, &mut Pulse::follower(&flag)));
    }

    proptest! {
        #[test]
        fn it_is_sorting_and_cutting(
            rows in prop::collection::vec(
                prop::collection::btree_map(0..50_u32, (1..=8_u8).prop_map(|w| f32::from(w) / 8.0), 0..30),
                1..6,
            ),
            scores in prop::collection::vec((0..=4_u8).prop_map(|s| f32::from(s) / 4.0), 6),
            size in 1..60_usize,
        ) {
            let mut beam: Vec<(u32, f32)> = (0..rows.len() as u32).zip(scores).collect();
            beam.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            prop_assert_eq!(shortlist(&rows, &beam, size), by_sorting(&rows, &beam, size));
        }
    }
}

//! Steps 3 and 4: path scores s_c · a of the labels that the beam reaches, and the best S labels.
//!
//! Each cluster's edges are sorted by weight, so its path scores descend, and the paths from some
//! score up are a prefix of each row. The shortlist is found from such a threshold:
//!
//! 1. Each weight in the rows' sketches, scaled by the cluster score, stands for sixteen paths. The
//!    threshold is the k-th largest of these, so that about 16 · k paths reach it.
//! 2. The paths that reach it are followed to their labels, and each label keeps its best.
//! 3. If these are fewer than S labels, there is a next, lower threshold, and each row goes on from
//!    where it stopped.
//!
//! Once S labels are found, the best S are among them: any other label's paths are all below the
//! threshold. That holds however scores round and tie, since all comparisons are of rounded path
//! scores. What exceeds S is cut in the end, equal scores by label id.

use super::beam::BeamCluster;
use super::best_paths::BestPaths;
use super::plan::Plan;
use super::top_k::{key, unkey};
use crate::adjacency::SKETCH_STEP;
use crate::error::Result;
use crate::filter::BitmapView;
use crate::threads::Loops;

/// A search's shortlist, and the memory that is reused from query to query.
#[derive(Default)]
pub(crate) struct Shortlist {
    paths: BestPaths,
    /// The path scores of the sketches of all rows.
    sketch: Vec<f32>,
    /// How many paths of each row were followed, from the best on.
    followed: Vec<usize>,
    /// ... and are to be.
    reaching: Vec<usize>,
    /// Edges of a row to allowed labels.
    allowed: Edges,
    keys: Vec<u64>,
}

/// Some edges of a cluster.
#[derive(Default)]
struct Edges {
    labels: Vec<u32>,
    weights: Vec<f32>,
}

/// Paths that are followed between two looks at whether to stop.
const PATHS_BETWEEN_CHECKS: usize = 1 << 16;

impl Shortlist {
    /// Finds the shortlist of a beam, of the labels that are `allowed` if that is given.
    ///
    /// # Errors
    /// Those of the loops.
    pub(crate) fn fill(
        &mut self,
        plan: &Plan<'_>,
        beam: &[BeamCluster],
        allowed: Option<BitmapView<'_>>,
        loops: &mut impl Loops,
    ) -> Result<()> {
        self.start(plan, beam);
        let size = plan.shortlist_size;
        // A few paths more than labels, as some lead to the same one.
        let mut k = size / SKETCH_STEP + size / (16 * SKETCH_STEP) + 1;
        if let Some(allowed) = allowed {
            k = k.saturating_mul(plan.num_labels()) / allowed.count.max(1);
        }
        loop {
            let threshold = if k <= self.sketch.len() {
                plan.kernels.kth_largest(&self.sketch, k)
            } else {
                0.0
            };
            self.follow(plan, beam, allowed, threshold, loops)?;
            let found = self.paths.labels().len();
            // Scores aren't negative: with a threshold of 0, all paths were followed.
            if found >= size || threshold == 0.0 {
                break;
            }
            k = (k.saturating_mul(size) / found.max(1)).saturating_add(k / 8 + 1);
        }
        self.paths.keep_best(plan.kernels, size);
        Ok(())
    }

    /// Follows clusters to allowed labels, one by one, until there are B of them that lead to S labels,
    /// and gives their number; None where they lead to fewer.
    ///
    /// # Errors
    /// Those of the loops.
    pub(crate) fn fill_until_enough(
        &mut self,
        plan: &Plan<'_>,
        clusters: &[BeamCluster],
        allowed: BitmapView<'_>,
        loops: &mut impl Loops,
    ) -> Result<Option<usize>> {
        self.paths.clear();
        for (followed, cluster) in (1..).zip(clusters) {
            let (labels, weights) = plan.adjacency.row(cluster.cluster as usize);
            let pieces = labels.chunks(PATHS_BETWEEN_CHECKS);
            for (labels, weights) in pieces.zip(weights.chunks(PATHS_BETWEEN_CHECKS)) {
                loops.proceed()?;
                let (labels, weights) = self.allowed.of(labels, weights, allowed);
                self.paths.reserve(labels.len());
                self.paths.follow(cluster.score, labels, weights);
            }
            if followed >= plan.beam_size && self.paths.labels().len() >= plan.shortlist_size {
                self.paths.keep_best(plan.kernels, plan.shortlist_size);
                return Ok(Some(followed));
            }
        }
        Ok(None)
    }

    /// Takes the best of `labels`, each there once, with their path scores.
    pub(crate) fn fill_with(&mut self, plan: &Plan<'_>, labels: &[u32], scores: &[f32]) {
        self.paths.clear();
        self.paths.reserve(labels.len());
        self.paths.follow(1.0, labels, scores);
        self.paths.keep_best(plan.kernels, plan.shortlist_size);
    }

    /// The labels found, in any order.
    pub(crate) fn labels(&self) -> &[u32] {
        self.paths.labels()
    }

    /// The path scores of [`Self::labels`].
    pub(crate) fn scores(&self) -> &[f32] {
        self.paths.scores()
    }

    /// Labels and path scores by descending score, then id.
    pub(crate) fn sorted(&mut self) -> impl Iterator<Item = (u32, f32)> {
        self.keys.clear();
        let scored = self.paths.scores().iter().zip(self.paths.labels());
        self.keys.extend(scored.map(|(&score, &label)| key(score, label)));
        self.keys.sort_unstable();
        self.keys.iter().copied().map(unkey)
    }

    fn start(&mut self, plan: &Plan<'_>, beam: &[BeamCluster]) {
        self.paths.clear();
        self.followed.clear();
        self.followed.resize(beam.len(), 0);
        self.sketch.clear();
        for entry in beam {
            let sketch = plan.adjacency.sketch(entry.cluster as usize);
            self.sketch.extend(sketch.iter().map(|weight| entry.score * weight));
        }
    }

    /// Follows all paths of scores from `threshold` on that weren't followed yet.
    ///
    /// # Errors
    /// Those of the loops.
    fn follow(
        &mut self,
        plan: &Plan<'_>,
        beam: &[BeamCluster],
        allowed: Option<BitmapView<'_>>,
        threshold: f32,
        loops: &mut impl Loops,
    ) -> Result<()> {
        self.reaching.clear();
        self.reaching.extend(beam.iter().map(|entry| {
            let reaches = |weight: &f32| entry.score * weight >= threshold;
            plan.adjacency.prefix_len(entry.cluster as usize, reaches)
        }));
        let new: usize = self.reaching.iter().zip(&self.followed).map(|(to, from)| to - from).sum();
        self.paths.reserve(new.min(plan.num_labels() - self.paths.labels().len()));
        let mut unchecked = 0;
        for ((entry, from), &to) in beam.iter().zip(&mut self.followed).zip(&self.reaching) {
            let (labels, weights) = plan.adjacency.row(entry.cluster as usize);
            let pieces = labels[*from..to].chunks(PATHS_BETWEEN_CHECKS);
            for (labels, weights) in pieces.zip(weights[*from..to].chunks(PATHS_BETWEEN_CHECKS)) {
                unchecked += labels.len();
                let (labels, weights) = match allowed {
                    Some(allowed) => self.allowed.of(labels, weights, allowed),
                    None => (labels, weights),
                };
                self.paths.follow(entry.score, labels, weights);
                if unchecked >= PATHS_BETWEEN_CHECKS {
                    unchecked = 0;
                    loops.proceed()?;
                }
            }
            *from = to;
        }
        Ok(())
    }
}

impl Edges {
    /// Those edges along `weights` to `labels` that lead to allowed ones.
    fn of(&mut self, labels: &[u32], weights: &[f32], allowed: BitmapView<'_>) -> (&[u32], &[f32]) {
        self.labels.resize(labels.len(), 0);
        self.weights.resize(labels.len(), 0.0);
        let mut found = 0;
        for (&label, &weight) in labels.iter().zip(weights) {
            // Written whether it is allowed or not: a branch would often be mispredicted.
            self.labels[found] = label;
            self.weights[found] = weight;
            found += usize::from(allowed.contains(label));
        }
        (&self.labels[..found], &self.weights[..found])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;
    use crate::build::IndexParts;
    use crate::error::Error;
    use crate::index::Index;
    use crate::kernels::Kernels;
    use crate::search::SearchOptions;
    use crate::threads::Pulse;

    const NUM_LABELS: usize = 400;

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
        let index = index(rows, NUM_LABELS);
        let options = SearchOptions { shortlist_size: Some(size), ..SearchOptions::default() };
        let mut plan = Plan::new(&index, &options).unwrap();
        let beam: Vec<_> =
            beam.iter().map(|&(cluster, score)| BeamCluster { cluster, score }).collect();
        let flag = AtomicBool::new(false);
        let mut shortlist = Shortlist::default();
        let found = Kernels::available().into_iter().map(|kernels| {
            // In the same memory, to see that nothing is left over from the time before.
            plan.kernels = kernels;
            shortlist.fill(&plan, &beam, None, &mut Pulse::follower(&flag)).unwrap();
            let scores = shortlist.labels().iter().copied().zip(shortlist.scores().to_vec());
            let mut unsorted: Vec<_> = scores.collect();
            let sorted: Vec<_> = shortlist.sorted().collect();
            unsorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            assert_eq!(unsorted, sorted);
            sorted
        });
        found
            .reduce(|one, other| {
                assert_eq!(one, other);
                one
            })
            .unwrap()
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
        let result = Shortlist::default().fill(&plan, &beam, None, &mut Pulse::follower(&flag));
        assert!(matches!(result, Err(Error::Interrupted)));
    }

    #[test]
    fn rows_with_the_same_labels_are_followed_until_there_are_enough() {
        // Nine rows of ten begin with labels that the first one has too.
        let row = |first: u32| -> BTreeMap<u32, f32> {
            let labels = (0..150).chain(first..first + 20);
            labels.zip((0..170).map(|rank| 1.0 / (1.0 + rank as f32))).collect()
        };
        let rows: Rows = (0..10).map(|i| row(150 + 20 * i)).collect();
        let beam: Vec<_> = (0..10).map(|i| (i, 1.0 - 0.01 * i as f32)).collect();
        for size in [100, 155, 200, 349, 350, 400] {
            assert_eq!(shortlist(&rows, &beam, size), by_sorting(&rows, &beam, size));
        }
    }

    /// Rows of up to 300 edges, whose weights are drawn from `weights`.
    fn rows(weights: impl Strategy<Value = f32>) -> impl Strategy<Value = Rows> {
        let row = prop::collection::btree_map(0..NUM_LABELS as u32, weights, 0..300);
        prop::collection::vec(row, 1..8)
    }

    /// A beam over all rows, the scores in descending order.
    fn beam(rows: &Rows, mut scores: Vec<f32>) -> Vec<(u32, f32)> {
        scores.truncate(rows.len());
        scores.sort_by(|a, b| b.total_cmp(a));
        (0..).zip(scores).collect()
    }

    proptest! {
        #[test]
        fn it_is_sorting_and_cutting_with_few_distinct_scores(
            rows in rows((1..=8_u8).prop_map(|w| f32::from(w) / 8.0)),
            scores in prop::collection::vec((0..=4_u8).prop_map(|s| f32::from(s) / 4.0), 8),
            size in 1..NUM_LABELS,
        ) {
            let beam = beam(&rows, scores);
            prop_assert_eq!(shortlist(&rows, &beam, size), by_sorting(&rows, &beam, size));
        }

        #[test]
        fn it_is_sorting_and_cutting_with_all_kinds_of_scores(
            rows in rows(f32::MIN_POSITIVE..=1.0),
            scores in prop::collection::vec(0.0..=1.0_f32, 8),
            size in 1..NUM_LABELS,
        ) {
            let beam = beam(&rows, scores);
            prop_assert_eq!(shortlist(&rows, &beam, size), by_sorting(&rows, &beam, size));
        }

        #[test]
        fn it_is_sorting_and_cutting_with_subnormal_scores(
            rows in rows((1..=u32::MAX).prop_map(|w| w as f32 / u32::MAX as f32)),
            scores in prop::collection::vec((0..40_u32).prop_map(f32::from_bits), 8),
            size in 1..NUM_LABELS,
        ) {
            let beam = beam(&rows, scores);
            prop_assert_eq!(shortlist(&rows, &beam, size), by_sorting(&rows, &beam, size));
        }
    }
}

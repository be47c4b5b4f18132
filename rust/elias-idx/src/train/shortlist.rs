//! The pairs of a query: its shortlist, as [`crate::search`] finds it but over weights that change at every
//! step, and those of its labels that the beam reaches.

use super::adjacency::{NONE, Reached};
use super::inputs::{AdjacencyRows, Positives};
use super::{check, checked_id, entries};
use crate::error::Result;
use crate::kernels::Kernels;
use crate::search::best_paths::{home, kept_key};
use crate::search::top_k::key;

/// A query and a label that its beam reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) label: u32,
    /// The edge of the label's best path, which leads to the label; see [`Reached`].
    pub(super) slot: u32,
    /// The score of that path.
    pub(super) path_score: f32,
    /// In (0, 1] for the query's own labels, else 0.
    pub(super) relevance: f32,
    /// False for an own label that is reached, but isn't among the best S.
    pub(super) shortlisted: bool,
}

impl Pair {
    /// Stands where there is no pair.
    pub(super) const UNUSED: Self =
        Self { label: u32::MAX, slot: 0, path_score: 0.0, relevance: 0.0, shortlisted: false };

    pub(super) fn is_used(&self) -> bool {
        self.label != u32::MAX
    }
}

/// What shortlists are found in.
pub(super) struct Paths<'a> {
    pub(super) kernels: Kernels,
    pub(super) reached: &'a Reached,
    pub(super) rows: &'a AdjacencyRows<'a>,
    pub(super) num_labels: usize,
    /// \[Q, C\].
    pub(super) cluster_scores: &'a [f32],
    pub(super) positives: &'a Positives<'a>,
    /// S.
    pub(super) size: usize,
}

impl Paths<'_> {
    fn num_clusters(&self) -> usize {
        self.rows.lengths.len()
    }

    /// The beam of a query, as new numbers.
    fn beam(&self, query: usize) -> &[u32] {
        let num_queries = self.cluster_scores.len() / self.num_clusters();
        let width = self.reached.beam.len() / num_queries;
        &self.reached.beam[query * width..][..width]
    }

    /// s_c of a cluster by its new number.
    #[inline]
    pub(super) fn cluster_score(&self, query: usize, number: usize) -> f32 {
        let cluster = self.reached.clusters[number] as usize;
        self.cluster_scores[query * self.num_clusters() + cluster]
    }
}

/// Finds shortlists, query by query, in memory that is reused.
#[derive(Default)]
pub(super) struct Shortlister {
    /// The scores of all paths from the beam, cluster by cluster.
    scores: Vec<f32>,
    /// Numbers and slots of the paths that are followed.
    followed: Vec<(u32, u32)>,
    found: Found,
}

impl Shortlister {
    /// Fills `out` with a query's pairs, then with [`Pair::UNUSED`]. There is room for S pairs and the
    /// query's labels.
    ///
    /// The best `count` paths are followed, or more where these lead to fewer than S labels. Returns how many
    /// that took. (The pairs don't depend on `count`, but their order does.)
    ///
    /// # Errors
    /// Labels or edges that don't exist.
    pub(super) fn fill(
        &mut self,
        paths: &Paths<'_>,
        query: usize,
        mut count: usize,
        out: &mut [Pair],
    ) -> Result<usize> {
        self.compute_scores(paths, query);
        loop {
            let threshold = if count < self.scores.len() {
                paths.kernels.kth_largest(&self.scores, count)
            } else {
                0.0
            };
            self.follow(paths, query, threshold)?;
            // Scores aren't negative: with a threshold of 0, all paths were followed.
            if self.found.labels.len() >= paths.size || threshold == 0.0 {
                break;
            }
            count += count / 4 + 1;
        }
        let worst = kept_key(
            paths.kernels,
            &self.found.labels,
            &self.found.scores,
            paths.size,
            &mut self.found.ties,
        );
        let num_followed = self.found.labels.len();
        self.add_positives(paths, query)?;
        self.found.write(worst, num_followed, out);
        Ok(count)
    }

    fn compute_scores(&mut self, paths: &Paths<'_>, query: usize) {
        self.scores.clear();
        for &number in paths.beam(query).iter().filter(|&&number| number != NONE) {
            let score = paths.cluster_score(query, number as usize);
            match paths.reached.scaled(number as usize, paths.rows) {
                Some(scaled) => self.scores.extend(scaled.iter().map(|a| score * a.min(1.0))),
                None => {
                    let cluster = paths.reached.clusters[number as usize] as usize;
                    let len = self.scores.len() + paths.rows.len(cluster);
                    self.scores.resize(len, score);
                }
            }
        }
    }

    /// Follows the paths with scores from `threshold` on.
    fn follow(&mut self, paths: &Paths<'_>, query: usize, threshold: f32) -> Result<()> {
        let width = paths.rows.width;
        self.followed.resize(self.scores.len() + 1, (0, 0));
        let (mut count, mut first) = (0, 0);
        for &number in paths.beam(query).iter().filter(|&&number| number != NONE) {
            let len = paths.rows.len(paths.reached.clusters[number as usize] as usize);
            let first_slot = number as usize * width;
            for (at, score) in self.scores[first..first + len].iter().enumerate() {
                // Written whether it is followed or not: a branch would often be mispredicted.
                self.followed[count] = ((first + at) as u32, (first_slot + at) as u32);
                count += usize::from(*score >= threshold);
            }
            first += len;
        }
        self.found.clear(count);
        for &(path, slot) in &self.followed[..count] {
            let (number, place) = (slot as usize / width, slot as usize % width);
            let cluster = paths.reached.clusters[number] as usize;
            let label = paths.rows.labels[cluster * width + place];
            let label = checked_id("the adjacency", label.into(), paths.num_labels)? as u32;
            self.found.add(label, self.scores[path as usize], slot);
        }
        Ok(())
    }

    /// Marks the query's own labels, and adds those that the beam reaches by paths not followed.
    fn add_positives(&mut self, paths: &Paths<'_>, query: usize) -> Result<()> {
        let positives = paths.positives;
        for entry in entries(positives.offsets, query) {
            let label = checked_id("the labels", positives.labels[entry], paths.num_labels)?;
            let relevance = positives.relevance[entry];
            if let Some(place) = self.found.place(label as u32) {
                self.found.relevance[place] = relevance;
            } else if let Some((score, slot)) = best_path(paths, query, label)? {
                self.found.push(label as u32, score, slot, relevance);
            }
        }
        Ok(())
    }
}

/// The best path from a query's beam to a label: its score, and its edge's slot.
fn best_path(paths: &Paths<'_>, query: usize, label: usize) -> Result<Option<(f32, u32)>> {
    let (rows, clusters) = (paths.rows, &paths.reached.clusters);
    let mut best: Option<(f32, u32)> = None;
    for entry in entries(rows.label_offsets, label) {
        let num_slots = rows.labels.len();
        let slot = checked_id("the labels' slots", rows.label_slots[entry].into(), num_slots)?;
        let (cluster, place) = (slot / rows.width, slot % rows.width);
        // Else two threads could add to an edge's gradient at once: each label has one.
        let fits = rows.labels[slot] as usize == label && place < rows.len(cluster);
        check(fits, || format!("the labels' slots holds {slot}, which isn't label {label}'s"))?;
        let Ok(number) = clusters.binary_search(&(cluster as u32)) else { continue };
        if paths.beam(query).contains(&(number as u32)) {
            let slot = number * rows.width + place;
            let score = paths.cluster_score(query, number) * paths.reached.weight(slot);
            if best.is_none_or(|(best, _)| score > best) {
                best = Some((score, slot as u32));
            }
        }
    }
    Ok(best)
}

/// The labels that paths reach, each once with its best path, and a hash table that finds them.
#[derive(Default)]
struct Found {
    labels: Vec<u32>,
    scores: Vec<f32>,
    slots: Vec<u32>,
    relevance: Vec<f32>,
    /// Where a label stands, or [`EMPTY`]: open addressing with linear probing.
    table: Vec<u32>,
    bits: u32,
    ties: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl Found {
    /// Forgets all, and makes room for `count` labels.
    fn clear(&mut self, count: usize) {
        self.labels.clear();
        self.scores.clear();
        self.slots.clear();
        self.relevance.clear();
        // Two places at least: none takes 0 bits of a hash.
        self.bits = (2 * count + 2).next_power_of_two().trailing_zeros();
        self.table.clear();
        self.table.resize(1 << self.bits, EMPTY);
    }

    /// Where in the table a label stands, or belongs.
    #[inline]
    fn probe(&self, label: u32) -> usize {
        let mask = self.table.len() - 1;
        let mut at = home(label, self.bits) & mask;
        while self.table[at] != EMPTY && self.labels[self.table[at] as usize] != label {
            at = (at + 1) & mask;
        }
        at
    }

    fn place(&self, label: u32) -> Option<usize> {
        let place = self.table[self.probe(label)];
        (place != EMPTY).then_some(place as usize)
    }

    /// Adds a path; of equal ones to a label the first counts.
    #[inline]
    fn add(&mut self, label: u32, score: f32, slot: u32) {
        let at = self.probe(label);
        let place = self.table[at] as usize;
        if place == EMPTY as usize {
            self.table[at] = self.labels.len() as u32;
            self.push(label, score, slot, 0.0);
        } else if score > self.scores[place] {
            self.scores[place] = score;
            self.slots[place] = slot;
        }
    }

    fn push(&mut self, label: u32, score: f32, slot: u32, relevance: f32) {
        self.labels.push(label);
        self.scores.push(score);
        self.slots.push(slot);
        self.relevance.push(relevance);
    }

    /// Writes the first `num_followed` labels that aren't worse than `worst`, and all relevant ones.
    fn write(&self, worst: u64, num_followed: usize, out: &mut [Pair]) {
        let mut count = 0;
        for (place, &label) in self.labels.iter().enumerate() {
            let (path_score, relevance) = (self.scores[place], self.relevance[place]);
            let shortlisted = place < num_followed && key(path_score, label) <= worst;
            if shortlisted || relevance > 0.0 {
                let slot = self.slots[place];
                out[count] = Pair { label, slot, path_score, relevance, shortlisted };
                count += 1;
            }
        }
        out[count..].fill(Pair::UNUSED);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const NUM_LABELS: usize = 60;

    /// Rows of distinct labels as padded and transposed arrays.
    struct Edges {
        width: usize,
        labels: Vec<i32>,
        lengths: Vec<i64>,
        label_offsets: Vec<i64>,
        label_slots: Vec<i32>,
    }

    impl Edges {
        fn new(rows: &[Vec<u32>]) -> Self {
            let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
            let mut labels = vec![0; rows.len() * width];
            let mut slots = vec![Vec::new(); NUM_LABELS];
            for (cluster, row) in rows.iter().enumerate() {
                for (place, &label) in row.iter().enumerate() {
                    let slot = cluster * width + place;
                    labels[slot] = label as i32;
                    slots[label as usize].push(slot as i32);
                }
            }
            let mut label_offsets = vec![0];
            label_offsets.extend(slots.iter().scan(0, |end, slots| {
                *end += slots.len() as i64;
                Some(*end)
            }));
            let lengths = rows.iter().map(|row| row.len() as i64).collect();
            Self { width, labels, lengths, label_offsets, label_slots: slots.concat() }
        }

        fn rows(&self) -> AdjacencyRows<'_> {
            AdjacencyRows {
                width: self.width,
                labels: &self.labels,
                lengths: &self.lengths,
                label_offsets: &self.label_offsets,
                label_slots: &self.label_slots,
            }
        }
    }

    proptest! {
        #[test]
        fn pairs_are_those_of_sorting_and_cutting(
            rows in prop::collection::vec(
                prop::collection::btree_set(0..NUM_LABELS as u32, 0..30), 1..8,
            ),
            scores in prop::collection::vec((0..=4_u8).prop_map(|s| f32::from(s) / 4.0), 8),
            in_beam in prop::collection::vec(any::<bool>(), 8),
            own in prop::collection::btree_map(0..NUM_LABELS as i64, 0.1..=1.0_f32, 0..6),
            size in 1..70_usize,
            count in 1..100_usize,
        ) {
            let rows: Vec<Vec<u32>> = rows.into_iter().map(|row| row.into_iter().collect()).collect();
            let edges = Edges::new(&rows);
            let beam: Vec<i64> =
                (0..rows.len()).map(|c| if in_beam[c] { c as i64 } else { -1 }).collect();
            let mut reached = Reached::default();
            reached.fill(&beam, rows.len()).unwrap();
            let (labels, relevance): (Vec<i64>, Vec<f32>) = own.iter().unzip();
            let offsets = [0, labels.len() as i64];
            let positives = Positives { offsets: &offsets, labels: &labels, relevance: &relevance };

            let mut best: BTreeMap<u32, f32> = BTreeMap::new();
            for (row, (&score, &cluster)) in rows.iter().zip(scores.iter().zip(&beam)) {
                for &label in row.iter().filter(|_| cluster >= 0) {
                    let entry = best.entry(label).or_insert(score);
                    *entry = entry.max(score);
                }
            }
            let mut order: Vec<u32> = best.keys().copied().collect();
            order.sort_by(|a, b| best[b].total_cmp(&best[a]).then(a.cmp(b)));
            let expected: Vec<_> = order
                .iter()
                .enumerate()
                .map(|(rank, label)| (*label, best[label], own.get(&i64::from(*label)), rank < size))
                .filter(|(.., relevance, shortlisted)| *shortlisted || relevance.is_some())
                .map(|(label, score, relevance, shortlisted)| {
                    (label, score, relevance.copied().unwrap_or(0.0), shortlisted)
                })
                .collect();

            let mut shortlister = Shortlister::default();
            for kernels in Kernels::available() {
                let paths = Paths {
                    kernels,
                    reached: &reached,
                    rows: &edges.rows(),
                    num_labels: NUM_LABELS,
                    cluster_scores: &scores[..rows.len()],
                    positives: &positives,
                    size,
                };
                let mut out = vec![Pair::UNUSED; size + labels.len()];
                shortlister.fill(&paths, 0, count, &mut out).unwrap();
                let mut found: Vec<_> = out.iter().filter(|pair| pair.is_used()).collect();
                found.sort_by(|a, b| b.path_score.total_cmp(&a.path_score).then(a.label.cmp(&b.label)));
                for pair in &found {
                    let (number, place) =
                        (pair.slot as usize / edges.width, pair.slot as usize % edges.width);
                    let cluster = reached.clusters[number] as usize;
                    prop_assert_eq!(rows[cluster][place], pair.label);
                    prop_assert_eq!(scores[cluster], pair.path_score);
                }
                let found: Vec<_> = found
                    .iter()
                    .map(|pair| (pair.label, pair.path_score, pair.relevance, pair.shortlisted))
                    .collect();
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}

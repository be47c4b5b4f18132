//! The pairs of a query: its shortlist, as [`crate::search`] finds it but over weights that change at every
//! step, and those of its labels that the beam reaches.

use super::adjacency::{NONE, Reached};
use super::label_step::{AdjacencyRows, Positives};
use super::{checked_id, entries};
use crate::error::Result;
use crate::kernels::Kernels;
use crate::search::best_paths::{home, kept_key};
use crate::search::top_k::key;

/// A query and a label that its beam reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) label: u32,
    /// The edge of the label's best path; see [`Reached`].
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
            let label = checked_id("the adjacency", label, paths.num_labels)? as u32;
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
        let slot = checked_id("the labels' slots", rows.label_slots[entry], num_slots)?;
        let (cluster, place) = (slot / rows.width, slot % rows.width);
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
        self.bits = (2 * count + 1).next_power_of_two().trailing_zeros();
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

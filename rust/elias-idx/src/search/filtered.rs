//! Steps 2 to 4 for a query that may have some labels only.
//!
//! Labels that aren't allowed are dropped before the shortlist is cut, and the beam widens until it
//! leads to enough of the others: it holds the fewest best clusters, but at least B, that lead to S
//! distinct allowed labels, or all clusters where these lead to fewer.
//!
//! There are two ways to that. Where many labels are allowed, clusters are followed, the best ones
//! first, and their edges tested for allowed labels. Where few are, hardly an edge would pass: their
//! own edges are looked at instead. The best cluster that leads to a label says in which beams it is,
//! so the S-th of all labels' best clusters is where the beam ends.

use super::beam::{BeamCluster, BeamQuery, BeamSearch};
use super::plan::Plan;
use super::shortlist::Shortlist;
use super::top_k::key;
use crate::by_label::{ByLabel, Edge, GatheredRows};
use crate::error::Result;
use crate::filter::{Allowed, Bitmap, BitmapView};
use crate::threads::Loops;

/// The clusters of a query whose beam, of B clusters, was just selected.
pub(crate) struct Clusters<'a> {
    pub(crate) search: &'a mut BeamSearch,
    pub(crate) query: BeamQuery<'a>,
    /// What it was selected from \[C\].
    pub(crate) logits: &'a mut [f32],
}

/// Finds shortlists for queries with filters, in memory that is reused from query to query.
#[derive(Default)]
pub(crate) struct FilteredShortlist {
    bitmap: Bitmap,
    /// The allowed labels, and their edges by [`CHUNK`]s of them.
    labels: Vec<u32>,
    rows: Vec<GatheredRows>,
    /// The clusters that lead to these, and for each cluster whether it is among them.
    clusters: Vec<u32>,
    is_met: Vec<bool>,
    /// The best cluster that leads to each of the labels, by id and score.
    cluster_keys: Vec<u64>,
    selected: Vec<u64>,
    reached: Vec<u32>,
    path_scores: Vec<f32>,
}

/// By how much the beam widens when it doesn't lead to enough labels.
const GROWTH: usize = 4;
/// Labels that are looked at between two looks at whether to stop.
const CHUNK: usize = 1024;

/// Whether it costs less to look at the edges of `count` allowed labels than to follow clusters.
pub(crate) fn labels_come_first(count: usize, plan: &Plan<'_>) -> bool {
    // The labels have count · nnz / L edges. Clusters lead to S of the labels by S · L / count edges,
    // if no label is met twice; some are, but on the other hand these edges lie side by side.
    let share = count as f64 / plan.num_labels() as f64;
    let edges = plan.adjacency.num_edges() as f64;
    count < plan.shortlist_size || share * share * edges < plan.shortlist_size as f64
}

impl FilteredShortlist {
    /// Fills `shortlist`, and gives the key of the last cluster of the beam.
    ///
    /// # Errors
    /// Those of the loops.
    pub(crate) fn fill(
        &mut self,
        plan: &Plan<'_>,
        allowed: Allowed<'_>,
        clusters: &mut Clusters<'_>,
        shortlist: &mut Shortlist,
        loops: &mut impl Loops,
    ) -> Result<u64> {
        match (plan.by_label, allowed) {
            (Some(by_label), _) if labels_come_first(allowed.len(), plan) => {
                self.follow_labels(plan, by_label, allowed, clusters, shortlist, loops)
            }
            (_, Allowed::Many(bitmap)) => follow_clusters(plan, bitmap, clusters, shortlist, loops),
            (_, Allowed::Few(labels)) => self.bitmap.with(labels, plan.num_labels(), |bitmap| {
                follow_clusters(plan, bitmap, clusters, shortlist, loops)
            }),
        }
    }

    /// Finds the labels by their own edges.
    fn follow_labels(
        &mut self,
        plan: &Plan<'_>,
        by_label: &ByLabel,
        allowed: Allowed<'_>,
        clusters: &mut Clusters<'_>,
        shortlist: &mut Shortlist,
        loops: &mut impl Loops,
    ) -> Result<u64> {
        self.gather(by_label, allowed, plan.num_clusters(), loops)?;
        let beam_end = clusters.search.beam().last().map_or(0, cluster_key);
        let Clusters { search, query, logits } = clusters;
        let scores = search.score(plan, *query, logits, &self.clusters, loops)?;
        let edge_key = |edge: &Edge| key(scores[edge.cluster as usize], edge.cluster);
        let rows = &self.rows[..self.labels.len().div_ceil(CHUNK)];
        let rows = || rows.iter().flat_map(GatheredRows::iter);
        let best_keys = rows().map(|row| row.iter().map(edge_key).min().unwrap_or(u64::MAX));
        self.cluster_keys.clear();
        self.cluster_keys.extend(best_keys);
        let last = match plan.shortlist_size {
            size if size > self.labels.len() => u64::MAX,
            size => {
                self.selected.clear();
                self.selected.extend(&self.cluster_keys);
                (*self.selected.select_nth_unstable(size - 1).1).max(beam_end)
            }
        };
        self.reached.clear();
        self.path_scores.clear();
        for ((&label, &best), row) in self.labels.iter().zip(&self.cluster_keys).zip(rows()) {
            if best <= last {
                let edges = row.iter().filter(|edge| edge_key(edge) <= last);
                let paths = edges.map(|edge| scores[edge.cluster as usize] * edge.weight);
                if let Some(path_score) = paths.reduce(f32::max) {
                    self.reached.push(label);
                    self.path_scores.push(path_score);
                }
            }
        }
        shortlist.fill_with(plan, &self.reached, &self.path_scores);
        Ok(last)
    }

    /// Collects the allowed labels' edges, and the clusters that these lead from.
    fn gather(
        &mut self,
        by_label: &ByLabel,
        allowed: Allowed<'_>,
        num_clusters: usize,
        loops: &mut impl Loops,
    ) -> Result<()> {
        self.labels.clear();
        self.labels.extend(allowed.iter());
        self.clusters.clear();
        self.is_met.clear();
        self.is_met.resize(num_clusters, false);
        let num_chunks = self.labels.len().div_ceil(CHUNK);
        // Those that an earlier query needed are kept, with their memory.
        if self.rows.len() < num_chunks {
            self.rows.resize_with(num_chunks, GatheredRows::default);
        }
        for (labels, rows) in self.labels.chunks(CHUNK).zip(&mut self.rows) {
            loops.proceed()?;
            by_label.gather(labels, rows);
            for edge in rows.edges() {
                if !std::mem::replace(&mut self.is_met[edge.cluster as usize], true) {
                    self.clusters.push(edge.cluster);
                }
            }
        }
        Ok(())
    }
}

/// Finds the labels of the bitmap by following clusters, the best first.
fn follow_clusters(
    plan: &Plan<'_>,
    allowed: BitmapView<'_>,
    clusters: &mut Clusters<'_>,
    shortlist: &mut Shortlist,
    loops: &mut impl Loops,
) -> Result<u64> {
    let Clusters { search, query, logits } = clusters;
    let mut beam_size = plan.beam_size;
    shortlist.fill(plan, search.beam(), Some(allowed), loops)?;
    while shortlist.labels().len() < plan.shortlist_size && beam_size < plan.num_clusters() {
        beam_size = beam_size.saturating_mul(GROWTH).min(plan.num_clusters());
        search.widen(plan, *query, logits, beam_size);
        // From the first cluster on, as scores of another selection may be rounded otherwise.
        let enough = shortlist.fill_until_enough(plan, search.beam(), allowed, loops)?;
        if let Some(followed) = enough {
            return Ok(cluster_key(&search.beam()[followed - 1]));
        }
    }
    Ok(search.beam().last().map_or(0, cluster_key))
}

/// Sorts clusters, the best first.
fn cluster_key(cluster: &BeamCluster) -> u64 {
    key(cluster.score, cluster.cluster)
}

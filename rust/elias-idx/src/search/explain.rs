//! How each step of a search treats given labels, whether it returns them or not.

use std::collections::HashMap;

use super::beam::{self, BeamCluster, BeamQuery, BeamSearch};
use super::best_paths::BestPaths;
use super::filtered::{Clusters, FilteredShortlist};
use super::plan::Plan;
use super::rerank::{Rerank, project};
use super::shortlist::Shortlist;
use super::top_k::{TopK, key, unkey};
use super::{SearchOptions, check_queries};
use crate::by_label::Edge;
use crate::error::{ArgumentError, Result};
use crate::filter::{Allowed, Bitmap};
use crate::index::Index;
use crate::matrix::MatrixView;
use crate::query_codes::QueryCodes;
use crate::storage::zeros;
use crate::threads::{self, Hook, Loops};

/// What [`Index::explain`] says of a query, and of each label that it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanations {
    /// Clusters in the beam; more than B where a filter widened it.
    pub beam_size: usize,
    /// Allowed labels that the beam leads to.
    pub num_reached: usize,
    /// Labels in the shortlist.
    pub num_shortlisted: usize,
    /// In the order in which they were asked for.
    pub labels: Vec<Explanation>,
}

/// How a search treats one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The label.
    pub label: usize,
    /// Whether the filter allows it; true without one.
    pub allowed: bool,
    /// The paths to it, the best one first, of equal ones that of the better cluster.
    pub paths: Vec<Path>,
    /// The score of the path that counts: the best one through the beam, or the best one of all
    /// where none is in the beam; 0 without paths.
    pub path_score: f32,
    /// w · T e + b.
    pub logit: f32,
    /// sigmoid(logit).
    pub probability: f32,
    /// The final score, path score times probability: what a search returns if it returns the label.
    pub score: f32,
    /// Its place, from 1, among the labels reached, by path score. None for one that isn't.
    pub path_rank: Option<usize>,
    /// Its place, from 1, among the labels of the shortlist, by final score. None for one that
    /// isn't among them.
    pub rank: Option<usize>,
}

/// A way to a label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    /// The cluster that it leads through.
    pub cluster: usize,
    /// The cluster's place, from 1, among all clusters.
    pub cluster_rank: usize,
    /// s_c.
    pub cluster_score: f32,
    /// a, the weight of the edge from the cluster to the label.
    pub weight: f32,
    /// s_c · a.
    pub score: f32,
    /// Whether the beam holds the cluster.
    pub in_beam: bool,
}

impl Index {
    /// How a search for `query` \[D\] treats `labels`, by the same arithmetic. `stop` is as for the
    /// searches; num_threads and min_score have no effect.
    ///
    /// # Errors
    /// Those of [`Index::search`], and [`ArgumentError::NoSuchLabel`].
    pub fn explain(
        &self,
        query: &[f32],
        labels: &[i64],
        options: &SearchOptions<'_>,
        stop: Hook<'_>,
    ) -> Result<Explanations> {
        let plan = Plan::new(self, options)?;
        check_queries(query, self.dim())?;
        if query.len() != self.dim() {
            let (expected, received) = (self.dim(), query.len());
            return Err(ArgumentError::WrongLength { name: "query", expected, received }.into());
        }
        let num_labels = self.num_labels();
        if let Some(&label) = labels.iter().find(|&&l| l < 0 || l >= num_labels as i64) {
            return Err(ArgumentError::NoSuchLabel { label, num_labels }.into());
        }
        if let Some(filter) = options.filter {
            filter.check(self, 1)?;
        }
        let plan = Plan { by_label: Some(self.by_label(stop)?), ..plan };
        threads::lead(1, stop, |team| explain(&plan, query, labels, team))
    }
}

fn explain(
    plan: &Plan<'_>,
    query: &[f32],
    labels: &[i64],
    loops: &mut impl Loops,
) -> Result<Explanations> {
    let allowed = plan.filter.and_then(|filter| filter.of_query(0));
    let (order, beam_size) = rank_clusters(plan, query, allowed, loops)?;
    let reached = reach(plan, allowed, &order[..beam_size], loops)?;
    let mut label_query = query.to_vec();
    if let Some(projection) = plan.label_projection {
        label_query.resize(projection.rows(), 0.0);
        project(plan, projection, query, &mut label_query);
    }
    let num_shortlisted = reached.len().min(plan.shortlist_size);
    let (shortlist, path_scores): (Vec<u32>, Vec<f32>) =
        reached[..num_shortlisted].iter().copied().unzip();
    let (mut top, shortlist) = (TopK::default(), (&shortlist[..], &path_scores[..]));
    let best = (&mut top, plan.shortlist_size);
    Rerank::default().run(plan, &label_query, None, shortlist, best, loops)?;

    let path_ranks = ranks(reached.iter().map(|label| label.0));
    let final_ranks = ranks(top.finish().iter().map(|&key| unkey(key).0));
    let cluster_ranks = ranks(order.iter().map(|cluster| cluster.cluster));
    let labels: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
    let (logits, probabilities) = classify(plan, &label_query, &labels);
    let each = labels.iter().zip(logits.into_iter().zip(probabilities));
    let explanations = each.map(|(label, (logit, probability))| {
        let paths = paths(plan, *label, &order, &cluster_ranks, beam_size);
        let counts = paths.iter().find(|path| path.in_beam).or(paths.first());
        let path_score = counts.map_or(0.0, |path| path.score);
        Explanation {
            label: *label as usize,
            allowed: allowed.is_none_or(|allowed| allowed.contains(*label)),
            paths,
            path_score,
            logit,
            probability,
            score: path_score * probability,
            path_rank: path_ranks.get(label).copied(),
            rank: final_ranks.get(label).copied(),
        }
    });
    let labels = explanations.collect();
    Ok(Explanations { beam_size, num_reached: reached.len(), num_shortlisted, labels })
}

/// All clusters, the best first, and how many of them are in the beam.
fn rank_clusters(
    plan: &Plan<'_>,
    query: &[f32],
    allowed: Option<Allowed<'_>>,
    loops: &mut impl Loops,
) -> Result<(Vec<BeamCluster>, usize)> {
    let mut codes = QueryCodes::default();
    codes.clear(query.len());
    codes.push(query);
    let mut logits = zeros("cluster scores", beam::logits_stride(plan))?;
    let values = MatrixView::new(query, query.len());
    beam::cluster_logits(plan, values, codes.slice(), &mut logits, loops)?;
    logits.truncate(plan.num_clusters());
    let meta = plan.cluster_panels.map(|_| codes.slice().get(0).meta);
    let query = BeamQuery { values: query, meta };
    let mut search = BeamSearch::default();
    search.select(plan, query, &mut logits, plan.beam_size);

    let last = match allowed {
        Some(allowed) => {
            let mut clusters = Clusters { search: &mut search, query, logits: &mut logits };
            let shortlist = &mut Shortlist::default();
            FilteredShortlist::default().fill(plan, allowed, &mut clusters, shortlist, loops)?
        }
        None => search.beam().last().map_or(0, |end| key(end.score, end.cluster)),
    };
    let all: Vec<u32> = (0..plan.num_clusters() as u32).collect();
    search.score(plan, query, &mut logits, &all, loops)?;
    search.widen(plan, query, &mut logits, plan.num_clusters());
    let order = search.beam().to_vec();
    let beam_size = order.partition_point(|cluster| key(cluster.score, cluster.cluster) <= last);
    Ok((order, beam_size))
}

/// All allowed labels that a beam leads to with their path scores, best path first.
fn reach(
    plan: &Plan<'_>,
    allowed: Option<Allowed<'_>>,
    beam: &[BeamCluster],
    loops: &mut impl Loops,
) -> Result<Vec<(u32, f32)>> {
    // Each edge is looked up, which takes a bitmap.
    let allowed = allowed.map(|allowed| Bitmap::new(allowed.iter(), plan.num_labels()));
    let is_allowed = |label| allowed.as_ref().is_none_or(|allowed| allowed.view().contains(label));
    let mut reached = BestPaths::default();
    for cluster in beam {
        loops.proceed()?;
        let (labels, weights) = plan.adjacency.row(cluster.cluster as usize);
        let edges = labels.iter().copied().zip(weights.iter().copied());
        let (labels, weights): (Vec<u32>, Vec<f32>) =
            edges.filter(|edge| is_allowed(edge.0)).unzip();
        reached.reserve(labels.len());
        reached.follow(cluster.score, &labels, &weights);
    }
    let paths = reached.labels().iter().zip(reached.scores());
    let mut keys: Vec<u64> = paths.map(|(&label, &score)| key(score, label)).collect();
    keys.sort_unstable();
    Ok(keys.into_iter().map(unkey).collect())
}

/// The labels' logits and probabilities.
fn classify(plan: &Plan<'_>, query: &[f32], labels: &[u32]) -> (Vec<f32>, Vec<f32>) {
    let mut logits = vec![0.0; labels.len()];
    plan.kernels.linear_rows(plan.label_rows, plan.label_bias, labels, query, &mut logits);
    let mut probabilities = logits.clone();
    plan.kernels.final_scores(&mut probabilities, &vec![1.0; labels.len()]);
    (logits, probabilities)
}

/// All paths to a label, the best one first, of equal ones that of the better cluster.
fn paths(
    plan: &Plan<'_>,
    label: u32,
    order: &[BeamCluster],
    cluster_ranks: &HashMap<u32, usize>,
    beam_size: usize,
) -> Vec<Path> {
    let by_label = plan.by_label.expect("made by the caller");
    let path = |edge: &Edge| {
        let cluster_rank = cluster_ranks[&edge.cluster];
        let cluster_score = order[cluster_rank - 1].score;
        Path {
            cluster: edge.cluster as usize,
            cluster_rank,
            cluster_score,
            weight: edge.weight,
            score: cluster_score * edge.weight,
            in_beam: cluster_rank <= beam_size,
        }
    };
    let mut paths: Vec<Path> = by_label.row(label).iter().map(path).collect();
    paths.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.cluster_rank.cmp(&b.cluster_rank)));
    paths
}

/// The place of each id, from 1.
fn ranks(ids: impl Iterator<Item = u32>) -> HashMap<u32, usize> {
    ids.zip(1..).collect()
}

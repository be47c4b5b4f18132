//! One thread's part of a search: all steps for a block of queries.

use std::ops::Range;

use super::HitsMut;
use super::batch::Goal;
use super::beam::{self, BeamQuery, BeamSearch};
use super::filtered::{Clusters, FilteredShortlist};
use super::label_major::LabelMajor;
use super::plan::Plan;
use super::rerank::{self, Rerank};
use super::shortlist::Shortlist;
use super::top_k::{TopK, unkey};
use crate::error::Result;
use crate::fusion::scorer::{FusedQuery, Scorer};
use crate::matrix::MatrixView;
use crate::query_codes::{QueryCodes, QueryCodesSlice};
use crate::threads::Loops;

/// Queries that share a pass over the cluster classifiers, at most.
const MAX_SCAN: usize = 64;
/// Logits that a thread holds at once, about (more for a single query of more clusters).
const MAX_LOGITS: usize = 1 << 23;
/// Queries from which on a block is screened label by label.
const LABEL_MAJOR: usize = 48;

/// Some queries and the memory for their results.
pub(crate) struct Block<'a> {
    /// The number of the first one in the call.
    pub(crate) first: usize,
    pub(crate) queries: &'a [f32],
    pub(crate) out: HitsMut<'a>,
}

/// One thread's memory, reused from block to block.
#[derive(Default)]
pub(crate) struct Worker {
    codes: QueryCodes,
    logits: Vec<f32>,
    beam: BeamSearch,
    shortlist: Shortlist,
    filtered: FilteredShortlist,
    /// T e of all queries, and the codes of that; unused where there is no T.
    projected: Vec<f32>,
    projected_codes: QueryCodes,
    label_major: LabelMajor,
    rerank: Rerank,
    top: TopK,
    scorer: Scorer,
}

impl Worker {
    /// Searches for a block of queries. If it is a single one, the larger loops go to `loops`.
    ///
    /// # Errors
    /// Those of the loops.
    pub(crate) fn run(
        &mut self,
        plan: &Plan<'_>,
        goal: Goal,
        width: usize,
        Block { first: block_start, queries, mut out }: Block<'_>,
        loops: &mut impl Loops,
    ) -> Result<()> {
        let num_queries = queries.len() / plan.dim();
        let label_major = goal.is_scored()
            && num_queries >= LABEL_MAJOR
            && plan.label_codes.is_some()
            && rerank::worth_screening(plan.shortlist_size, plan.dense_width(width));
        self.encode(plan, goal, queries);
        self.label_major.clear();
        let scan = (MAX_LOGITS / beam::logits_stride(plan)).clamp(1, MAX_SCAN);
        for first in (0..num_queries).step_by(scan) {
            let range = first..num_queries.min(first + scan);
            loops.proceed()?;
            self.scan_clusters(plan, queries, range.clone(), loops)?;
            for query in range.clone() {
                loops.proceed()?;
                let place = query - range.start;
                self.select_beam(plan, queries, query, place);
                let (ids, scores) = row(&mut out, query, (width, goal));
                if goal == Goal::Beam {
                    let beam = self.beam.beam().iter();
                    write(beam.map(|entry| (entry.cluster, entry.score)), ids, scores);
                    continue;
                }
                match plan.filter.and_then(|filter| filter.of_query(block_start + query)) {
                    Some(allowed) => {
                        let (beam_query, logits) = beam_query(
                            plan,
                            queries,
                            (&self.codes, &mut self.logits[..]),
                            (query, place),
                        );
                        let search = &mut self.beam;
                        let mut clusters = Clusters { search, query: beam_query, logits };
                        let shortlist = &mut self.shortlist;
                        self.filtered.fill(plan, allowed, &mut clusters, shortlist, loops)?;
                    }
                    None => self.shortlist.fill(plan, self.beam.beam(), None, loops)?,
                }
                if goal == Goal::Shortlist {
                    write(self.shortlist.sorted(), ids, scores);
                } else if label_major {
                    self.label_major.push(self.shortlist.labels(), self.shortlist.scores());
                } else {
                    let number = (block_start + query, query);
                    self.rerank(plan, goal, queries, number, (ids, scores), loops)?;
                }
            }
        }
        if label_major {
            self.rerank_label_major(
                plan,
                goal,
                width,
                Block { first: block_start, queries, out },
                loops,
            )?;
        }
        Ok(())
    }

    /// Projects the queries and quantises what will be multiplied with codes.
    fn encode(&mut self, plan: &Plan<'_>, goal: Goal, queries: &[f32]) {
        let dim = plan.dim();
        self.codes.clear(dim);
        queries.chunks(dim).for_each(|query| self.codes.push(query));
        let Some(projection) = plan.label_projection.filter(|_| goal.is_scored()) else {
            return;
        };
        let label_dim = projection.rows();
        self.projected.resize(queries.len() / dim * label_dim, 0.0);
        self.projected_codes.clear(label_dim);
        for (query, projected) in queries.chunks(dim).zip(self.projected.chunks_mut(label_dim)) {
            rerank::project(plan, projection, query, projected);
            self.projected_codes.push(projected);
        }
    }

    /// The logits of all clusters for some of the queries.
    fn scan_clusters(
        &mut self,
        plan: &Plan<'_>,
        queries: &[f32],
        range: Range<usize>,
        loops: &mut impl Loops,
    ) -> Result<()> {
        let dim = plan.dim();
        self.logits.resize(range.len() * beam::logits_stride(plan), 0.0);
        let values = MatrixView::new(&queries[range.start * dim..range.end * dim], dim);
        let codes = self.codes.slice().range(range);
        beam::cluster_logits(plan, values, codes, &mut self.logits, loops)
    }

    /// The beam of a query whose logits are those at `place`.
    fn select_beam(&mut self, plan: &Plan<'_>, queries: &[f32], query: usize, place: usize) {
        let memory = (&self.codes, &mut self.logits[..]);
        let (query, logits) = beam_query(plan, queries, memory, (query, place));
        self.beam.select(plan, query, logits, plan.beam_size);
    }

    /// Scores the shortlist of a query, given by its numbers in the call and in the block.
    fn rerank(
        &mut self,
        plan: &Plan<'_>,
        goal: Goal,
        queries: &[f32],
        (number, query): (usize, usize),
        (ids, scores): (&mut [i64], &mut [f32]),
        loops: &mut impl Loops,
    ) -> Result<()> {
        let (values, codes) =
            label_queries(plan, queries, &self.projected, (&self.codes, &self.projected_codes));
        let codes = plan.label_codes.map(|_| codes.get(query));
        let shortlist = (self.shortlist.labels(), self.shortlist.scores());
        let top = (&mut self.top, plan.dense_width(ids.len()));
        self.rerank.run(plan, values.row(query), codes, shortlist, top, loops)?;
        let query = FusedQuery::new(plan, number, values.row(query), shortlist);
        conclude(plan, goal, &query, (&mut self.top, &mut self.scorer), (ids, scores));
        Ok(())
    }

    /// Scores the shortlists of all queries of a block.
    fn rerank_label_major(
        &mut self,
        plan: &Plan<'_>,
        goal: Goal,
        width: usize,
        Block { first: block_start, queries, mut out }: Block<'_>,
        loops: &mut impl Loops,
    ) -> Result<()> {
        let rows = plan.label_codes.expect("label by label only where there are codes");
        let (values, codes) =
            label_queries(plan, queries, &self.projected, (&self.codes, &self.projected_codes));
        let dense_width = plan.dense_width(width);
        self.label_major.screen(plan, rows, codes, dense_width, loops)?;
        for query in 0..codes.len() {
            let survivors = self.label_major.survivors(plan.kernels, query);
            let top = (&mut self.top, dense_width);
            self.rerank.score_survivors(plan, values.row(query), survivors, top, loops)?;
            let shortlist = (survivors.labels, survivors.path_scores);
            let out = row(&mut out, query, (width, goal));
            let query = FusedQuery::new(plan, block_start + query, values.row(query), shortlist);
            conclude(plan, goal, &query, (&mut self.top, &mut self.scorer), out);
        }
        Ok(())
    }
}

/// What a beam is selected with: of the query with this number in the block, whose logits are those
/// at this place.
fn beam_query<'a>(
    plan: &Plan<'_>,
    queries: &'a [f32],
    (codes, logits): (&'a QueryCodes, &'a mut [f32]),
    (query, place): (usize, usize),
) -> (BeamQuery<'a>, &'a mut [f32]) {
    let dim = plan.dim();
    let logits = &mut logits[place * beam::logits_stride(plan)..][..plan.num_clusters()];
    let meta = plan.cluster_panels.map(|_| codes.slice().get(query).meta);
    (BeamQuery { values: &queries[query * dim..][..dim], meta }, logits)
}

/// Where the results of a query go.
fn row<'a>(
    out: &'a mut HitsMut<'_>,
    query: usize,
    (width, goal): (usize, Goal),
) -> (&'a mut [i64], &'a mut [f32]) {
    let values = width * goal.values();
    (&mut out.ids[query * width..][..width], &mut out.scores[query * values..][..values])
}

/// Writes the results of a query whose dense search left the best labels in `top`.
fn conclude(
    plan: &Plan<'_>,
    goal: Goal,
    query: &FusedQuery<'_>,
    (top, scorer): (&mut TopK, &mut Scorer),
    (ids, values): (&mut [i64], &mut [f32]),
) {
    if let Some(fused) = &plan.fused {
        scorer.collect(plan, fused, query, top.finish());
        if goal == Goal::Evidence {
            return scorer.write(ids, values);
        }
        scorer.score(plan, fused.fusion, top, ids.len());
    }
    write(good_enough(plan, top), ids, values);
}

/// What the label classifiers are multiplied with: the queries, or their projections.
fn label_queries<'a>(
    plan: &Plan<'_>,
    queries: &'a [f32],
    projected: &'a [f32],
    codes: (&'a QueryCodes, &'a QueryCodes),
) -> (MatrixView<'a>, QueryCodesSlice<'a>) {
    match plan.label_projection {
        Some(projection) => (MatrixView::new(projected, projection.rows()), codes.1.slice()),
        None => (MatrixView::new(queries, plan.dim()), codes.0.slice()),
    }
}

/// The results that score high enough.
fn good_enough(plan: &Plan<'_>, top: &mut TopK) -> impl Iterator<Item = (u32, f32)> {
    let results = top.finish().iter().map(|&key| unkey(key));
    results.take_while(|result| f64::from(result.1) >= plan.min_score)
}

/// Fills a row of results, the rest of it with −1 and 0.
pub(super) fn write(found: impl Iterator<Item = (u32, f32)>, ids: &mut [i64], scores: &mut [f32]) {
    let mut count = 0;
    for ((id, score), found) in ids.iter_mut().zip(scores.iter_mut()).zip(found) {
        (*id, *score) = (i64::from(found.0), found.1);
        count += 1;
    }
    ids[count..].fill(-1);
    scores[count..].fill(0.0);
}

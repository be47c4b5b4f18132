//! Ensembles: several indexes searched at once, and the mean of their scores.
//!
//! Each member searches for more labels than are wanted. A label that a member does not return has a score of 0
//! there: with enough of them that is nearly true. Members come one after the other, each on all threads, so that
//! its classifiers stay in the caches; then the threads share out the queries whose scores are averaged.

use std::sync::Mutex;

use super::top_k::{TopK, unkey};
use super::worker::write;
use super::{Hits, HitsMut, SearchOptions, num_threads};
use crate::arguments::{check_len, check_positive};
use crate::error::{ArgumentError, Result};
use crate::index::Index;
use crate::matrix::MAX_IDS;
use crate::threads::{self, Hook, Pulse, lock};

/// Queries that a thread averages in one go.
const QUERIES_AT_ONCE: usize = 64;

/// An index and what it is searched for.
#[derive(Clone, Copy)]
pub struct EnsembleMember<'a> {
    /// The index.
    pub index: &'a Index,
    /// Queries \[Q, D\] of this index's own D.
    pub queries: &'a [f32],
    /// The ensemble's id of each of the index's labels, \[L\]; None where they are the same.
    pub labels: Option<&'a [u32]>,
    /// How it is searched; `min_score` and `num_threads` are those of [`EnsembleOptions`].
    pub options: SearchOptions<'a>,
}

/// How an ensemble is searched.
#[derive(Debug, Clone, Copy, Default)]
pub struct EnsembleOptions {
    /// Labels that each member finds, at least; never fewer than are wanted. A member that is searched with sparse
    /// features finds as many as the dense search gives its fusion.
    pub depth: usize,
    /// As [`SearchOptions::num_threads`].
    pub num_threads: Option<usize>,
    /// Labels whose mean score is below this are left out; not NaN.
    pub min_score: Option<f64>,
}

/// The `k` labels of each query with the best mean of the members' scores; equal ones by the smaller id. `out` and
/// `stop` are those of [`Index::search_into`].
///
/// The mean is that of float32 sums in the order of the members, over all members.
///
/// # Errors
/// Those of [`Index::search_into`]; [`crate::Error::Argument`] without members, for different numbers of queries, and
/// for label ids that don't fit.
pub fn search_ensemble(
    members: &[EnsembleMember<'_>],
    k: usize,
    options: &EnsembleOptions,
    out: HitsMut<'_>,
    stop: Hook<'_>,
) -> Result<()> {
    check(members, k, options, &out)?;
    let found = members
        .iter()
        .map(|member| {
            let num_threads = options.num_threads;
            let search = SearchOptions { num_threads, min_score: None, ..member.options };
            // More than fusion has candidates would be other candidates, and other scores.
            let candidates = member.options.sparse.and(member.index.num_candidates());
            let depth = candidates.unwrap_or(options.depth).max(k).min(member.index.num_labels());
            let hits = member.index.search(member.queries, depth, &search, stop)?;
            Ok(Found { hits, labels: member.labels })
        })
        .collect::<Result<Vec<_>>>()?;
    let min_score = options.min_score.unwrap_or(0.0);
    let search = SearchOptions { num_threads: options.num_threads, ..SearchOptions::default() };
    average(&found, k, min_score, out, num_threads(&search)?, stop)
}

fn check(
    members: &[EnsembleMember<'_>],
    k: usize,
    options: &EnsembleOptions,
    out: &HitsMut<'_>,
) -> Result<(), ArgumentError> {
    check_positive("members", members.len())?;
    check_positive("k", k)?;
    if options.min_score.is_some_and(f64::is_nan) {
        return Err(ArgumentError::BadMinScore);
    }
    let num_queries = members[0].queries.len() / members[0].index.dim();
    for member in members {
        check_len("queries", member.queries.len(), num_queries * member.index.dim())?;
        let Some(labels) = member.labels else { continue };
        check_len("labels", labels.len(), member.index.num_labels())?;
        if let Some(&received) = labels.iter().find(|&&label| label as usize >= MAX_IDS) {
            return Err(ArgumentError::TooMany { name: "label ids", received: received as usize });
        }
    }
    let expected = num_queries.saturating_mul(k);
    check_len("ids", out.ids.len(), expected)?;
    check_len("scores", out.scores.len(), expected)
}

/// What a member found, and the ensemble's ids of its labels.
struct Found<'a> {
    hits: Hits,
    labels: Option<&'a [u32]>,
}

impl Found<'_> {
    /// The labels of a query, as the ensemble numbers them, and their scores.
    fn of_query(&self, query: usize) -> impl Iterator<Item = (u32, f32)> {
        let row = query * self.hits.width..(query + 1) * self.hits.width;
        let found = self.hits.ids[row.clone()].iter().zip(&self.hits.scores[row]);
        found.take_while(|found| *found.0 >= 0).map(|(&label, &score)| {
            (self.labels.map_or(label as u32, |labels| labels[label as usize]), score)
        })
    }
}

/// Writes the `k` best mean scores of each query.
fn average(
    found: &[Found<'_>],
    k: usize,
    min_score: f64,
    out: HitsMut<'_>,
    num_threads: usize,
    hook: Hook<'_>,
) -> Result<()> {
    let num_blocks = (out.ids.len() / k).div_ceil(QUERIES_AT_ONCE);
    let ids = out.ids.chunks_mut(QUERIES_AT_ONCE * k);
    let blocks = Mutex::new(ids.zip(out.scores.chunks_mut(QUERIES_AT_ONCE * k)).enumerate());
    threads::run(num_threads.min(num_blocks).max(1), hook, &|_: usize, pulse: &mut Pulse<'_>| {
        let mut means = Means::default();
        while !pulse.stopped() {
            let next = lock(&blocks).next();
            let Some((block, (ids, scores))) = next else { break };
            let rows = ids.chunks_mut(k).zip(scores.chunks_mut(k));
            for (query, (ids, scores)) in (block * QUERIES_AT_ONCE..).zip(rows) {
                let best = means.best(found, query, k);
                let good = best.take_while(|best| f64::from(best.1) >= min_score);
                write(good, ids, scores);
            }
        }
    })
}

/// One thread's memory.
#[derive(Default)]
struct Means {
    /// Label, member and score.
    scores: Vec<(u32, usize, f32)>,
    top: TopK,
}

impl Means {
    /// The labels of a query with the best means, best first.
    fn best(
        &mut self,
        found: &[Found<'_>],
        query: usize,
        k: usize,
    ) -> impl Iterator<Item = (u32, f32)> {
        self.scores.clear();
        for (member, found) in found.iter().enumerate() {
            self.scores.extend(found.of_query(query).map(|(label, score)| (label, member, score)));
        }
        self.scores.sort_unstable_by_key(|&(label, member, _)| (label, member));
        self.top.reset(k);
        for of_label in self.scores.chunk_by(|one, other| one.0 == other.0) {
            let sum = of_label.iter().fold(0.0, |sum: f32, score| sum + score.2);
            self.top.push(sum / found.len() as f32, of_label[0].0);
        }
        self.top.finish().iter().map(|&key| unkey(key))
    }
}

//! The last steps of a search with sparse features: candidates, their evidence, their scores.

use super::Fusion;
use super::candidates::Candidates;
use super::evidence::{EvidenceTable, NUM_COLUMNS, Neighbourhood};
use super::neighbours::{Neighbour, NeighbourSearch};
use super::query_features::QueryFeatures;
use crate::arguments::check_positive;
use crate::error::ArgumentError;
use crate::filter::Allowed;
use crate::index::Index;
use crate::kernels::{Lanes, TREE_LANES};
use crate::search::SearchOptions;
use crate::search::batch::Goal;
use crate::search::plan::Plan;
use crate::search::top_k::{TopK, unkey};
use crate::sparse::SparseRows;

/// What a call with sparse features searches with.
#[derive(Clone, Copy)]
pub(crate) struct FusedSearch<'a> {
    pub(crate) fusion: &'a Fusion,
    /// The queries' features \[Q, F\].
    pub(crate) sparse: SparseRows<'a>,
    /// R, at most L.
    pub(crate) num_candidates: usize,
}

impl<'a> FusedSearch<'a> {
    /// What queries with these options are searched for with, if they have sparse features.
    pub(crate) fn new(
        index: &'a Index,
        options: &SearchOptions<'a>,
    ) -> Result<Option<Self>, ArgumentError> {
        let Some(sparse) = options.sparse else { return Ok(None) };
        let fusion = index.fusion_or_error()?;
        let num_candidates = options.num_candidates.unwrap_or(fusion.sizes.num_candidates);
        check_positive("num_candidates", num_candidates)?;
        let num_candidates = num_candidates.min(index.num_labels());
        Ok(Some(Self { fusion, sparse, num_candidates }))
    }

    /// Checks the features of `num_queries` queries and widens the candidates to the `width` results that are
    /// wanted.
    pub(crate) fn prepare(
        &mut self,
        index: &Index,
        goal: Goal,
        num_queries: usize,
        width: usize,
    ) -> Result<(), ArgumentError> {
        let shape = (num_queries, self.fusion.sizes.num_features);
        self.sparse.check_shape("sparse", shape)?;
        if goal == Goal::Search {
            if !self.fusion.has_model() {
                let message = "the index has no fusion: with_fusion makes one that has, of weights that are fitted to \
                    evidence; without sparse features its dense model is searched";
                return Err(ArgumentError::NoFusion(message));
            }
            self.num_candidates = self.num_candidates.max(width).min(index.num_labels());
        }
        Ok(())
    }

    /// Candidates that a query can have.
    pub(crate) fn max_candidates(&self) -> usize {
        let num_labels = self.fusion.label_counts.as_slice().len();
        let of_neighbours = if self.fusion.neighbours.is_some() { self.num_candidates } else { 0 };
        (self.num_candidates + of_neighbours).min(num_labels)
    }
}

/// A query whose dense search is done.
pub(crate) struct FusedQuery<'a> {
    /// Its number in the call.
    pub(crate) number: usize,
    /// What label classifiers are multiplied with.
    pub(crate) values: &'a [f32],
    /// The labels that it may have; None means all.
    pub(crate) allowed: Option<Allowed<'a>>,
    /// Labels and path scores, those that the dense search returned among them.
    pub(crate) shortlist: (&'a [u32], &'a [f32]),
}

impl<'a> FusedQuery<'a> {
    pub(crate) fn new(
        plan: &Plan<'a>,
        number: usize,
        values: &'a [f32],
        shortlist: (&'a [u32], &'a [f32]),
    ) -> Self {
        let allowed = plan.filter.and_then(|filter| filter.of_query(number));
        Self { number, values, allowed, shortlist }
    }
}

/// The memory of one thread.
#[derive(Default)]
pub(crate) struct Scorer {
    features: QueryFeatures,
    neighbours: NeighbourSearch,
    candidates: Candidates,
    table: EvidenceTable,
    scores: Vec<Lanes>,
    ones: Vec<Lanes>,
    reach: Vec<Lanes>,
}

impl Scorer {
    /// Collects the candidates of a query, of which `dense` are the best of the dense search, and their evidence.
    pub(crate) fn collect(
        &mut self,
        plan: &Plan<'_>,
        fused: &FusedSearch<'_>,
        query: &FusedQuery<'_>,
        dense: &[u64],
    ) {
        let FusedSearch { fusion, sparse, num_candidates } = fused;
        self.features.set(sparse, query.number);
        self.candidates.reset(dense.iter().map(|&key| unkey(key).0), query.shortlist);
        let mut neighbourhood = Neighbourhood::default();
        if let Some(neighbours) = &fusion.neighbours {
            let features = sparse.row(query.number);
            let count = fusion.sizes.num_neighbours;
            let postings = neighbours.postings();
            let nearest = self.neighbours.nearest(plan.kernels, postings, features, count);
            neighbourhood = Neighbourhood::of(nearest);
            let votes = self.neighbours.votes(neighbours.labels());
            self.candidates.add_votes(votes, *num_candidates, |label| {
                query.allowed.is_none_or(|allowed| allowed.contains(label))
            });
        }
        self.table.fill(
            plan,
            fusion,
            query.values,
            &self.features,
            &self.candidates,
            neighbourhood,
        );
    }

    /// Collects the best `k` of the candidates.
    pub(crate) fn score(&mut self, plan: &Plan<'_>, fusion: &Fusion, top: &mut TopK, k: usize) {
        top.reset(k);
        let Some(model) = &fusion.model else { return };
        model.score(plan.kernels, &self.table, &mut self.reach, &mut self.scores);
        self.ones.resize(self.scores.len(), [1.0; TREE_LANES]);
        let scores = self.scores.as_flattened_mut();
        plan.kernels.final_scores(scores, self.ones.as_flattened());
        for (&score, &label) in scores.iter().zip(&self.candidates.labels) {
            top.push(score, label);
        }
    }

    /// Writes the candidates and their evidence, a row of [`NUM_COLUMNS`] for each, and −1 and 0 behind them.
    pub(crate) fn write(&self, ids: &mut [i64], evidence: &mut [f32]) {
        let count = self.candidates.labels.len();
        for (id, &label) in ids.iter_mut().zip(&self.candidates.labels) {
            *id = i64::from(label);
        }
        ids[count..].fill(-1);
        for (at, row) in evidence.chunks_mut(NUM_COLUMNS).enumerate() {
            for (column, value) in row.iter_mut().enumerate() {
                *value = if at < count { self.table.value(column, at) } else { 0.0 };
            }
        }
    }
}

impl Neighbourhood {
    fn of(neighbours: &[Neighbour]) -> Self {
        Self {
            votes: neighbours.iter().map(|near| near.cosine.powi(3)).sum(),
            nearest: neighbours.first().map_or(0.0, |near| near.cosine),
        }
    }
}
